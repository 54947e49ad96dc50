import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout } from 'node:timers/promises'
import t from 'tap'
import { Claims } from '../../../middleware/cache/claims.ts'
import { Store } from '../../../middleware/cache/store.ts'

await t.test('what can not be taken is waited for, without looking all the time', async t => {
  const store = Store.make(path.join(t.testdir(), 'store'))
  const name = '0'.repeat(32)
  // of no use: such as what was stored without waiting for the disk before the last boot
  writeFileSync(store.completion(name), '{}')
  const lock = store.tryLock(name, { shared: false })
  const start = performance.now()
  const looks: number[] = []
  const waiting = new Claims(store).wait(
    {
      name,
      names: [name],
      take: () => {
        looks.push(performance.now() - start)
        return false
      },
      isComplete: () => false,
    },
    new AbortController().signal,
  )
  while (looks.length < 6) await setTimeout(5)
  lock?.release()
  using claim = await waiting
  t.ok(claim?.lock)
  // 10, 20, 40 and 80 ms, less what timers are early
  t.ok((looks[5] ?? 0) > 140, `looked after ${looks.map(Math.round).join(', ')} ms`)
})

await t.test('a lock that is shared after the layer was told', async t => {
  const store = Store.make(path.join(t.testdir(), 'store'))
  const name = '1'.repeat(32)
  const lock = store.tryLock(name, { shared: false })
  let isShared = false
  const waiting = new Claims(store).wait(
    { name, names: [name], take: () => isShared, isComplete: () => true },
    new AbortController().signal,
  )
  writeFileSync(store.completion(name), '{}')
  // as long as syncing takes
  await setTimeout(50)
  isShared = lock?.share() ?? false
  t.equal(await waiting, undefined)
  lock?.release()
})

await t.test('the signal ends it, also before it has begun to wait', async t => {
  const store = Store.make(path.join(t.testdir(), 'store'))
  const name = '2'.repeat(32)
  using lock = store.tryLock(name, { shared: false })
  t.ok(lock)
  for (const isEarly of [true, false]) {
    const controller = new AbortController()
    const waiting = new Claims(store).wait(
      {
        name,
        names: [name],
        take: () => {
          if (isEarly) controller.abort(new RangeError('enough'))
          return false
        },
        isComplete: () => false,
      },
      controller.signal,
    )
    if (!isEarly) controller.abort(new RangeError('enough'))
    await t.rejects(waiting, { message: 'enough' })
  }
})
