import { mkdirSync, renameSync, watch, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { setImmediate, setTimeout } from 'node:timers/promises'
import t from 'tap'
import { Watch } from '../../../middleware/cache/watch.ts'

const never = new AbortController().signal

/** How many watch something. What was closed is gone at the end of a round of the event loop. */
async function watchers(): Promise<number> {
  for (let round = 0; round < 2; round += 1) await setImmediate()
  return process.getActiveResourcesInfo().filter(name => name === 'FSEventWrap').length
}

function isDeaf(): string | false {
  try {
    watch(import.meta.dirname).close()
    return false
  } catch {
    return 'needs an inotify instance: fs.inotify.max_user_instances'
  }
}

await t.test('a file that is renamed into the directory', async t => {
  const dir = t.testdir({ layers: {}, one: '' })
  const watching = new Watch(join(dir, 'layers'))
  let found = watching.until(['one', 'other'], never)
  renameSync(join(dir, 'one'), join(dir, 'layers', 'one'))
  // a machine that stalls may have it give up before it is told
  while (!(await found)) found = watching.until(['one', 'other'], never)
  t.equal(await watchers(), 0)
})

await t.test('a file that was there before', async t => {
  const dir = t.testdir({ other: '' })
  t.equal(await new Watch(dir).until(['one', 'other'], never), true)
  t.equal(await watchers(), 0)
})

await t.test('a file that is there and of no use', { skip: isDeaf() }, async t => {
  const dir = t.testdir({ one: '' })
  const watching = new Watch(dir)
  t.equal(await watching.until(['one'], never, 20), false, 'is waited for')
  for (let isTold = false; !isTold;) {
    const found = watching.until(['one'], never, 1000)
    writeFileSync(join(dir, 'new'), '')
    renameSync(join(dir, 'new'), join(dir, 'one'))
    isTold = await found
  }
  t.pass('another one is told')
})

await t.test('each of those who wait is told of its own file', { skip: isDeaf() }, async t => {
  const dir = t.testdir()
  const watching = new Watch(dir)
  const told: string[] = []
  const all = ['a', 'b', 'c'].map(async name => {
    while (!(await watching.until([name], never)));
    told.push(name)
  })
  t.equal(await watchers(), 1)
  for (const name of ['c', 'a', 'b']) {
    writeFileSync(join(dir, name), '')
    while (!told.includes(name)) await setTimeout(5)
  }
  await Promise.all(all)
  t.same(told, ['c', 'a', 'b'])
  t.equal(await watchers(), 0)
})

await t.test('nothing comes: it is given up after a while', async t => {
  const dir = t.testdir({ unrelated: '' })
  const found = new Watch(dir).until(['one'], never)
  writeFileSync(join(dir, 'two'), '')
  t.equal(await found, false)
  t.equal(await watchers(), 0)
})

await t.test('a directory that is not there, or goes away', async t => {
  const dir = t.testdir()
  const missing = join(dir, 'missing')
  t.equal(await new Watch(missing).until(['one'], never), false)
  mkdirSync(missing)
  const found = new Watch(missing).until(['one'], never)
  renameSync(missing, join(dir, 'elsewhere'))
  t.equal(await found, false)
  t.equal(await watchers(), 0)
})

await t.test('the signal', async t => {
  const dir = t.testdir()
  const controller = new AbortController()
  const found = new Watch(dir).until(['one'], controller.signal)
  controller.abort()
  t.equal(await found, false)
  t.equal(await watchers(), 0)
})
