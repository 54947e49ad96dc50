// L: hard links and symlinks.
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statfsSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { makeSandbox } from '../support/extract.ts'
import {
  hostile,
  isRoot,
  makePlace,
  merged,
  shapeOf,
  type HostileCase,
} from '../support/hostile.ts'
import { device, dir, fifo, file, hard, link } from '../support/members.ts'
import type { TarMember } from '../support/tar-builder.ts'

t.setTimeout(900_000)

const needsRoot = !isRoot && 'needs root: mknod'
const up = '../'.repeat(12)
/** Somebody without privileges. */
const ordinary = 65_534
const long = (letter: string): string => letter.repeat(247)

/** CVE-2025-4517: 16 long directories and as many short links to them, so that what is meant is beyond PATH_MAX. */
const tower = (): TarMember[] => {
  const members: TarMember[] = []
  let short = ''
  for (const letter of 'abcdefghijklmnop') {
    members.push(dir(`${short}${long(letter)}`), link(`${short}${letter}`, long(letter)))
    short += `${letter}/`
  }
  // up as often as the links lead down, and further than the root
  return [
    ...members,
    link(`${short}${long('l')}`, '../'.repeat(16)),
    link('escape', `${short}${long('l')}/../../canary`),
  ]
}

const cases: HostileCase[] = [
  {
    id: 'L01',
    what: 'a hard link to an absolute path outside',
    cli: true,
    layers: ({ canary }) => [[hard('h', `${canary}/file`)]],
    rejects: 'INVALID_ENTRY',
    says: 'h: ',
    kept: [],
  },
  ...[
    '../../canary/file',
    '../rootfs-evil/file',
    `${up}etc/hostname`,
    'd/../../../canary/file',
  ].map(target => ({
    id: 'L01',
    what: `a hard link to ${target}`,
    cli: target.startsWith('../../'),
    layers: [[dir('d'), hard('h', target)]],
    rejects: 'PATH_ESCAPE',
    says: `${target}: `,
    kept: ['d dir'],
  })),
  {
    id: 'L01',
    what: 'with --compat=clamp it is looked for in the root',
    options: { compat: 'clamp' },
    layers: [[hard('h', '../../canary/file')]],
    rejects: 'INVALID_ENTRY',
    says: 'the target does not exist',
  },
  {
    id: 'L02',
    what: 'a hard link through a symlink to the outside',
    layers: [[link('s', '../../canary'), hard('h', 's/file')]],
    rejects: 'INVALID_ENTRY',
    kept: ['s link -> ../../canary'],
  },
  {
    id: 'L02',
    what: 'a hard link through an absolute symlink to the outside',
    layers: ({ canary }) => [[link('s', canary), hard('h', 's/sub/file')]],
    rejects: 'INVALID_ENTRY',
  },
  {
    id: 'L02',
    what: 'a hard link through a symlink that leads up to /',
    layers: ({ canary }) => [[link('s', up + canary.slice(1)), hard('h', 's/file')]],
    rejects: 'INVALID_ENTRY',
  },
  {
    id: 'L03',
    what: 'a hard link to a symlink, then a file of its name',
    layers: [[file('f', 'old'), link('s', 'f'), hard('h', 's'), file('h', 'new')]],
    tree: ['f file old', 'h file new', 's link -> f'],
  },
  {
    id: 'L03',
    what: 'a hard link to a symlink to the outside, then a file of its name',
    layers: [[link('s', '../../canary/file'), hard('h', 's'), file('h', 'new')]],
    tree: ['h file new', 's link -> ../../canary/file'],
  },
  {
    id: 'L04',
    what: 'a hard link to a symlink is the symlink, and its mode is nobody’s',
    layers: [
      [
        link('s', '../../canary/file'),
        hard('h', 's', { mode: 0o4777, mtime: 5, uid: 7, gid: 7 }),
      ],
    ],
    tree: ['h link -> ../../canary/file', 's link -> ../../canary/file =h'],
  },
  {
    id: 'L04',
    what: 'a hard link to an absolute symlink is the symlink',
    layers: ({ canary }) => [
      [link('s', `${canary}/file`), hard('h', 's', { mode: 0o4777, mtime: 5 })],
    ],
    tree: ['h link -> /@base/canary/file', 's link -> /@base/canary/file =h'],
  },
  {
    id: 'L05',
    what: 'a hard link to a directory',
    layers: [[dir('d'), hard('h', 'd')]],
    rejects: 'INVALID_ENTRY',
    says: 'the target is a directory',
    kept: ['d dir'],
  },
  {
    id: 'L05',
    what: 'a hard link to the root',
    layers: [[hard('h', '/')]],
    rejects: 'INVALID_ENTRY',
    says: 'the target is a directory',
    kept: [],
  },
  {
    id: 'L06',
    what: 'a hard link to nothing',
    layers: [[hard('h', 'x')]],
    rejects: 'INVALID_ENTRY',
    says: 'h: ',
    kept: [],
  },
  {
    id: 'L06',
    what: 'a hard link to what comes later',
    layers: [[hard('h', 'x'), file('x')]],
    rejects: 'INVALID_ENTRY',
    kept: [],
  },
  {
    id: 'L06',
    what: 'a hard link to nothing keeps what it would replace',
    layers: [[file('h', 'kept'), hard('h', 'x')]],
    rejects: 'INVALID_ENTRY',
    kept: ['h file kept'],
  },
  {
    id: 'L06',
    what: 'a hard link to a directory keeps what it would replace',
    layers: [[dir('d'), file('h', 'kept'), hard('h', 'd')]],
    rejects: 'INVALID_ENTRY',
    kept: ['d dir', 'h file kept'],
  },
  {
    id: 'L07',
    what: 'a hard link to itself',
    layers: [[file('a', 'kept'), hard('a', './a')]],
    rejects: 'INVALID_ENTRY',
    says: 'it links to itself',
    kept: ['a file kept'],
  },
  {
    id: 'L07',
    what: 'a hard link to itself through a symlink',
    layers: [[file('d/a', 'kept'), link('s', 'd'), hard('s/a', 'd/a')]],
    rejects: 'INVALID_ENTRY',
    kept: ['d dir', 'd/a file kept', 's link -> d'],
  },
  {
    id: 'L07',
    what: 'a hard link that would replace the directory of its target',
    layers: [[file('d/a', 'kept'), hard('d', 'd/a')]],
    rejects: 'INVALID_ENTRY',
    kept: ['d dir', 'd/a file kept'],
  },
  {
    id: 'L08',
    what: 'a hard link to a file of a lower layer shares it',
    layers: [[file('a', 'x')], [hard('h', 'a')], [hard('d/i', 'h')]],
    tree: ['a file x', 'd dir', 'd/i file x =a', 'h file x =a'],
    stackedTree: ['a file x', 'd dir', 'd/i file x', 'h file x =d/i'],
  },
  {
    id: 'L09',
    what: 'a file over a hard link breaks it',
    layers: [[file('a', 'four'), hard('h', 'a'), file('h', 'new')]],
    tree: ['a file four', 'h file new'],
  },
  {
    id: 'L10',
    what: 'a chain of hard links',
    layers: [[file('a', 'x'), hard('b', 'a'), hard('c', 'b')]],
    tree: ['a file x', 'b file x =a', 'c file x =a'],
    stackedTree: ['a file x', 'b file x', 'c file x =b'],
  },
  {
    id: 'L10',
    what: 'the same hard link twice',
    layers: [[file('a', 'x'), hard('b', 'a'), hard('b', 'a')]],
    tree: ['a file x', 'b file x =a'],
  },
  {
    id: 'L11',
    what: 'metadata of a hard link is ignored',
    layers: [
      [
        file('a', 'x', { mode: 0o600, mtime: 3 }),
        hard('h', 'a', {
          mode: 0o4777,
          mtime: 9,
          uid: 5,
          gid: 5,
          pax: [['SCHILY.xattr.user.x', 'y']],
        }),
      ],
    ],
    tree: ['a file x', 'h file x =a'],
    inspect: (t, { place }) => {
      const { mode, uid, mtimeMs } = lstatSync(join(place.rootfs, 'a'))
      t.strictSame([mode & 0o7777, uid, mtimeMs], [0o600, process.getuid?.(), 3000])
    },
  },
  {
    id: 'L13',
    what: 'a hard link to a fifo',
    layers: [[fifo('a'), hard('h', 'a')]],
    tree: ['a fifo', 'h fifo =a'],
  },
  {
    id: 'L13',
    what: 'a hard link to a device',
    skip: needsRoot,
    layers: [[device('a'), hard('h', 'a')]],
    tree: ['a char 1,3', 'h char 1,3 =a'],
  },
  {
    id: 'L14',
    what: 'a hard link whose place then is behind a symlink to the outside',
    layers: [[file('a', 'x'), hard('door/h', 'a'), link('door', '../../canary')]],
    tree: ['a file x', 'door link -> ../../canary'],
  },
  {
    id: 'L14',
    what: 'a hard link whose target then is behind a symlink to the outside',
    layers: [
      [
        file('door/file', 'x'),
        hard('h', 'door/file'),
        link('door', '../../canary'),
        hard('i', 'h'),
      ],
    ],
    tree: ['door link -> ../../canary', 'h file x', 'i file x =h'],
  },
  {
    id: 'L14',
    what: 'a hard link to a path whose parent was replaced',
    layers: [[file('door/file', 'x'), link('door', '../../canary'), hard('h', 'door/file')]],
    rejects: 'INVALID_ENTRY',
    kept: ['door link -> ../../canary'],
  },
  {
    id: 'L17',
    what: 'a symlink to nothing at all',
    layers: [[link('s', '')]],
    rejects: 'INVALID_ENTRY',
    says: 'the target is empty',
  },
  {
    id: 'L17',
    what: 'a symlink with a NUL in its target',
    layers: [[link('s', 'x', { pax: [['linkpath', 'a\0b']] })]],
    rejects: 'BAD_ARCHIVE',
  },
  {
    id: 'L17',
    what: 'targets of symlinks are verbatim',
    cli: true,
    layers: [
      [
        link('a', '../../../../etc/passwd'),
        link('b', '/etc/shadow'),
        link('c', 'x'.repeat(4095)),
        link('d', Buffer.from([0xff, 0x0a])),
        link('e', './/x/../..//'),
        link('f', ' '),
      ],
    ],
    tree: [
      'a link -> ../../../../etc/passwd',
      'b link -> /etc/shadow',
      `c link -> ${'x'.repeat(4095)}`,
      String.raw`d link -> \xff\n`,
      'e link -> .//x/../..//',
      'f link ->  ',
    ],
  },
  {
    id: 'L17',
    what: 'a symlink’s target of 4096 bytes',
    layers: [[link('s', 'x'.repeat(4096))]],
    rejects: 'IO',
    cause: 'ENAMETOOLONG',
    says: 's: ',
  },
  {
    id: 'L17',
    what: 'targets of symlinks that fill the memory: a layer of a hundred kilobytes has gigabytes of them',
    chains: [merged],
    direct: false,
    split: false,
    layers: [Array.from({ length: 5000 }, (_, at) => link(`s${at}`, 'x'.repeat(4095)))],
    rejects: 'LIMIT_EXCEEDED',
    says: 'size of the link targets and extended attributes',
    aboutLayer: false,
  },
  {
    id: 'L18',
    what: 'a symlink, then a file of its name',
    layers: [[link('s', '../../canary/file'), file('s', 'new')]],
    tree: ['s file new'],
  },
  {
    id: 'L18',
    what: 'an absolute symlink, then a file of its name',
    layers: ({ canary }) => [[link('s', `${canary}/file`), file('s', 'new', { mode: 0o777 })]],
    tree: ['s file new'],
  },
  {
    id: 'L19',
    what: 'a symlink to the outside, then a directory of its name',
    cli: true,
    layers: [
      [
        link('s', '../../canary'),
        dir('s', { mode: 0o777 }),
        dir('s/.', { mode: 0o777 }),
        file('s/file', 'mine'),
      ],
    ],
    tree: ['s dir', 's/file file mine'],
  },
  {
    id: 'L19',
    what: 'a symlink to the outside, then the directory behind it',
    layers: [[link('s', '../../canary'), dir('s/.', { mode: 0o777 }), file('s/file', 'mine')]],
    tree: ['s dir', 's/file file mine'],
  },
  {
    id: 'L19',
    what: 'a symlink to a directory, then a directory of its name',
    layers: [[dir('d'), link('s', 'd'), dir('s'), file('s/x')]],
    tree: ['d dir', 's dir', 's/x file'],
  },
  {
    id: 'L19',
    what: 'with keepDirlinks a symlink to a directory is kept',
    options: { keepDirlinks: true },
    layers: [[dir('d'), link('s', 'd'), dir('s'), file('s/x')]],
    tree: ['d dir', 'd/x file', 's link -> d'],
  },
  {
    id: 'L19',
    what: 'with keepDirlinks a symlink to the outside is none to a directory',
    options: { keepDirlinks: true },
    layers: ({ canary }) => [
      [link('s', canary), link('r', '../../canary'), dir('s', { mode: 0o777 }), dir('r')],
    ],
    tree: ['r dir', 's dir'],
  },
  {
    id: 'L19',
    what: 'with keepDirlinks a dangling symlink, or one to itself, is not kept',
    options: { keepDirlinks: true },
    layers: [[link('s', 'd'), link('l', 'l'), dir('s'), dir('l')]],
    tree: ['l dir', 's dir'],
  },
  {
    id: 'L20',
    what: 'a directory that is not empty, then a symlink of its name',
    layers: [[file('d/sub/x'), file('d/file'), link('d', '../../canary'), file('e')]],
    tree: ['d link -> ../../canary', 'e file'],
  },
  {
    id: 'L21',
    what: 'a tower of symlinks beyond PATH_MAX that leads to the outside',
    split: false,
    layers: [tower(), [file('escape/file', 'mine'), dir('escape/sub', { mode: 0o777 })]],
    inspect: (t, { place }) =>
      void t.equal(readFileSync(join(place.rootfs, 'canary/file'), 'utf8'), 'mine'),
  },
  {
    id: 'L21',
    what: 'a hard link through it',
    split: false,
    layers: [tower(), [hard('h', 'escape/file')]],
    rejects: 'INVALID_ENTRY',
  },
  {
    id: 'L22',
    what: 'going up by links of links',
    layers: [
      [
        dir('inner'),
        link('inner/up', '..'),
        link('inner/up/escape', '../../canary'),
        file('inner/up/escape/file', 'mine'),
      ],
    ],
    tree: [
      'canary dir',
      'canary/file file mine',
      'escape link -> ../../canary',
      'inner dir',
      'inner/up link -> ..',
    ],
  },
  {
    id: 'L22',
    what: 'going up by links of links, and a hard link',
    layers: [
      [
        dir('inner'),
        link('inner/up', '..'),
        link('inner/up/escape', '../../canary'),
        hard('h', 'inner/up/escape/file'),
      ],
    ],
    rejects: 'INVALID_ENTRY',
  },
]

for (const each of cases) await hostile(t, each)

await t.test(
  'L15 where links to the files of others are forbidden, one is refused, and says so',
  { skip: withoutProtection() },
  t => {
    const { base } = makePlace()
    try {
      chmodSync(base, 0o777)
      const sandbox = makeSandbox(base)
      sandbox.apply([[file('d/a', 'x', { mode: 0o600 })]])
      for (const name of ['', 'd']) chownSync(join(sandbox.rootfs, name), ordinary, ordinary)
      process.seteuid?.(ordinary)
      try {
        t.throws(() => sandbox.apply([[hard('h', 'd/a')]], { rootless: true }), {
          code: 'ERR_KOCI_IO',
          message: /^h: /,
          cause: { code: 'EPERM' },
        })
      } finally {
        process.seteuid?.(0)
      }
      t.strictSame(shapeOf(sandbox.rootfs), ['d dir', 'd/a file x'])
    } finally {
      rmSync(base, { recursive: true })
    }
    t.end()
  },
)

await t.test(
  'L16 more names than the file system lets a file have',
  { skip: withoutFewLinks() },
  t => {
    const base = mkdtempSync(join(tmpdir(), 'koci-hostile-'))
    try {
      const sandbox = makeSandbox(base)
      const names = Array.from({ length: 65_001 }, (_, at) => hard(`d/${at}`, 'a'))
      t.throws(() => sandbox.apply([[file('a'), ...names]], { rootless: !isRoot }), {
        code: 'ERR_KOCI_IO',
        message: /^d\/6\d{4}: /,
        cause: { code: 'EMLINK' },
      })
      t.notOk(sandbox.escaped())
    } finally {
      rmSync(base, { recursive: true })
    }
    t.end()
  },
)

function withoutProtection(): string | false {
  if (!isRoot) return 'needs root: files of two users'
  const setting = '/proc/sys/fs/protected_hardlinks'
  const isOn = existsSync(setting) && readFileSync(setting, 'latin1').startsWith('1')
  return isOn ? false : 'needs fs.protected_hardlinks=1'
}

function withoutFewLinks(): string | false {
  const ext4 = 0xef53
  return statfsSync(tmpdir()).type === ext4
    ? false
    : 'needs ext4, where a file has 65,000 names'
}
