// W: whiteouts. Each is tried on what a lower layer left, and the canaries lie where a whiteout could climb to.
// That their order makes no difference, and how long many of them take, is in test/lib/layer/whiteouts.test.ts.
import { renameSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { described } from '../support/described.ts'
import { hostile, merged, type HostileCase } from '../support/hostile.ts'
import { device, dir, file, hard, link } from '../support/members.ts'
import { xattrRecord, type TarMember } from '../support/tar-builder.ts'

// far more than it takes, but tests run beside each other
t.setTimeout(900_000)

const lower = [
  file('f', 'f'),
  dir('d'),
  file('d/x', 'x'),
  dir('d/sub'),
  file('d/sub/y', 'y'),
  link('l', 'd'),
  link('out', '../../canary'),
  dir('empty'),
]
const shapes: Readonly<Record<string, string>> = {
  d: 'dir',
  'd/new': 'file',
  'd/sub': 'dir',
  'd/sub/new': 'file',
  'd/sub/y': 'file y',
  'd/x': 'file x',
  empty: 'dir',
  f: 'file f',
  l: 'link -> d',
  out: 'link -> ../../canary',
}
const all = ['d', 'd/sub', 'd/sub/y', 'd/x', 'empty', 'f', 'l', 'out']
const without = (...names: string[]): string[] => all.filter(name => !names.includes(name))
/** Lines of a tree; names that aren't in it say what they are themselves. */
const lines = (names: readonly string[]): string[] =>
  names.map(name => (name in shapes ? `${name} ${shapes[name]}` : name)).sort()

type Row = readonly [
  id: string,
  what: string,
  upper: readonly TarMember[],
  left: readonly string[],
  warns?: readonly string[],
]
const rows: Row[] = [
  ['W01', 'a file', [file('.wh.f')], without('f')],
  [
    'W01',
    'a directory and all in it',
    [file('.wh.d')],
    without('d', 'd/sub', 'd/sub/y', 'd/x'),
  ],
  ['W01', 'an empty directory', [file('.wh.empty')], without('empty')],
  ['W01', 'a symlink, not its target', [file('.wh.l'), file('.wh.out')], without('l', 'out')],
  [
    'W02',
    'nothing is there',
    [file('.wh.none'), file('none/.wh.x'), file('f/.wh.x'), file('f/x/.wh.x')],
    all,
  ],
  ['W03', 'a name that the layer makes afterwards', [file('.wh.f'), file('f', 'f')], all],
  ['W03', 'a name that the layer made before', [file('f', 'f'), file('.wh.f')], all],
  [
    'W03',
    'a name that the layer made anew as a hard link',
    [hard('f', 'd/x'), file('.wh.f')],
    [...without('f'), 'f file x =d/x'],
  ],
  [
    'W03',
    'a symlink that the layer made',
    [link('f', 'd'), file('.wh.f')],
    [...without('f'), 'f link -> d'],
  ],
  [
    'W03',
    'a directory that the layer made over a file',
    [dir('f'), file('.wh.f'), file('f/new')],
    [...without('f'), 'f dir', 'f/new file'],
  ],
  ['W04', 'opaque, alone', [file('d/.wh..wh..opq')], without('d/x', 'd/sub', 'd/sub/y')],
  [
    'W04',
    'opaque, before its siblings',
    [file('d/.wh..wh..opq'), file('d/new')],
    ['d', 'd/new', 'empty', 'f', 'l', 'out'],
  ],
  [
    'W04',
    'opaque, after its siblings',
    [file('d/new'), file('d/.wh..wh..opq')],
    ['d', 'd/new', 'empty', 'f', 'l', 'out'],
  ],
  [
    'W04',
    'opaque, twice',
    [file('d/.wh..wh..opq'), file('d/new'), file('d/.wh..wh..opq')],
    ['d', 'd/new', 'empty', 'f', 'l', 'out'],
  ],
  [
    'W04',
    'opaque at the root',
    [file('new'), file('.wh..wh..opq'), file('later')],
    ['later file', 'new file'],
  ],
  [
    'W04',
    'opaque in what is not there',
    [file('none/.wh..wh..opq'), file('none/deep/.wh..wh..opq')],
    all,
  ],
  ['W04', 'opaque in a file hides the file', [file('f/.wh..wh..opq')], without('f')],
  [
    'W04',
    'opaque in a file that then is a directory',
    [file('f/.wh..wh..opq'), file('f/new')],
    [...without('f'), 'f dir', 'f/new file'],
  ],
  ['W04', 'opaque in a file of this layer', [file('f', 'f'), file('f/.wh..wh..opq')], all],
  [
    'W04',
    'opaque through a symlink to a directory',
    [file('l/.wh..wh..opq')],
    without('d/x', 'd/sub', 'd/sub/y'),
  ],
  [
    'W07',
    'bookkeeping of AUFS',
    [
      dir('.wh..wh.plnk'),
      file('.wh..wh.aufs', 'x'),
      dir('.wh..wh.orph'),
      file('.wh..wh.f'),
      file('d/.wh..wh.x'),
    ],
    all,
    ['IGNORED_WHITEOUT'],
  ],
  ['W08', 'through a symlink', [file('l/.wh.x')], without('d/x')],
  [
    'W08',
    'through a symlink to the outside',
    [file('out/.wh.file'), file('out/sub/.wh.file'), file('out/.wh..wh..opq')],
    all,
  ],
  [
    'W09',
    'a directory in which the layer wrote',
    [file('d/sub/new'), file('.wh.d')],
    ['d', 'd/sub', 'd/sub/new', 'empty', 'f', 'l', 'out'],
  ],
  [
    'W09',
    'a directory in which the layer will write',
    [file('.wh.d'), file('d/sub/new')],
    ['d', 'd/sub', 'd/sub/new', 'empty', 'f', 'l', 'out'],
  ],
  [
    'W09',
    'a directory in which the layer wrote through a symlink',
    [file('l/sub/new'), file('.wh.d')],
    ['d', 'd/sub', 'd/sub/new', 'empty', 'f', 'l', 'out'],
  ],
  [
    'W10',
    'of any type, and with a body',
    [
      dir('.wh.f'),
      link('d/.wh.x', '/canary'),
      hard('d/.wh.sub', 'none'),
      file('.wh.l', 'x'.repeat(5000)),
      device('.wh.out'),
      file('after', 'x'),
    ],
    ['after file x', 'd', 'empty'],
  ],
  ['W11', 'of a whiteout', [file('.wh..wh.f')], all, ['IGNORED_WHITEOUT']],
  [
    'W13',
    'a plain one inside an opaque directory',
    [file('d/.wh..wh..opq'), file('d/.wh.x'), file('d/new'), file('d/.wh.none')],
    ['d', 'd/new', 'empty', 'f', 'l', 'out'],
  ],
  [
    'W14',
    'of a directory, then a child of it',
    [file('.wh.d'), file('d/new')],
    ['d', 'd/new', 'empty', 'f', 'l', 'out'],
  ],
  [
    'W14',
    'of a directory, then the directory and a child of it',
    [file('.wh.d'), dir('d'), file('d/new')],
    ['d', 'd/new', 'empty', 'f', 'l', 'out'],
  ],
  [
    'W01',
    'names that only begin like one',
    [file('.wh'), file('.whf'), file('.WH.f')],
    ['.WH.f file', '.wh file', '.whf file', ...all],
  ],
]
for (const [id, what, upper, left, warns = []] of rows)
  await hostile(t, { id, what, layers: [lower, upper], tree: lines(left), warns })

for (const [id, names] of [
  ['W05', ['.wh.']],
  ['W06', ['.wh..', '.wh...']],
] as const)
  for (const name of names)
    for (const parent of ['', 'd/', 'l/', 'out/'])
      for (const [what, layers] of [
        ['alone in a layer', [lower, [file(`${parent}${name}`)]]],
        ['behind an addition', [lower, [file('d/new'), file(`${parent}${name}`)]]],
        ['in the base layer', [[...lower, file(`${parent}${name}`)]]],
      ] as const)
        await hostile(t, {
          id,
          what: `${parent}${name}, ${what}`,
          layers,
          split: false,
          cli: id === 'W06' && parent === '' && what === 'alone in a layer',
          // what differs is the applier's; one through everything is enough
          ...(parent === '' ? {} : { chains: [] }),
          rejects: 'INVALID_WHITEOUT',
          says: `${parent}${name}`,
          kept: lines(what === 'behind an addition' ? [...all, 'd/new'] : all),
        })

const rest: HostileCase[] = [
  {
    id: 'W12',
    what: 'in the base layer they delete nothing',
    layers: [[...lower, file('.wh.f'), file('d/.wh..wh..opq'), file('.wh..wh..opq')]],
    split: false,
    tree: lines(all),
  },
  {
    id: 'W16',
    what: 'of names of any bytes, and of the longest that can be',
    layers: [
      [file(Buffer.from([0xff, 0x0a])), file('n'.repeat(251)), file('kept')],
      [file(Buffer.from('.wh.\xff\n', 'latin1')), file(`.wh.${'n'.repeat(251)}`)],
    ],
    tree: ['kept file'],
  },
  {
    id: 'W16',
    what: 'of a name that is too long to be there',
    layers: [[file('kept')], [file(`.wh.${'n'.repeat(256)}`)]],
    rejects: 'IO',
    cause: 'ENAMETOOLONG',
    kept: ['kept file'],
  },
  {
    id: 'W09',
    what: 'what lower layers said of a directory is gone with it',
    onDisk: true,
    layers: [
      [dir('d', { mode: 0o700, mtime: 5, pax: [xattrRecord('user.a', '1')] }), file('d/x')],
      [file('d/new'), file('.wh.d')],
    ],
    tree: ['d dir', 'd/new file'],
    inspect: described(['d dir 755 0:0 @0', 'd/new file 644 0:0 @0']),
  },
]
for (const each of rest) await hostile(t, each)

for (const [what, edit] of [
  ['deleted', (dir: string) => rmSync(dir, { recursive: true })],
  ['renamed', (dir: string) => renameSync(dir, `${dir}x`)],
  ['made a file', (dir: string) => (rmSync(dir, { recursive: true }), writeFileSync(dir, ''))],
] as const)
  await hostile(t, {
    id: 'W17',
    what: `a name that only a whiteout can have, ${what}: no layer can say so`,
    chains: [merged],
    layers: [[file('.wh.a/x')]],
    split: false,
    tree: ['.wh.a dir', '.wh.a/x file'],
    warns: ['WHITEOUT_DIRECTORY'],
    inspect: async (t, { place }) => {
      edit(path.join(place.rootfs, '.wh.a'))
      const image = `${place.images}:next`
      await t.rejects(new Koci().use(mtree()).repack({ image, bundle: place.bundle }), {
        code: 'ERR_KOCI_INVALID_WHITEOUT',
        message: /^\.wh\.a/,
      })
      await t.rejects(new Koci().unpack({ image, bundle: `${place.bundle}-2` }), {
        code: 'ERR_KOCI_REF_NOT_FOUND',
      })
    },
  })
