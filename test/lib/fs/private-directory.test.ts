import { chmodSync, chownSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { makePrivateDirectory } from '../../../lib/fs/private-directory.ts'

const untrusted = { code: 'ERR_KOCI_UNTRUSTED' }

await t.test('is made, and found again', async t => {
  const base = t.testdir()
  const made = makePrivateDirectory(path.join(base, 'a/b'), 'own')
  t.equal(made, path.join(base, 'a/b/own'))
  t.equal(statSync(made).mode & 0o7777, 0o700)
  symlinkSync('a', path.join(base, 'link'))
  t.equal(makePrivateDirectory(path.join(base, 'link/b'), 'own'), made)
})

await t.test('others can reach it', async t => {
  const base = t.testdir({ a: { own: {} }, b: { own: {} } })
  chmodSync(path.join(base, 'a/own'), 0o750)
  t.throws(() => makePrivateDirectory(path.join(base, 'a'), 'own'), untrusted)
  chmodSync(path.join(base, 'b/own'), 0o700)
  chmodSync(path.join(base, 'b'), 0o770)
  t.throws(() => makePrivateDirectory(path.join(base, 'b'), 'own'), untrusted)
})

await t.test('others can replace what is above', async t => {
  const base = t.testdir({ a: { b: {} } })
  chmodSync(path.join(base, 'a'), 0o777)
  chmodSync(path.join(base, 'a/b'), 0o700)
  t.throws(() => makePrivateDirectory(path.join(base, 'a/b'), 'own'), untrusted)
  chmodSync(path.join(base, 'a'), 0o1777)
  t.doesNotThrow(() => makePrivateDirectory(path.join(base, 'a/b'), 'own'))
})

const skip = process.geteuid?.() === 0 ? false : 'only root can give files away'
await t.test('somebody else’s', { skip }, async t => {
  const base = t.testdir({ a: {} })
  chmodSync(path.join(base, 'a'), 0o700)
  chownSync(path.join(base, 'a'), 1, 1)
  t.throws(() => makePrivateDirectory(path.join(base, 'a'), 'own'), untrusted)
})

await t.test('no directory', async t => {
  const base = t.testdir()
  writeFileSync(path.join(base, 'file'), '')
  t.throws(() => makePrivateDirectory(path.join(base, 'file'), 'own'), { code: 'ERR_KOCI_IO' })
  mkdirSync(path.join(base, 'd'), 0o700)
  writeFileSync(path.join(base, 'd/own'), '')
  t.throws(() => makePrivateDirectory(path.join(base, 'd'), 'own'))
})
