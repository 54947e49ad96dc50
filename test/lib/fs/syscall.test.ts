// What a call that fails says, while strace answers in the kernel's place.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'

const probe = spawnSync('strace', ['-o', '/dev/null', 'true'], { timeout: 60_000 })
const skip = probe.status !== 0 && 'needs strace'
const library = new URL('../../../lib/fs/syscall.ts', import.meta.url).href

const answers: [error: string, when: string, expected: string, calls: number][] = [
  ['EAGAIN', '1', 'a descriptor', 2],
  ['EAGAIN', '1..3', 'a descriptor', 4],
  ['EAGAIN', '1+', 'EAGAIN', 4],
  ['EINTR', '1..3', 'a descriptor', 4],
  ['ENOENT', '1', 'ENOENT', 1],
  ['EIO', '1', 'EIO', 1],
]
for (const [error, when, expected, calls] of answers)
  await t.test(`openat that ends in ${error} (${when}): ${expected}`, { skip }, async t => {
    const file = join(t.testdir({ file: '' }), 'file')
    const script = `
      import { AT_FDCWD, cstring, errno, openat } from '${library}'
      const result = openat(AT_FDCWD, cstring('${file}'), 0, 0)
      const [name] = Object.entries(errno).find(([, code]) => code === -result) ?? ['a descriptor']
      console.log(name)`
    const flags = ['-f', '-P', file, '-e', `inject=openat:error=${error}:when=${when}`]
    const command = [process.execPath, '--input-type=module', '-e', script]
    const run = spawnSync('strace', [...flags, ...command], {
      encoding: 'utf8',
      timeout: 60_000,
      env: { ...process.env, NODE_OPTIONS: '' },
    })
    t.equal(run.stdout.trim(), expected, run.stderr)
    t.equal(run.stderr.split('openat(').length - 1, calls, run.stderr)
  })
