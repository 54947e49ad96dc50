// S: the order of members, members that come twice, layers that come twice.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { described } from '../support/described.ts'
import { hostile, isRoot, shapeOf, type HostileCase } from '../support/hostile.ts'
import type { History } from '../../lib/oci/image-config.ts'
import { makeImage } from '../support/image.ts'
import { dir, fifo, file, hard, link } from '../support/members.ts'
import type { TarMember } from '../support/tar-builder.ts'

// far more than it takes, but tests run beside each other
t.setTimeout(900_000)

const kinds: Readonly<Record<string, readonly TarMember[]>> = {
  'file x': [file('a', 'x')],
  dir: [dir('a')],
  'dir with a file': [dir('a'), file('a/b', 'x')],
  'link -> z': [link('a', 'z')],
  'link -> ../../canary': [link('a', '../../canary')],
  fifo: [fifo('a')],
}

const cases: HostileCase[] = [
  {
    id: 'S01',
    what: 'of several files of a name the last counts',
    layers: [[file('a', 'one', { mode: 0o777 }), file('a', 'two', { mode: 0o600 })]],
    tree: ['a file two'],
    inspect: described(['a file 600 0:0 @0']),
  },
  ...Object.entries(kinds).flatMap(([first, before]) =>
    Object.entries(kinds).map(([second, after]): HostileCase => ({
      id: second.startsWith('file') && first.startsWith('dir') ? 'S05' : 'S01',
      what: `${first}, then ${second}`,
      layers: [[...before, ...after]],
      // the applier's; some go through everything
      ...(first === 'link -> ../../canary' || first === 'dir with a file'
        ? {}
        : { chains: [] }),
      tree:
        second === 'dir with a file' || (second === 'dir' && first === 'dir with a file')
          ? ['a dir', 'a/b file x']
          : [`a ${second}`],
    })),
  ),
  {
    id: 'S02',
    what: 'metadata of a directory, whether its children come before or after it',
    layers: [
      [
        dir('before', { mode: 0o711, mtime: 5 }),
        file('before/x'),
        file('after/x'),
        dir('after', { mode: 0o711, mtime: 5 }),
        dir('twice', { mode: 0o700, mtime: 1 }),
        file('twice/x'),
        dir('twice', { mode: 0o711, mtime: 5 }),
      ],
    ],
    inspect: described([
      'after dir 711 0:0 @5000000000',
      'after/x file 644 0:0 @0',
      'before dir 711 0:0 @5000000000',
      'before/x file 644 0:0 @0',
      'twice dir 711 0:0 @5000000000',
      'twice/x file 644 0:0 @0',
    ]),
  },
  {
    id: 'S03',
    what: 'directories that bar their owner before their children',
    layers: [
      [
        dir('d', { mode: 0 }),
        dir('d/e', { mode: 0o555 }),
        file('d/e/x', 'x'),
        file('d/y', 'y'),
      ],
    ],
    tree: ['d dir', 'd/e dir', 'd/e/x file x', 'd/y file y'],
  },
  {
    id: 'S04',
    what: 'a parent becomes a symlink between its children (CVE-2025-47290)',
    cli: true,
    layers: [[file('d/a'), link('d', '../../canary'), file('d/b')]],
    tree: ['canary dir', 'canary/b file', 'd link -> ../../canary'],
  },
  {
    id: 'S04',
    what: 'an absolute one',
    layers: ({ canary }) => [[file('z/a'), link('z', canary), file('z/b')]],
    tree: ['@base/canary dir', '@base/canary/b file', 'z link -> /@base/canary'],
  },
  {
    id: 'S04',
    what: 'a grandparent becomes a symlink between',
    layers: [[file('d/sub/a'), link('d', '../../canary'), file('d/sub/file')]],
    tree: ['canary dir', 'canary/sub dir', 'canary/sub/file file', 'd link -> ../../canary'],
  },
  {
    id: 'S04',
    what: 'a symlinked parent is pointed elsewhere',
    layers: [
      [
        dir('one'),
        dir('two'),
        link('l', 'one'),
        file('l/a'),
        link('l', 'two'),
        file('l/b'),
        link('l', '../../canary'),
        file('l/c'),
      ],
    ],
    tree: [
      'canary dir',
      'canary/c file',
      'l link -> ../../canary',
      'one dir',
      'one/a file',
      'two dir',
      'two/b file',
    ],
  },
  {
    id: 'S04',
    what: 'what a symlinked parent leads to is replaced',
    layers: [[link('l', 'd/e'), file('l/a'), file('d'), file('l/b')]],
    tree: ['d dir', 'd/e dir', 'd/e/b file', 'l link -> d/e'],
  },
  {
    id: 'S04',
    what: 'a hard link and a whiteout through a parent that became a symlink',
    layers: [[file('d/file', 'x'), link('d', '../../canary'), hard('h', 'd/file')]],
    rejects: 'INVALID_ENTRY',
    says: 'h: ',
  },
  {
    id: 'S05',
    what: 'a directory full of things, then a file',
    layers: [[file('d/sub/x'), link('d/l', '../../../canary'), fifo('d/p'), file('d', 'new')]],
    tree: ['d file new'],
  },
  {
    id: 'S06',
    what: 'a file, then a directory of its name with things in it',
    layers: [[file('d', 'old'), dir('d'), file('d/x')]],
    tree: ['d dir', 'd/x file'],
  },
  {
    id: 'S06',
    what: 'a file with two names, one of which becomes a directory',
    layers: [[file('d', 'old'), hard('h', 'd'), dir('d'), file('d/x')]],
    tree: ['d dir', 'd/x file', 'h file old'],
  },
  {
    id: 'S07',
    what: 'everything in reverse',
    layers: [
      [
        file('d/e/x', 'x'),
        dir('d/e', { mode: 0o700, mtime: 2 }),
        dir('d', { mode: 0o701, mtime: 1 }),
        dir('.', { mode: 0o711, mtime: 3 }),
      ],
    ],
    tree: ['d dir', 'd/e dir', 'd/e/x file x'],
    inspect: described([
      'd dir 701 0:0 @1000000000',
      'd/e dir 700 0:0 @2000000000',
      'd/e/x file 644 0:0 @0',
    ]),
  },
  {
    id: 'S09',
    what: 'a layer that is there twice is applied twice',
    layers: [
      [file('a', 'lower'), file('d/b')],
      [file('.wh.a'), file('c')],
      [file('a', 'lower'), file('d/b')],
      [file('.wh.a'), file('c')],
    ],
    tree: ['c file', 'd dir', 'd/b file'],
  },
  {
    id: 'S10',
    what: 'layers with nothing in them between others',
    layers: [[], [file('a', 'x')], [], Buffer.alloc(0), [file('b', 'y')], []],
    tree: ['a file x', 'b file y'],
  },
  ...(
    [
      ['entries that claim no layer', [{ empty_layer: true }, {}, { empty_layer: true }]],
      ['more layers than there are', [{}, {}, {}]],
      ['fewer layers than there are', [{ empty_layer: true }]],
    ] as Array<[string, History[]]>
  ).map(([what, history]): HostileCase => ({
    id: 'S10',
    what: `a history with ${what} says nothing about the layers`,
    layers: [[file('a', 'x')]],
    split: false,
    image: {
      change: draft => ({
        ...draft,
        config: { ...draft.config, history },
      }),
    },
    tree: ['a file x'],
  })),
]
for (const each of cases) await hostile(t, each)

await t.test(
  'S08 names that differ in case only, where the file system sees no difference',
  { skip: withoutFolding() },
  async t => {
    const base = t.testdir()
    const disk = path.join(base, 'disk')
    const mounted = path.join(base, 'mounted')
    mkdirSync(mounted)
    execFileSync('truncate', ['-s', '16M', disk])
    execFileSync('mkfs.ext4', ['-q', '-O', 'casefold', '-E', 'encoding=utf8', disk])
    execFileSync('mount', ['-o', 'loop', disk, mounted], { timeout: 20_000 })
    try {
      const folded = path.join(mounted, 'folded')
      mkdirSync(folded)
      execFileSync('chattr', ['+F', folded], { timeout: 20_000 })
      const image = await makeImage(path.join(base, 'images'), 'test', {
        layers: [
          [
            file('Name', 'one'),
            file('name', 'two'),
            dir('D'),
            file('d/x', 'x'),
            link('S', 'D'),
          ],
          [file('s/y', 'y'), file('NAME', 'three'), file('.wh.D')],
        ],
      })
      const bundle = path.join(folded, 'bundle')
      const { rootfs } = await new Koci().unpack({ image, bundle })
      t.equal(readFileSync(path.join(rootfs, 'name'), 'utf8'), 'three')
      t.notOk(
        shapeOf(rootfs).some(line => line.includes('lost')),
        'it is a tree',
      )
      t.strictSame(readdirSync(folded), ['bundle'])
    } finally {
      execFileSync('umount', [mounted], { timeout: 20_000 })
    }
  },
)

function withoutFolding(): string | false {
  if (!isRoot) return 'needs root: mount'
  const folds = existsSync('/sys/fs/ext4/features/casefold')
  return folds ? false : 'needs a kernel whose ext4 folds case'
}
