// The merged view is the plain tree, to the last attribute and nanosecond: images made up, and the cases that are known to
// go wrong where layers are extracted alone.
import { mkdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { KociError } from '../../../lib/errors.ts'
import { Koci, unmountBundle } from '../../../lib/index.ts'
import { overlay } from '../../../middleware/overlay/index.ts'
import { bound, differential } from '../../support/differential.ts'
import { makeImage, type TestLayer } from '../../support/image.ts'
import { anyImage, toMembers } from '../../support/image-arbitrary.ts'
import { memoryParent } from '../../support/memory-dir.ts'
import { namespace, runInNamespaces } from '../../support/namespaces.ts'
import { temporary } from '../../support/peers.ts'
import { xattrRecord, type TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'

t.setTimeout((900 + bound(60)) * 1000)
const rootless = namespace === 'user'

/** What an unpack gives. */
interface Unpacked {
  /** The tree, or the code of the error. */
  readonly tree: readonly string[] | string
  /** How many layers had to be extracted on top of others. */
  readonly dependent: number
}

/** What both ways of unpacking give. */
async function unpackBoth(base: string, layers: readonly TestLayer[]) {
  mkdirSync(base)
  const images = path.join(base, 'images')
  const image = await makeImage(images, 'test', { layers, compression: 'none' })
  const plain = await unpack(new Koci(), image, path.join(base, 'plain'))
  const stacked = await unpack(new Koci().use(overlay()), image, path.join(base, 'stacked'))
  rmSync(base, { recursive: true, force: true })
  return { plain, stacked }
}

async function unpack(app: Koci, image: string, bundle: string): Promise<Unpacked> {
  let result
  try {
    const { rootfs, layers } = await app.unpack({ image, bundle, rootless })
    const dependent = layers.filter(({ needsBelow }) => needsBelow !== undefined).length
    result = { tree: describeTree(rootfs), dependent }
  } catch (error) {
    if (error instanceof KociError) return { tree: error.code, dependent: 0 }
    throw error
  }
  if (app.chain.includes('overlay')) await unmountBundle(app, { bundle })
  return result
}

/** Names of one inode that are in several layers are files of their own: that is as it is. */
function withoutLinks(tree: Unpacked['tree']): Unpacked['tree'] {
  return typeof tree === 'string' ? tree : tree.map(line => line.replace(/ =\S.*$/, ''))
}

const dir = (name: string, more: TarMember = {}): TarMember => ({
  name,
  type: 'directory',
  mode: 0o755,
  mtime: 1_700_000_001,
  ...more,
})
const file = (name: string, body = name): TarMember => ({ name, body, mtime: 1_700_000_002 })
const gone = (name: string): TarMember => ({ name })
const link = (name: string, linkname: string): TarMember => ({
  name,
  type: 'symlink',
  linkname,
  mtime: 3,
})
const hard = (name: string, linkname: string): TarMember => ({
  name,
  type: 'hardlink',
  linkname,
})
const odd: TarMember = {
  mode: 0o2751,
  mtime: '1700000000.123456789',
  pax: [xattrRecord('user.note', 'kept')],
}
/** Layers one after the other, how many of them depend on those below, and names that must or (-) mustn't be there. */
const cases: [what: string, layers: TarMember[][], dependent: number, names?: string[]][] = [
  ['an image without layers', [], 0],
  ['one layer', [[dir('./', odd), dir('a/', odd), file('a/x')]], 0],
  ['empty layers', [[], [file('x')], []], 0, ['x']],
  ['nothing but empty layers', [[], []], 0],
  ['a layer that has the root only', [[file('x')], [dir('./', odd)]], 0],
  [
    'storage-drivers 4.6.1: implied parents look as below',
    [[dir('a/', odd), dir('a/b/', odd)], [file('a/b/c/x')]],
    0,
    ['a/b/c/x'],
  ],
  ['implied parents with nothing below', [[file('a/b/x')]], 0],
  [
    'implied parents below listed ones',
    [[dir('a/', odd), dir('a/b/', odd)], [dir('a/'), file('a/b/x')], [file('a/b/y')]],
    0,
  ],
  [
    'storage-drivers 4.6.2: a symlinked parent',
    [[dir('usr/'), dir('usr/lib/'), link('lib', 'usr/lib')], [file('lib/x')]],
    1,
    ['usr/lib/x'],
  ],
  [
    'a symlinked parent of a whiteout',
    [[dir('usr/'), file('usr/x'), link('lib', 'usr')], [gone('lib/.wh.x')]],
    1,
    ['-usr/x', 'lib'],
  ],
  [
    'a symlink to a directory that is listed again',
    [
      [dir('usr/'), file('usr/x'), link('lib', 'usr')],
      [dir('lib/'), file('lib/y')],
    ],
    0,
    ['usr/x', 'lib/y', '-lib/x'],
  ],
  [
    'a link that leads to itself, but not on top of those below',
    [
      [
        dir('real/'),
        dir('real/deep/'),
        dir('real/s/'),
        dir('real/s/l/'),
        link('s', 'real/deep'),
      ],
      [link('s/l', '../s/l'), file('s/l/x')],
    ],
    1,
    ['real/s/l/x'],
  ],
  [
    'a hard link to what is deleted, but not on top of those below',
    [
      [
        dir('real/'),
        dir('real/deep/'),
        dir('real/d/'),
        file('real/d/x'),
        dir('d/'),
        file('d/x'),
        link('s', 'real/deep'),
      ],
      [file('s/q'), file('d/y'), link('p', 's/../d'), gone('p/.wh.x'), hard('z', 'd/x')],
    ],
    1,
    ['z', 'd/x', '-real/d/x'],
  ],
  [
    'storage-drivers 4.6.3: a hard link to a file of a lower layer',
    [[file('a/x')], [hard('y', 'a/x')]],
    1,
    ['y', 'a/x'],
  ],
  [
    'layers on top of one that depends',
    [[file('a/x')], [hard('y', 'a/x')], [file('a/z'), gone('a/.wh.x')], [hard('b', 'a/z')]],
    2,
    ['y', 'b', '-a/x'],
  ],
  ['hard links in one layer', [[file('a/x'), hard('a/y', 'a/x'), hard('z', 'a/y')]], 0],
  [
    'containerd 13030: whiteouts of a layer extracted alone',
    [
      [file('a/x'), file('a/y'), file('z')],
      [gone('a/.wh.x'), gone('.wh.z')],
    ],
    0,
    ['-a/x', '-z', 'a/y'],
  ],
  [
    'an opaque directory, whatever its entry',
    [
      [file('a/x'), dir('a/b/')],
      [file('a/y'), gone('a/.wh..wh..opq'), file('a/z')],
    ],
    0,
    ['-a/x', '-a/b', 'a/y', 'a/z'],
  ],
  ['an opaque root', [[file('a/x')], [file('a/y'), gone('.wh..wh..opq')]], 0, ['-a/x']],
  [
    'an opaque directory with whiteouts in it',
    [
      [file('a/x'), file('a/y')],
      [gone('a/.wh..wh..opq'), gone('a/.wh.x'), file('a/z')],
    ],
    0,
    ['-a/x', '-a/y'],
  ],
  [
    'a whiteout, and the name again',
    [
      [dir('a/', odd), file('a/x')],
      [gone('.wh.a'), file('a/y')],
    ],
    0,
    ['-a/x', 'a/y'],
  ],
  [
    'the name, and then a whiteout',
    [
      [dir('a/', odd), file('a/x')],
      [file('a/y'), gone('.wh.a')],
    ],
    0,
    ['-a/x', 'a/y'],
  ],
  ['a whiteout of nothing', [[file('x')], [gone('a/b/.wh.y'), gone('.wh.z')]], 0, ['-a']],
  ['whiteouts of nothing in the base', [[gone('a/.wh.y'), gone('.wh.z'), file('b')]], 0],
  [
    'whiteouts alone in a directory that is there',
    [[dir('a/', odd), dir('a/b/', odd), file('a/b/x')], [gone('a/b/.wh.x')]],
    0,
    ['a/b'],
  ],
  ['whiteouts in what is a file below', [[file('a')], [gone('a/.wh.x')]], 1, ['a']],
  [
    'the same layer twice',
    [[file('a/x')], [gone('a/.wh.x'), dir('a/', odd)], [file('a/x')]],
    0,
    ['a/x'],
  ],
  [
    'a dependent layer twice',
    [[file('x'), dir('d/')], [hard('d/y', 'x')], [gone('.wh.d')], [hard('d/y', 'x')]],
    2,
    ['d/y'],
  ],
  ['a file becomes a directory', [[file('a')], [dir('a/', odd), file('a/x')]], 0],
  ['a file becomes an implied directory', [[file('a')], [file('a/x')]], 0],
  ['a directory becomes a file', [[file('a/x'), file('a/y')], [file('a')]], 0, ['-a/x']],
  ['a directory becomes a link, and back', [[file('a/x')], [link('a', 'b')], [file('b/x')]], 0],
  ['a fifo among others', [[{ name: 'f', type: 'fifo' }], [file('f')]], 0],
  [
    'names with whatever in them',
    [[file('a:b,c\\d e\n=/x')], [gone('a:b,c\\d e\n=/.wh.x')]],
    0,
  ],
  [
    'attributes in the name of overlayfs',
    [
      [dir('a/', { pax: [xattrRecord('user.overlay.opaque', 'y')] }), file('a/x'), file('b')],
      [dir('a/', { pax: [xattrRecord('user.overlay.redirect', '/b')] }), file('a/y')],
      [hard('c', 'b'), dir('a/', { pax: [xattrRecord('user.overlay.whiteout', 'y')] })],
    ],
    1,
    ['a/x', 'a/y'],
  ],
]

const privileged: typeof cases = [
  [
    'attributes in the name of overlayfs, as root',
    [
      [
        dir('a/', { pax: [xattrRecord('trusted.overlay.opaque', 'y')] }),
        file('a/x'),
        file('b'),
      ],
      [dir('a/', { pax: [xattrRecord('trusted.overlay.opaque', 'y')] }), file('a/y')],
      [hard('c', 'b'), dir('a/', { pax: [xattrRecord('trusted.overlay.opaque', 'y')] })],
    ],
    1,
    ['a/x', 'a/y'],
  ],
  [
    'devices and owners',
    [
      [{ name: 'd/null', type: 'char', devmajor: 1, devminor: 3, uid: 7, gid: 4_000_000 }],
      [{ name: 'd/sda', type: 'block', devmajor: 8, uid: 300_000 }, dir('d/e/', { uid: 5 })],
      [file('d/e/f')],
    ],
    0,
  ],
]

async function inNamespace(): Promise<void> {
  for (const [what, layers, dependent, names = []] of [
    ...cases,
    ...(rootless ? [] : privileged),
  ])
    await t.test(what, async t => {
      const base = path.join(temporary(t, 'exact', memoryParent()), 'case')
      const { plain, stacked } = await unpackBoth(base, layers)
      t.equal(stacked.dependent, dependent, 'layers that depend on those below')
      t.strictSame(stacked.tree, plain.tree)
      const found = Array.isArray(stacked.tree)
        ? stacked.tree.map(line => line.split(' ')[0])
        : []
      for (const name of names)
        t.equal(found.includes(name.replace(/^-/, '')), !name.startsWith('-'), name)
    })

  await t.test('generated images', async t => {
    const base = temporary(t, 'exact', memoryParent())
    const count = { images: 0, refused: 0, dependent: 0 }
    await differential(
      fc.asyncProperty(anyImage({ privileged: namespace === 'host' }), async image => {
        const directory = path.join(base, String(count.images++))
        const { plain, stacked } = await unpackBoth(directory, toMembers(image))
        const isDependent = stacked.dependent > 0
        if (isDependent) count.dependent++
        if (typeof plain.tree === 'string') count.refused++
        const seen = isDependent ? withoutLinks : (tree: Unpacked['tree']) => tree
        assert.deepEqual(seen(stacked.tree), seen(plain.tree))
      }),
      15,
    )
    t.comment(JSON.stringify(count))
    t.ok(count.dependent > 0, 'some have layers that depend on those below')
  })
}

if (namespace === undefined) await runInNamespaces(t, import.meta.filename)
else await inNamespace()
