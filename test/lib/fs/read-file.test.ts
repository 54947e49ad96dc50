import { execFileSync } from 'node:child_process'
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { readFileInRoot } from '../../../lib/fs/read-file.ts'
import { openRooted } from '../../../lib/fs/rooted.ts'

await t.test('files are read through links that stay inside', async t => {
  const dir = t.testdir({
    outside: 'secret',
    root: { etc: { passwd: 'root:x:0:0' }, big: 'x'.repeat(100), empty: '' },
  })
  const root = join(dir, 'root')
  symlinkSync('/etc/passwd', join(root, 'absolute'))
  symlinkSync('../../../../etc', join(root, 'etc', 'up'))
  symlinkSync('../outside', join(root, 'escape'))
  symlinkSync('loop', join(root, 'loop'))
  execFileSync('mkfifo', [join(root, 'fifo')])
  using rooted = openRooted(root)
  for (const path of ['etc/passwd', '/etc/passwd', 'absolute', 'etc/up/passwd'])
    t.equal(readFileInRoot(rooted, path)?.toString(), 'root:x:0:0', path)
  t.equal(readFileInRoot(rooted, 'empty')?.length, 0)
  for (const path of ['escape', 'nothing', 'etc/passwd/x', 'nothing/../etc/passwd'])
    t.equal(readFileInRoot(rooted, path), undefined, path)
  for (const path of ['fifo', 'etc', '', '..'])
    t.throws(() => readFileInRoot(rooted, path), { code: 'ERR_KOCI_INVALID_BUNDLE' }, path)
  t.throws(() => readFileInRoot(rooted, 'loop'), {
    code: 'ERR_KOCI_IO',
    cause: { code: 'ELOOP' },
  })
  t.throws(() => readFileInRoot(rooted, 'big', { maxBytes: 99 }), {
    code: 'ERR_KOCI_LIMIT_EXCEEDED',
  })
})
