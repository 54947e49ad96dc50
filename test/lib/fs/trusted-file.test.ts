// Files count only if nobody else can have put them there: a table of who owns what, and who can write it.
import {
  chmodSync,
  chownSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'
import { close } from '../../../lib/fs/libc.ts'
import { openTrusted, readTrusted } from '../../../lib/fs/trusted-file.ts'

const isRoot = process.geteuid?.() === 0
const needsRoot = isRoot ? false : 'needs root, to give files away'

/** A directory of its own below a sticky one; what is above the project's own may be anybody's. */
function place(t: { teardown(run: () => void): void }): string {
  const base = mkdtempSync(path.join(tmpdir(), 'koci-trusted-'))
  t.teardown(() => rmSync(base, { recursive: true, force: true }))
  mkdirSync(path.join(base, 'etc/koci'), { recursive: true, mode: 0o755 })
  for (const name of ['etc', 'etc/koci']) chmodSync(path.join(base, name), 0o755)
  writeFileSync(path.join(base, 'etc/koci/file'), 'content')
  chmodSync(path.join(base, 'etc/koci/file'), 0o644)
  return base
}

const cases: {
  name: string
  change: (base: string) => void
  reason?: RegExp
  code?: string
  skip?: string | false
}[] = [
  { name: 'its own and safe', change: () => {} },
  {
    name: 'readable by nobody else',
    change: base => chmodSync(`${base}/etc/koci/file`, 0o600),
  },
  {
    name: 'a sticky directory on the way',
    change: base => chmodSync(`${base}/etc`, 0o1777),
  },
  {
    name: 'writable by its group',
    change: base => chmodSync(`${base}/etc/koci/file`, 0o664),
    reason: /etc\/koci\/file can be written by its group/,
  },
  {
    name: 'writable by everybody',
    change: base => chmodSync(`${base}/etc/koci/file`, 0o646),
    reason: /file can be written by everybody/,
  },
  {
    name: 'in a directory that its group can write',
    change: base => chmodSync(`${base}/etc/koci`, 0o775),
    reason: /etc\/koci can be written by its group/,
  },
  {
    name: 'below a directory that everybody can write',
    change: base => chmodSync(`${base}/etc`, 0o757),
    reason: /etc can be written by everybody/,
  },
  {
    name: "somebody else's",
    change: base => chownSync(`${base}/etc/koci/file`, 12345, 0),
    reason: /file belongs to user 12345/,
    skip: needsRoot,
  },
  {
    name: "in somebody else's directory",
    change: base => chownSync(`${base}/etc`, 12345, 0),
    reason: /etc belongs to user 12345/,
    skip: needsRoot,
  },
  {
    name: 'a symlink to a safe file',
    change: base => {
      writeFileSync(`${base}/real`, 'content', { mode: 0o600 })
      rmSync(`${base}/etc/koci/file`)
      symlinkSync('../../real', `${base}/etc/koci/file`)
    },
  },
  {
    name: 'an absolute symlink to a directory on the way',
    change: base => {
      mkdirSync(`${base}/real/koci`, { recursive: true, mode: 0o755 })
      writeFileSync(`${base}/real/koci/file`, 'content', { mode: 0o600 })
      rmSync(`${base}/etc`, { recursive: true })
      symlinkSync(`${base}/real`, `${base}/etc`)
    },
  },
  {
    name: 'a symlink into a directory that everybody can write',
    change: base => {
      mkdirSync(`${base}/open`)
      writeFileSync(`${base}/open/file`, 'content', { mode: 0o600 })
      chmodSync(`${base}/open`, 0o777)
      rmSync(`${base}/etc/koci/file`)
      symlinkSync('../../open/file', `${base}/etc/koci/file`)
    },
    reason: /open can be written by everybody/,
  },
  {
    name: "somebody else's symlink in a sticky directory",
    change: base => {
      writeFileSync(`${base}/real`, 'content', { mode: 0o600 })
      rmSync(`${base}/etc/koci/file`)
      chmodSync(`${base}/etc/koci`, 0o1777)
      symlinkSync('../../real', `${base}/etc/koci/file`)
      lchownSync(`${base}/etc/koci/file`, 12345, 12345)
    },
    reason: /file belongs to user 12345/,
    skip: needsRoot,
  },
  {
    name: 'a loop of symlinks',
    change: base => {
      rmSync(`${base}/etc/koci/file`)
      symlinkSync('file', `${base}/etc/koci/file`)
    },
    code: 'ERR_KOCI_IO',
  },
  {
    name: 'a directory',
    change: base => {
      rmSync(`${base}/etc/koci/file`)
      mkdirSync(`${base}/etc/koci/file`)
    },
    reason: /not a regular file/,
  },
  { name: 'not there', change: base => rmSync(`${base}/etc/koci/file`), code: 'ERR_KOCI_IO' },
  {
    name: 'below a file',
    change: base => {
      rmSync(`${base}/etc/koci`, { recursive: true })
      writeFileSync(`${base}/etc/koci`, '')
    },
    code: 'ERR_KOCI_IO',
  },
]

for (const { name, change, reason, code = 'ERR_KOCI_UNTRUSTED', skip = false } of cases)
  await t.test(name, { skip }, async t => {
    const base = place(t)
    change(base)
    const before = readdirSync('/proc/self/fd').length
    const read = (): string => readTrusted(`${base}/etc/koci/file`).toString()
    if (reason === undefined && code === 'ERR_KOCI_UNTRUSTED') t.equal(read(), 'content')
    else t.throws(read, { code, message: reason ?? /./ })
    t.equal(readdirSync('/proc/self/fd').length, before, 'every descriptor is closed')
  })

await t.test(
  'a file that is too large is not read, one is opened whatever its size',
  async t => {
    const base = place(t)
    writeFileSync(`${base}/etc/koci/file`, Buffer.alloc(11))
    t.throws(() => readTrusted(`${base}/etc/koci/file`, 10), {
      code: 'ERR_KOCI_LIMIT_EXCEEDED',
    })
    close(openTrusted(`${base}/etc/koci/file`))
  },
)
