import {
  closeSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import * as libc from '../../../lib/fs/libc.ts'
import * as xattr from '../../../lib/fs/xattr.ts'

const { cstring } = libc

function openDirectory(
  t: Tap,
  content: Record<string, string> = {},
): { dir: string; fd: number } {
  const dir = t.testdir(content)
  const fd = libc.open(dir, libc.O_RDONLY | libc.O_DIRECTORY)
  t.teardown(() => {
    libc.close(fd)
  })
  return { dir, fd }
}
type Tap = Pick<typeof t, 'testdir' | 'teardown'>

await t.test('a name with a NUL byte is refused', async t => {
  t.throws(() => cstring(Buffer.from('a\0b')), { code: 'ERR_KOCI_INVALID_OPTION' })
  t.strictSame([...cstring('a')], [0x61, 0])
})

await t.test('what the kernel would silently cut is refused', async t => {
  const { fd } = openDirectory(t)
  const name = cstring('x')
  const refused: Array<[string, () => void]> = [
    ['close(NaN)', () => libc.close(Number.NaN)],
    ['close(1.5)', () => libc.close(1.5)],
    ['close(-1)', () => libc.close(-1)],
    ['close(2 ** 32)', () => libc.close(2 ** 32)],
    ['name without NUL', () => libc.openat(fd, Buffer.from('x') as libc.CString, 0)],
    ['uid -1', () => libc.fchown(fd, 0xffffffff, 0)],
    ['uid 2 ** 32', () => libc.fchown(fd, 2 ** 32, 0)],
    ['gid NaN', () => libc.fchownat(fd, name, 0, Number.NaN)],
    ['device major', () => libc.mknodat(fd, name, libc.S_IFCHR, 4096, 0)],
    ['device minor', () => libc.mknodat(fd, name, libc.S_IFCHR, 0, 2 ** 20)],
    ['mode', () => libc.fchmod(fd, -1)],
    ['offset', () => libc.pread(fd, Buffer.alloc(1), 1, -1)],
    ['length', () => libc.pread(fd, Buffer.alloc(1), 2, 0)],
  ]
  for (const [name, call] of refused) t.throws(call, { code: 'ERR_KOCI_INVALID_OPTION' }, name)
  t.doesNotThrow(() => fstatSync(0), 'descriptor 0 is still open')
})

await t.test('a refused call throws an error like Node’s, its name printable', async t => {
  const { fd } = openDirectory(t)
  t.throws(() => libc.openat(fd, cstring('a\nb'), 0), {
    code: 'ENOENT',
    syscall: 'openat',
    errno: -2,
    message: String.raw`ENOENT: no such file or directory, openat 'a\nb'`,
  })
  t.throws(() => libc.statx(fd, cstring('gone')), { code: 'ENOENT', syscall: 'statx' })
})

await t.test('statx says what lstat says, to the nanosecond', async t => {
  const { dir, fd } = openDirectory(t, { file: 'four' })
  symlinkSync('file', join(dir, 'link'))
  libc.utimensat(fd, cstring('file'), -1_500_000_000n, 1_700_000_000_123_456_789n)
  for (const name of ['file', 'link', '.']) {
    const stat = libc.statx(fd, cstring(name))
    const node = lstatSync(join(dir, name), { bigint: true })
    t.match(
      { ...node, mtimeNs: node.mtimeNs, atimeNs: node.atimeNs, ctimeNs: node.ctimeNs },
      {
        mode: BigInt(stat.mode),
        uid: BigInt(stat.uid),
        gid: BigInt(stat.gid),
        nlink: BigInt(stat.nlink),
        size: BigInt(stat.size),
        ino: stat.ino,
        dev: BigInt(stat.dev),
        atimeNs: stat.atime,
        mtimeNs: stat.mtime,
        ctimeNs: stat.ctime,
      },
      name,
    )
  }
  t.equal(libc.statx(fd, cstring('file')).atime, -1_500_000_000n)
})

await t.test(
  'times left out stay, times beyond every range are clamped and not wrapped',
  async t => {
    const { fd } = openDirectory(t, { file: '' })
    const name = cstring('file')
    libc.utimensat(fd, name, 1n, 2n)
    libc.utimensat(fd, name, undefined, 3n)
    t.match(libc.statx(fd, name), { atime: 1n, mtime: 3n })
    libc.utimensat(fd, name, 0n, 10n ** 30n)
    t.ok(libc.statx(fd, name).mtime >= 2n ** 31n * 1_000_000_000n)
  },
)

await t.test('a directory larger than the buffer is read whole, and again', async t => {
  const { dir, fd } = openDirectory(t)
  mkdirSync(join(dir, 'd'))
  const d = libc.openat(fd, cstring('d'), libc.O_RDONLY | libc.O_DIRECTORY)
  t.teardown(() => {
    libc.close(d)
  })
  const names = Array.from({ length: 4000 }, (_, i) => `${'n'.repeat(100)}${i}`)
  for (const name of names) closeSync(openSync(join(dir, 'd', name), 'w'))
  const read = () =>
    libc
      .readDirectory(d)
      .map(entry => entry.name.toString())
      .sort()
  t.strictSame(read(), names.sort())
  t.strictSame(read(), names, 'a second time')
})

await t.test('names are bytes', async t => {
  const { fd } = openDirectory(t)
  const raw = Buffer.from([0xff, 0x0a, 0xc3])
  libc.symlinkat(cstring(Buffer.from([0xfe])), fd, cstring(raw))
  t.strictSame(libc.readDirectory(fd)[0]?.name, raw)
  t.strictSame(libc.readlinkat(fd, cstring(raw)), Buffer.from([0xfe]))
  t.equal(libc.tryReadlinkat(fd, cstring('gone')), undefined)
})

await t.test('reads and writes are complete', async t => {
  const { fd } = openDirectory(t)
  const file = libc.openat(fd, cstring('f'), libc.O_RDWR | libc.O_CREAT | libc.O_EXCL, 0o600)
  t.teardown(() => {
    libc.close(file)
  })
  libc.write(file, Buffer.from('hello '))
  libc.pwrite(file, Buffer.from('world'), 6)
  const buffer = Buffer.alloc(20)
  t.equal(libc.read(file, buffer, 0), 11)
  t.equal(buffer.toString('latin1', 0, 11), 'hello world')
  libc.ftruncate(file, 5)
  t.equal(libc.statx(file).size, 5)
  const copy = libc.openat(fd, cstring('copy'), libc.O_RDWR | libc.O_CREAT | libc.O_EXCL, 0o600)
  const source = libc.openat(fd, cstring('f'), libc.O_RDONLY)
  t.equal(libc.copyFileRange(source, copy, 100), 5)
  t.equal(libc.copyFileRange(source, copy, 100), 0)
  libc.close(copy)
  libc.close(source)
})

await t.test('rename without replacing, and exchanging', async t => {
  const { fd } = openDirectory(t, { a: 'a', b: 'bb' })
  const [a, b] = [cstring('a'), cstring('b')]
  t.throws(() => libc.renameat2(fd, a, fd, b, libc.RENAME_NOREPLACE), { code: 'EEXIST' })
  libc.renameat2(fd, a, fd, b, libc.RENAME_EXCHANGE)
  t.equal(libc.statx(fd, a).size, 2)
})

await t.test('a hard link to a symlink is one to the symlink itself', async t => {
  const { fd } = openDirectory(t, { file: '' })
  libc.symlinkat(cstring('file'), fd, cstring('link'))
  libc.linkat(fd, cstring('link'), fd, cstring('other'))
  t.equal(libc.statx(fd, cstring('other')).mode & libc.S_IFMT, libc.S_IFLNK)
  t.throws(() => libc.fchmodat(fd, cstring('link'), 0o600), { code: 'ENOTSUP' })
})

await t.test('attributes: bytes in, bytes out, through descriptors and names', async t => {
  const { dir, fd } = openDirectory(t, { file: '' })
  const file = libc.openat(fd, cstring('file'), libc.O_RDONLY)
  t.teardown(() => {
    libc.close(file)
  })
  const name = Buffer.from('user.\xff', 'latin1')
  const value = Buffer.from(Array.from({ length: 1000 }, (_, i) => i & 255))
  xattr.setXattr(file, name, value)
  const target = xattr.xattrTarget(fd, cstring('file'))
  t.strictSame(xattr.listXattrs(target), [name])
  t.strictSame(xattr.getXattr(target, name), value)
  xattr.setXattr(target, Buffer.from('user.empty'), Buffer.alloc(0))
  t.strictSame(xattr.getXattr(file, Buffer.from('user.empty')), Buffer.alloc(0))
  t.equal(xattr.getXattr(file, Buffer.from('user.none')), undefined)
  xattr.removeXattr(target, name)
  xattr.removeXattr(target, name)
  t.strictSame(xattr.listXattrs(file), [Buffer.from('user.empty')])
  writeFileSync(join(dir, 'outside'), '')
  libc.symlinkat(cstring('outside'), fd, cstring('link'))
  t.strictSame(xattr.listXattrs(xattr.xattrTarget(fd, cstring('link'))), [], 'not followed')
})
