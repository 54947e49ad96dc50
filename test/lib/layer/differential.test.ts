// The same layers by umoci and by us: same names, types, contents, modes, owners, times in ns, attributes, hard links.
// Left out is what is decided differently: names that climb, directories without entries, files as parents.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { makeSandbox } from '../../support/extract.ts'
import { xattrRecord, type TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'
import { umociUnpack, withoutUmoci } from '../../support/umoci.ts'

const isRoot = process.getuid?.() === 0
const skip = withoutUmoci || (!isRoot && 'needs root: owners and devices')

type Layers = ReadonlyArray<readonly TarMember[]>

const dir = (name: string, rest: Partial<TarMember> = {}): TarMember => ({
  name,
  type: 'directory',
  mtime: 7,
  ...rest,
})
const capability = Buffer.from('0100000200200000000000000000000000000000', 'hex')

const metadata: TarMember[] = [
  dir('./', { mode: 0o751, uid: 3, gid: 4, mtime: '1.25' }),
  dir('etc', { mode: 0o2755, gid: 50, mtime: '1700000000.123456789' }),
  { name: 'etc/passwd', body: 'root', mode: 0o644, mtime: '1700000000.999999999' },
  { name: 'etc/shadow', body: 'secret', mode: 0, gid: 42, mtime: '-1.5' },
  { name: 'etc/suid', body: 'x'.repeat(100_000), mode: 0o6755, uid: 1000, gid: 1000 },
  { name: 'etc/own-suid', body: 'x', mode: 0o4755 },
  {
    name: 'etc/cap',
    body: 'x',
    uid: 7,
    pax: [
      xattrRecord('security.capability', capability),
      xattrRecord('user.\xff', Buffer.from([0, 10, 255])),
    ],
  },
  { name: 'etc/empty', mtime: 4294967296n * 2n },
  { name: 'etc/big-ids', uid: 4294967294, gid: 2097152 },
  {
    name: 'etc/atime',
    pax: [
      ['atime', '3.5'],
      ['mtime', '4.5'],
    ],
  },
  dir('tmp', { mode: 0o1777 }),
  dir('private', { mode: 0, uid: 9 }),
  { name: 'private/x', mtime: 9 },
  {
    name: 'link',
    type: 'symlink',
    linkname: '../../etc/passwd',
    uid: 8,
    gid: 9,
    mtime: '2.000000001',
  },
  { name: 'hard', type: 'hardlink', linkname: 'etc/passwd', mode: 0o777, uid: 77, mtime: 1 },
  { name: 'hard-link', type: 'hardlink', linkname: './link' },
  { name: 'fifo', type: 'fifo', mode: 0o620, uid: 5, mtime: 3 },
  { name: 'null', type: 'char', devmajor: 1, devminor: 3, mode: 0o666, mtime: 3 },
  { name: 'disk', type: 'block', devmajor: 259, devminor: 70000, mode: 0o660, gid: 6 },
  { name: 'n'.repeat(255), body: 'long', mtime: 1 },
  { name: Buffer.from([0x61, 0xff, 0x0a]), body: 'raw', mtime: 1 },
]

const cases: Array<{
  name: string
  layers: Layers
  flags?: string[]
  keepDirlinks?: boolean
  directoryTimes?: boolean
}> = [
  { name: 'metadata of every kind', layers: [metadata] },
  { name: 'the same layer twice', layers: [metadata, metadata] },
  {
    name: 'upper layers over lower ones',
    layers: [
      metadata,
      [
        dir('etc', { mode: 0o700, mtime: 11 }),
        { name: 'etc/passwd', body: 'toor', mtime: 12 },
        { name: 'etc/cap', body: 'plain', mtime: 12 },
        { name: 'fifo', body: 'no fifo', mtime: 13 },
        { name: 'tmp', type: 'symlink', linkname: 'etc', mtime: 14 },
        dir('link', { mtime: 15 }),
        { name: 'link/x', mtime: 16 },
        { name: 'more', type: 'hardlink', linkname: 'etc/shadow' },
      ],
    ],
  },
  {
    name: 'directories that get children keep their times',
    layers: [
      [
        dir('./'),
        dir('a'),
        dir('a/b'),
        dir('a/c', { mtime: 3 }),
        { name: 'a/b/old', mtime: 4 },
      ],
      [{ name: 'a/b/new', mtime: 5 }],
      [{ name: 'a/b/.wh.old' }],
      [{ name: 'a/.wh.c' }],
    ],
  },
  {
    name: 'attributes of a directory that its new entry lacks are gone',
    layers: [
      [dir('d', { pax: [xattrRecord('user.a', '1'), xattrRecord('user.b', '2')] })],
      [dir('d', { pax: [xattrRecord('user.b', '3')] })],
    ],
  },
  {
    name: 'symlinked parents',
    layers: [
      [
        dir('real'),
        { name: 'rel', type: 'symlink', linkname: 'real' },
        { name: 'abs', type: 'symlink', linkname: '/real' },
      ],
      [{ name: 'rel/a', mtime: 1 }, { name: 'abs/b', mtime: 2 }, { name: 'abs/.wh.none' }],
    ],
  },
  {
    name: 'whiteouts',
    directoryTimes: false,
    layers: [
      [
        dir('a'),
        { name: 'a/x', mtime: 1 },
        dir('a/d'),
        { name: 'a/d/y', mtime: 1 },
        dir('b'),
        { name: 'b/x', mtime: 1 },
        dir('b/keep'),
        { name: 'b/keep/old', mtime: 1 },
        { name: 'l', type: 'symlink', linkname: 'b' },
      ],
      [
        { name: 'a/.wh.x' },
        { name: 'a/.wh.d' },
        { name: '.wh.l' },
        { name: '.wh.nothing' },
        dir('b/keep', { mtime: 4 }),
        { name: 'b/keep/new', mtime: 5 },
        { name: 'b/.wh..wh..opq' },
      ],
    ],
  },
  {
    name: 'whiteouts that come after what they must not hide',
    directoryTimes: false,
    layers: [
      [dir('d'), { name: 'd/old', mtime: 1 }, { name: 'f', body: 'old', mtime: 1 }],
      [
        dir('d', { mtime: 2 }),
        { name: 'd/new', mtime: 3 },
        { name: 'f', body: 'new', mtime: 3 },
        { name: '.wh.d' },
        { name: '.wh.f' },
      ],
    ],
  },
  {
    name: 'keep-dirlinks',
    flags: ['--keep-dirlinks'],
    keepDirlinks: true,
    layers: [
      [dir('d'), { name: 's', type: 'symlink', linkname: 'd', mtime: 6 }],
      [dir('s', { uid: 5, mode: 0o700 }), { name: 's/x', mtime: 8 }],
    ],
  },
]

await t.test('the same tree as umoci', { skip }, async t => {
  for (const { name, layers, flags = [], keepDirlinks = false, directoryTimes = true } of cases)
    await t.test(name, async t => {
      const base = mkdtempSync(join(tmpdir(), 'koci-umoci-'))
      t.teardown(() => {
        rmSync(base, { recursive: true })
      })
      const theirs = umociUnpack(join(base, 'umoci'), layers, flags)
      const sandbox = makeSandbox(base)
      sandbox.apply(layers, { keepDirlinks })
      const describe = (path: string) =>
        // the root's times are up to whoever made the directory, where no layer has an entry for it
        describeTree(path, { directoryTimes }).filter(
          (line, index) => index > 0 || !line.includes('755'),
        )
      t.strictSame(describe(sandbox.rootfs), describe(theirs))
      t.notOk(sandbox.escaped())
    })
})
