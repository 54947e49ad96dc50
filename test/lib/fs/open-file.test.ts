import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { extraOf } from '../../../lib/bundle/scan.ts'
import { XattrReader } from '../../../lib/fs/entry-xattrs.ts'
import {
  cstring,
  mknodat,
  readlinkat,
  S_IFIFO,
  statx,
  SystemCallError,
} from '../../../lib/fs/libc.ts'
import { openFile, openStated, readStated } from '../../../lib/fs/open-file.ts'

const dir = t.testdir()
writeFileSync(join(dir, 'file'), 'content')
symlinkSync('file', join(dir, 'link'))
mkdirSync(join(dir, 'directory'))
const fd = openSync(dir, 'r')
t.teardown(() => closeSync(fd))
mknodat(fd, cstring('fifo'), S_IFIFO | 0o600, 0, 0)

const open = (name: string) => (): unknown => openFile(fd, cstring(name), { mode: 0o100644 })
const readLink = (name: string) => (): unknown => readlinkat(fd, cstring(name))
const replaced: Readonly<Record<string, () => unknown>> = {
  'a file that is gone': open('gone'),
  'a link in place of a file': open('link'),
  'a file in place of a directory above it': open('file/file'),
  'a link that is gone': readLink('gone'),
  'a file in place of a link': readLink('file'),
  'a directory in place of a link': readLink('directory'),
  'a fifo in place of a link': readLink('fifo'),
}

for (const [what, read] of Object.entries(replaced))
  await t.test(what, async t => {
    const subject = Buffer.from('a/\xff', 'latin1')
    t.throws(() => readStated(subject, read), {
      code: 'ERR_KOCI_FILE_CHANGED',
      message: /^a\/\\xff: /,
      cause: { syscall: /at$/ },
    })
  })

await t.test("what is opened is the very file that was stat'ed", async t => {
  writeFileSync(join(dir, 'other'), 'content')
  const stat = statx(fd, cstring('file'))
  const before = readdirSync('/proc/self/fd').length
  for (const name of ['gone', 'link', 'directory', 'fifo', 'other'])
    t.throws(() => openStated(fd, cstring(name), stat, Buffer.from(name)), {
      code: 'ERR_KOCI_FILE_CHANGED',
      details: { subject: Buffer.from(name) },
    })
  t.equal(readdirSync('/proc/self/fd').length, before, 'nothing stays open')
  closeSync(openStated(fd, cstring('file'), stat, Buffer.from('file')))
  writeFileSync(join(dir, 'file'), 'longer content')
  t.throws(() => openStated(fd, cstring('file'), stat, Buffer.from('file')), {
    code: 'ERR_KOCI_FILE_CHANGED',
  })
})

await t.test('other refusals stay what they are', async t => {
  const refusal = new SystemCallError(-5, 'readlinkat')
  const read = (): never => {
    throw refusal
  }
  t.throws(() => readStated(Buffer.from('x'), read), refusal)
})

await t.test("what a scan stat'ed as a link isn't one any more", async t => {
  const link = statx(fd, cstring('link'))
  const reader = new XattrReader()
  t.match(extraOf(fd, cstring('link'), link, reader), { rawLinkname: Buffer.from('file') })
  for (const name of ['gone', 'file', 'directory'])
    t.throws(() => extraOf(fd, cstring(name), link, reader), { code: 'ERR_KOCI_FILE_CHANGED' })
})
