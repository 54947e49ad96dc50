// N: names, and the parents that they name.
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { describeTree } from '../support/tree.ts'
import { hostile, isRoot, type HostileCase } from '../support/hostile.ts'
import { device, dir, fifo, file, hard, link } from '../support/members.ts'
import type { TarMember } from '../support/tar-builder.ts'

t.setTimeout(900_000)

const needsRoot = !isRoot && 'needs root: mknod'
const up = '../'.repeat(12)

/** `count` symlinks, each to the next, the last to a directory. */
const chainOf = (count: number): TarMember[] => [
  dir('end'),
  ...Array.from({ length: count }, (_, at) =>
    link(`l${at}`, at + 1 < count ? `l${at + 1}` : 'end'),
  ),
]

const climbing = ['../../x', 'a/../../x', '..', '../rootfs-evil/file', '/..//x', './../x']

const cases: HostileCase[] = [
  ...climbing.map(name => ({
    id: 'N01',
    what: `${name} climbs above the root`,
    ...(name.startsWith('.') ? {} : { chains: [] }),
    cli: name === '../../x',
    layers: [[file(name, 'pwned')]],
    rejects: 'PATH_ESCAPE',
    says: `${name}: `,
  })),
  ...[dir, fifo, (name: string) => link(name, 'x'), (name: string) => hard(name, 'x')].map(
    make => ({
      id: 'N01',
      what: `a ${make('').type} that climbs`,
      layers: [[file('x'), make('../../x')]],
      rejects: 'PATH_ESCAPE',
      kept: ['x file'],
    }),
  ),
  {
    id: 'N01',
    what: 'with --compat=clamp what climbs stops at the root',
    options: { compat: 'clamp' },
    layers: [
      [
        file('../../x', 'one'),
        file('a/../../y', 'two'),
        hard('../h', '../../../x'),
        dir('../../canary'),
        file('/../../canary/file', 'three'),
        dir('..', { mode: 0o755 }),
      ],
    ],
    tree: ['canary dir', 'canary/file file three', 'h file one', 'x file one =h', 'y file two'],
  },
  {
    id: 'N01',
    what: 'with --compat=clamp the root is still only a directory',
    options: { compat: 'clamp' },
    layers: [[link('../..', 'x')]],
    rejects: 'INVALID_ENTRY',
  },
  {
    id: 'N02',
    what: 'absolute names are relative to the root',
    layers: [[file('/abs/x'), file('//y'), file('/./z'), file('//////tmp/pwn'), dir('/d/')]],
    tree: ['abs dir', 'abs/x file', 'd dir', 'tmp dir', 'tmp/pwn file', 'y file', 'z file'],
  },
  {
    id: 'N02',
    what: 'the absolute name of something outside',
    layers: ({ canary }) => [[file(`${canary}/file`, 'mine')]],
    tree: ['@base/canary dir', '@base/canary/file file mine'],
  },
  ...['.', './', '/', '', 'a/..', '/.'].map(name => ({
    id: 'N03',
    what: `the root as ${JSON.stringify(name)}`,
    layers: [
      [
        dir(name, {
          mode: 0o711,
          uid: 7,
          gid: 8,
          mtime: 1_234_567_890,
          ...(isRoot ? { pax: [['SCHILY.xattr.user.of', 'the root'] as const] } : {}),
        }),
      ],
    ],
    onDisk: true,
    inspect: (t: Test, { place }: { place: { rootfs: string } }) => {
      const [root] = describeTree(place.rootfs)
      const xattr = ` user.of=${Buffer.from('the root').toString('hex')}`
      if (isRoot) t.equal(root, `. dir 711 7:8 @1234567890000000000${xattr}`)
      else t.match(root, /^\. dir 711 .* @1234567890000000000/)
    },
  })),
  ...['.', '/', '', './', 'a/..', '/.'].flatMap(name =>
    [file(name, 'x'), link(name, up), hard(name, 'a'), fifo(name), device(name)].map(
      member => ({
        id: 'N04',
        what: `the root ${JSON.stringify(name)} as a ${member.type ?? 'file'}`,
        layers: [[file('a'), member]],
        // one of each is enough for the whole unpack
        ...(name === '.' || member.type === 'symlink' ? {} : { chains: [] }),
        rejects: 'INVALID_ENTRY',
        says: `the root can only be a directory, not a ${member.type ?? 'file'}`,
        kept: ['a file'],
      }),
    ),
  ),
  {
    id: 'N05',
    what: 'a component of 255 bytes',
    layers: [[file('n'.repeat(255))]],
    tree: [`${'n'.repeat(255)} file`],
  },
  {
    id: 'N05',
    what: 'a component of 256 bytes',
    layers: [[file('n'.repeat(256))]],
    rejects: 'IO',
    cause: 'ENAMETOOLONG',
    says: `${'n'.repeat(256)}: `,
  },
  {
    id: 'N05',
    what: 'a path of 20,000 bytes',
    layers: [[dir('a'), file(`a/${`${'p'.repeat(199)}/`.repeat(100)}x`, 'deep')]],
  },
  {
    id: 'N05',
    what: 'a path of 4096 components',
    layers: [[dir('a'), file(`${'a/'.repeat(4095)}x`, 'deep')]],
  },
  ...[10_000, 100_000].map(depth => ({
    id: 'N05',
    what: `a path of ${depth} components`,
    layers: [[file('x'), file(`${'a/'.repeat(depth - 1)}x`, 'deep')]],
    rejects: 'LIMIT_EXCEEDED',
    says: `number of components of a path`,
    kept: ['x file'],
  })),
  {
    id: 'N05',
    what: 'short paths that links make deep, each in what the one before leads to',
    layers: [
      [
        ...Array.from({ length: 6 }, (_, at) => link(`${'l/'.repeat(at)}l`, 'd/'.repeat(1000))),
        file(`${'l/'.repeat(6)}x`, 'deep'),
      ],
    ],
    split: false,
    rejects: 'LIMIT_EXCEEDED',
    says: 'depth of a directory',
  },
  {
    id: 'N06',
    what: 'control characters, quotes, escapes and marks',
    cli: true,
    layers: [
      [
        file('a\nb\t\\"*\x1b[31m'),
        file("'"),
        file('\u202egpj.exe'),
        file('\ufeffbom'),
        file('\x07'),
      ],
    ],
    tree: [
      String.raw`\x07 file`,
      "' file",
      String.raw`a\nb\t\"*\x1b[31m file`,
      String.raw`\u202egpj.exe file`,
      String.raw`\ufeffbom file`,
    ],
  },
  {
    id: 'N06',
    what: 'they do not reach a terminal by an error',
    cli: true,
    layers: [[hard('a\n\x1b]0;pwned\x07\u202e', 'x')]],
    rejects: 'INVALID_ENTRY',
    says: String.raw`a\n\x1b]0;pwned\x07\u202e: `,
  },
  {
    id: 'N06',
    what: 'nor by a warning',
    cli: true,
    layers: [[file('\x1b[2J/.wh..wh.\x07')]],
    tree: [],
    warns: ['IGNORED_WHITEOUT'],
    inspect: (t, { warnings }) =>
      void t.match(warnings[0]?.message, String.raw`\x1b[2J/.wh..wh.\x07: `),
  },
  {
    id: 'N07',
    what: 'invalid UTF-8, and names that normalise or fold to the same',
    layers: [
      [
        file(Buffer.from([0xff]), '1'),
        file(Buffer.from([0xc0, 0xaf]), '2'),
        file(Buffer.from([0xed, 0xa0, 0x80]), '3'),
        file('é', '4'),
        file('e\u0301', '5'),
        file('ß', '6'),
        file('ss', '7'),
        file('SS', '8'),
        file('İ', '9'),
      ],
    ],
    tree: [
      'SS file 8',
      'e\u0301 file 5',
      'ss file 7',
      String.raw`\xc0\xaf file 2`,
      'ß file 6',
      'é file 4',
      'İ file 9',
      String.raw`\xed\xa0\x80 file 3`,
      String.raw`\xff file 1`,
    ],
  },
  {
    id: 'N08',
    what: 'a parent that is a symlink, relative, absolute, or a chain',
    layers: [
      [
        dir('real'),
        link('rel', 'real'),
        link('abs', '/real'),
        link('chain', 'abs'),
        file('rel/a'),
        file('abs/b'),
        file('chain/c'),
      ],
    ],
    tree: [
      'abs link -> /real',
      'chain link -> abs',
      'real dir',
      'real/a file',
      'real/b file',
      'real/c file',
      'rel link -> real',
    ],
  },
  {
    id: 'N09',
    what: 'a parent that is a symlink to the outside',
    cli: true,
    layers: [[dir('canary'), link('out', '../../canary'), file('out/file', 'mine')]],
    tree: ['canary dir', 'canary/file file mine', 'out link -> ../../canary'],
  },
  {
    id: 'N09',
    what: 'a parent that is a symlink to a sibling whose name begins like the rootfs',
    layers: [[link('out', '../rootfs-evil'), file('out/file', 'mine')]],
    tree: ['out link -> ../rootfs-evil', 'rootfs-evil dir', 'rootfs-evil/file file mine'],
  },
  ...[(canary: string) => canary, (canary: string) => up + canary.slice(1)].map(targetOf => ({
    id: 'N09',
    what: `a parent that is ${targetOf('/x')[0] === '/' ? 'an absolute symlink' : 'a symlink up to /, and down'} to the outside`,
    layers: ({ canary }: { canary: string }) => [
      [
        link('out', targetOf(canary)),
        file('out/file', 'mine'),
        dir('out/sub', { mode: 0o777 }),
      ],
    ],
    tree: [
      '@base/canary dir',
      '@base/canary/file file mine',
      '@base/canary/sub dir',
      `out link -> ${targetOf('/@base/canary')}`,
    ],
  })),
  ...['symlink', 'hardlink', 'fifo', 'directory'].map(type => ({
    id: 'N09',
    what: `a ${type} through a symlink to the outside`,
    layers: [
      [
        file('f'),
        link('out', '../../canary'),
        { name: 'out/new', type, linkname: 'f' } as TarMember,
      ],
    ],
    tree: [
      'canary dir',
      {
        symlink: 'canary/new link -> f',
        hardlink: 'canary/new file',
        fifo: 'canary/new fifo',
        directory: 'canary/new dir',
      }[type] ?? '',
      type === 'hardlink' ? 'f file =canary/new' : 'f file',
      'out link -> ../../canary',
    ],
  })),
  {
    id: 'N10',
    what: 'a parent that is a symlink of an earlier layer',
    layers: [
      [link('out', '../../canary')],
      [file('a')],
      [file('out/file', 'mine'), file('out/sub/file', 'mine')],
    ],
    tree: [
      'a file',
      'canary dir',
      'canary/file file mine',
      'canary/sub dir',
      'canary/sub/file file mine',
      'out link -> ../../canary',
    ],
  },
  {
    id: 'N11',
    what: 'a loop of symlinks for a parent',
    layers: [[link('a', 'b'), link('b', 'a'), file('a/x')]],
    rejects: 'IO',
    cause: 'ELOOP',
    says: 'a/x: ',
    kept: ['a link -> b', 'b link -> a'],
  },
  {
    id: 'N11',
    what: 'a symlink to itself for a parent',
    layers: [[link('a', 'a'), file('a/x')]],
    rejects: 'IO',
    cause: 'ELOOP',
    kept: ['a link -> a'],
  },
  ...[41, 255].map(count => ({
    id: 'N11',
    what: `a chain of ${count} symlinks for a parent`,
    split: false,
    layers: [chainOf(count), [file('l0/x', 'end')]],
    inspect: (t: Test, { place }: { place: { rootfs: string } }) =>
      void t.equal(statSync(join(place.rootfs, 'end/x')).size, 3),
  })),
  {
    id: 'N11',
    what: 'a chain of 256 symlinks for a parent',
    layers: [chainOf(256), [file('l0/x', 'end')]],
    rejects: 'IO',
    cause: 'ELOOP',
  },
  {
    id: 'N12',
    what: 'a dangling symlink for a parent',
    layers: [[link('a', 'nope/deep'), file('a/x')]],
    tree: ['a link -> nope/deep', 'nope dir', 'nope/deep dir', 'nope/deep/x file'],
  },
  {
    id: 'N13',
    what: 'a file for a parent',
    layers: [[file('a', 'old'), file('a/x')]],
    tree: ['a dir', 'a/x file'],
  },
  {
    id: 'N13',
    what: 'a fifo for a parent',
    layers: [[fifo('a'), file('a/x')]],
    tree: ['a dir', 'a/x file'],
  },
  {
    id: 'N13',
    what: 'a device for a parent',
    skip: needsRoot,
    layers: [[device('a'), file('a/x')]],
    tree: ['a dir', 'a/x file'],
  },
  {
    id: 'N13',
    what: 'a symlink to a file for a parent',
    layers: [[file('f', 'old'), link('a', 'f'), file('a/x')]],
    tree: ['a link -> f', 'f dir', 'f/x file'],
  },
  {
    id: 'N14',
    what: 'parents that are missing are 0755, of root, and of 1970',
    layers: [[file('a/b/c')]],
    tree: ['a dir', 'a/b dir', 'a/b/c file'],
    inspect: (t, { place }) => {
      for (const name of ['a', 'a/b']) {
        const { mode, uid, gid, mtimeMs } = statSync(join(place.rootfs, name))
        t.strictSame(
          [mode & 0o7777, uid, gid, mtimeMs],
          [0o755, process.getuid?.(), process.getgid?.(), 0],
        )
      }
    },
  },
  {
    id: 'N14',
    what: 'an entry that comes later sets them right',
    layers: [[file('a/b/c'), dir('a', { mode: 0o700, mtime: 5 })]],
    tree: ['a dir', 'a/b dir', 'a/b/c file'],
    inspect: (t, { place }) => {
      const { mode, mtimeMs } = statSync(join(place.rootfs, 'a'))
      t.strictSame([mode & 0o7777, mtimeMs], [0o700, 5000])
    },
  },
  {
    id: 'N15',
    what: 'names that begin like earlier ones',
    layers: [[link('a', '../../canary'), file('aa'), file('aaa/b'), file('aaa.c'), file('ab')]],
    tree: [
      'a link -> ../../canary',
      'aa file',
      'aaa dir',
      'aaa/b file',
      'aaa.c file',
      'ab file',
    ],
  },
  {
    id: 'N16',
    what: 'a directory with a whiteout’s name is taken literally',
    layers: [[file('.wh.a/x')]],
    tree: ['.wh.a dir', '.wh.a/x file'],
    warns: ['WHITEOUT_DIRECTORY'],
  },
  {
    id: 'N17',
    what: 'the names of koci’s own files mean nothing in a rootfs',
    layers: [
      [
        file('koci.json', '{'),
        file('umoci.json', '{'),
        file('config.json', '{'),
        file('.koci-source-0', 'x'),
        file('rootfs/x'),
        file('lock'),
        file('index.json', '{'),
      ],
    ],
    tree: [
      '.koci-source-0 file x',
      'config.json file {',
      'index.json file {',
      'koci.json file {',
      'lock file',
      'rootfs dir',
      'rootfs/x file',
      'umoci.json file {',
    ],
    inspect: (t, { place }) => {
      if (readdirSync(place.bundle).includes('config.json'))
        t.ok(statSync(join(place.bundle, 'config.json')).size > 100, 'the bundle has its own')
    },
  },
  {
    id: 'N18',
    what: 'names of magic links',
    layers: [
      [file('proc/self/root/x'), file('dev/fd/9'), file('proc/self/fd/7'), file('sys/x')],
    ],
    tree: [
      'dev dir',
      'dev/fd dir',
      'dev/fd/9 file',
      'proc dir',
      'proc/self dir',
      'proc/self/fd dir',
      'proc/self/fd/7 file',
      'proc/self/root dir',
      'proc/self/root/x file',
      'sys dir',
      'sys/x file',
    ],
  },
  {
    id: 'N18',
    what: 'symlinks to magic links',
    layers: [
      [link('l', '/proc/self/root'), link('m', '/proc/self/cwd'), file('l/x'), file('m/y')],
    ],
    tree: [
      'l link -> /proc/self/root',
      'm link -> /proc/self/cwd',
      'proc dir',
      'proc/self dir',
      'proc/self/cwd dir',
      'proc/self/cwd/y file',
      'proc/self/root dir',
      'proc/self/root/x file',
    ],
  },
  {
    id: 'N19',
    what: 'NUL in a name',
    layers: [[file('a', '', { pax: [['path', 'vis\0hidden']] })]],
    split: false,
    rejects: 'BAD_ARCHIVE',
  },
  {
    id: 'N20',
    what: 'dots and slashes',
    layers: [
      [file('./././a'), file('b//c'), file('d/../e'), file('f/', 'x'), file('g///', 'y')],
    ],
    tree: ['a file', 'b dir', 'b/c file', 'e file', 'f file x', 'g file y'],
  },
]

for (const each of cases) await hostile(t, each)
