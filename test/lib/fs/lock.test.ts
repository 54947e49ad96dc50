import { execFile } from 'node:child_process'
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { acquireLock, tryLock } from '../../../lib/fs/lock.ts'

await t.test('one holder at a time; released, it can be had again', async t => {
  const path = join(t.testdir(), 'lock')
  const lock = tryLock(path)
  t.ok(lock)
  t.equal(tryLock(path), undefined)
  lock?.release()
  lock?.release()
  const again = tryLock(path)
  t.ok(again)
  again?.release()
})

await t.test('directories can be locked', async t => {
  const path = t.testdir()
  using lock = tryLock(path, { create: false })
  t.ok(lock)
  t.equal(tryLock(path), undefined)
})

await t.test('shared holders exclude only exclusive ones', async t => {
  const path = join(t.testdir(), 'lock')
  using one = tryLock(path, { shared: true })
  using two = tryLock(path, { shared: true })
  t.ok(one && two)
  t.equal(tryLock(path), undefined)
})

await t.test('another process sees the lock', async t => {
  const path = join(t.testdir(), 'lock')
  const attempt = () =>
    promisify(execFile)('flock', ['-n', path, 'true']).then(
      () => 'free',
      () => 'held',
    )
  const lock = tryLock(path)
  t.equal(await attempt(), 'held')
  lock?.release()
  t.equal(await attempt(), 'free')
})

await t.test('a lock on a file that was replaced is no lock on its successor', async t => {
  const dir = t.testdir({ lock: '' })
  const path = join(dir, 'lock')
  using old = tryLock(path)
  renameSync(path, join(dir, 'moved'))
  writeFileSync(path, '')
  using current = tryLock(path)
  t.ok(old && current)
})

await t.test('without create, a missing file is an error and stays missing', async t => {
  const path = join(t.testdir(), 'lock')
  t.throws(() => tryLock(path, { create: false }), {
    code: 'ERR_KOCI_IO',
    cause: { code: 'ENOENT' },
  })
  mkdirSync(path)
  rmSync(path, { recursive: true })
})

await t.test(
  'waiting ends when the holder lets go, and does not block the event loop',
  async t => {
    const path = join(t.testdir(), 'lock')
    const lock = tryLock(path)
    setTimeout(() => lock?.release(), 30)
    using second = await acquireLock(path, { timeoutMs: 5000 })
    t.ok(second)
  },
)

await t.test(
  'waiting ends with LOCKED at the time limit and with ABORTED by the signal',
  async t => {
    const path = join(t.testdir(), 'lock')
    using held = tryLock(path)
    t.ok(held)
    await t.rejects(acquireLock(path, { timeoutMs: 0 }), { code: 'ERR_KOCI_LOCKED' })
    await t.rejects(acquireLock(path, { timeoutMs: 20 }), { code: 'ERR_KOCI_LOCKED' })
    const signal = AbortSignal.timeout(20)
    await t.rejects(acquireLock(path, { signal }), { code: 'ERR_KOCI_ABORTED' })
  },
)
