// What lies beneath a mount is looked for although somebody works there.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { assertNothingBeneath } from '../../../middleware/overlay/beneath.ts'

const found = { code: 'ERR_KOCI_INVALID_BUNDLE', message: /a\/file was written/ }

await t.test('directories and empty files are nothing, all else is', async t => {
  const rootfs = t.testdir({ 'a b': { c: {} }, empty: '' })
  t.doesNotThrow(() => assertNothingBeneath(rootfs))
  t.doesNotThrow(() => assertNothingBeneath(path.join(rootfs, 'gone')))
  mkdirSync(path.join(rootfs, 'a'))
  writeFileSync(path.join(rootfs, 'a/file'), 'x')
  t.throws(() => assertNothingBeneath(rootfs), found)
})

await t.test('what comes and goes beside it hides nothing', async t => {
  const rootfs = t.testdir({ a: { file: 'content' } })
  const busy = path.join(rootfs, 'z')
  mkdirSync(busy)
  const script = 'while [ -e ../go ]; do mkdir -p t/s; : > t/s/f; rm -r t; done'
  const go = path.join(rootfs, 'go')
  writeFileSync(go, '')
  const child = spawn('sh', ['-c', script], { cwd: busy, stdio: 'ignore' })
  const ended = once(child, 'exit')
  try {
    const missed = Array.from({ length: 2000 }, (_, at) => at).filter(() => {
      try {
        assertNothingBeneath(rootfs)
        return true
      } catch {
        return false
      }
    })
    t.same(missed, [])
    t.throws(() => assertNothingBeneath(rootfs), found)
  } finally {
    rmSync(go)
    await ended
  }
})
