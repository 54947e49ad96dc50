// What changed, by the upper directory: the same list as by comparing a plain rootfs with its record.
import { mkdirSync, rmSync } from 'node:fs'
import * as fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci, listDelta, mountBundle, unmountBundle } from '../../../lib/index.ts'
import { mtree } from '../../../middleware/mtree/index.ts'
import { overlay } from '../../../middleware/overlay/index.ts'
import { bound } from '../../support/differential.ts'
import { makeImage } from '../../support/image.ts'
import { memoryParent } from '../../support/memory-dir.ts'
import { namespace, runInNamespaces } from '../../support/namespaces.ts'
import { entriesOf, temporary } from '../../support/peers.ts'
import { describeTree } from '../../support/tree.ts'

t.setTimeout((900 + bound(60)) * 1000)
const rootless = namespace === 'user'

const stacked = (): Koci => new Koci().use(overlay())
const plain = (): Koci => new Koci().use(mtree())

async function setUp(t: Parameters<typeof temporary>[0]) {
  const base = temporary(t, 'delta', memoryParent())
  const images = path.join(base, 'images')
  const image = await makeImage(images, 'test', {
    layers: [
      [
        { name: './', type: 'directory', mode: 0o755, mtime: 1 },
        { name: 'd/', type: 'directory', mode: 0o755, mtime: 1 },
        { name: 'd/x', body: 'x', mtime: 1 },
        { name: 'd/y', body: 'y', mtime: 1 },
        { name: 'd/e/', type: 'directory', mode: 0o755, mtime: 1 },
        { name: 'd/e/z', body: 'z', mtime: 1 },
        { name: 'f', body: 'file', mtime: 1 },
        { name: 'link', type: 'symlink', linkname: 'f', mtime: 1 },
      ],
      [
        { name: 'd/.wh.y' },
        { name: 'd/x', body: 'xx', mtime: 2 },
        { name: 'g/', type: 'directory', mode: 0o700, mtime: 2 },
        { name: 'g/h', body: 'h', mtime: 2 },
      ],
    ],
  })
  return { base, images, image, bundle: path.join(base, 'bundle') }
}

const mutations: [what: string, mutate: (at: (name: string) => string) => void][] = [
  ['nothing', () => {}],
  ['a new file', at => fs.writeFileSync(at('new'), 'new')],
  ['a new file in a directory of the base', at => fs.writeFileSync(at('d/e/new'), 'new')],
  ['a file written', at => fs.writeFileSync(at('d/x'), 'changed')],
  ['a file opened for writing only', at => fs.closeSync(fs.openSync(at('d/x'), 'r+'))],
  ['a mode', at => fs.chmodSync(at('f'), 0o600)],
  [
    'a mode, and back',
    at => {
      const { mode } = fs.statSync(at('f'))
      fs.chmodSync(at('f'), 0o600)
      fs.chmodSync(at('f'), mode)
    },
  ],
  ['a time', at => fs.utimesSync(at('g/h'), 5, 5)],
  ['the time of the root', at => fs.utimesSync(at('.'), 5, 5)],
  ['a file deleted', at => rmSync(at('d/x'))],
  ['a directory deleted', at => rmSync(at('d'), { recursive: true })],
  [
    'a directory deleted and made again',
    at => {
      rmSync(at('d'), { recursive: true })
      mkdirSync(at('d'))
      fs.writeFileSync(at('d/new'), '')
    },
  ],
  [
    'a directory deleted and made again, with one in it that hides another',
    at => {
      rmSync(at('d'), { recursive: true })
      mkdirSync(at('d'))
      mkdirSync(at('d/e'))
    },
  ],
  [
    'a directory deleted and made again, with some of the same',
    at => {
      const { mtime } = fs.statSync(at('d/e/z'))
      rmSync(at('d'), { recursive: true })
      mkdirSync(at('d/e'), { recursive: true })
      fs.writeFileSync(at('d/e/z'), 'z')
      fs.utimesSync(at('d/e/z'), mtime, mtime)
    },
  ],
  [
    'a file becomes a directory',
    at => {
      rmSync(at('f'))
      mkdirSync(at('f'))
      fs.writeFileSync(at('f/in'), '')
    },
  ],
  [
    'a directory becomes a file',
    at => {
      rmSync(at('d'), { recursive: true })
      fs.writeFileSync(at('d'), '')
    },
  ],
  ['a link led elsewhere', at => (rmSync(at('link')), fs.symlinkSync('g', at('link')))],
  ['a file renamed', at => fs.renameSync(at('f'), at('d/f'))],
  ['something made and deleted', at => (fs.writeFileSync(at('n'), ''), rmSync(at('n')))],
  [
    'a directory of one layer deleted and its name used by a link',
    at => {
      rmSync(at('g'), { recursive: true })
      fs.symlinkSync('d', at('g'))
    },
  ],
  [
    'new files of one inode',
    at => {
      fs.writeFileSync(at('d/one'), 'one')
      fs.linkSync(at('d/one'), at('two'))
    },
  ],
  ['a new name of a file', at => fs.linkSync(at('f'), at('g/f'))],
  [
    'what was written, written back',
    at => {
      const { mtime } = fs.statSync(at('f'))
      fs.writeFileSync(at('f'), 'changed')
      fs.writeFileSync(at('f'), 'file')
      fs.utimesSync(at('f'), mtime, mtime)
    },
  ],
  [
    'other content of the same size and time',
    at => {
      const { mtime } = fs.statSync(at('f'))
      fs.writeFileSync(at('f'), 'elif')
      fs.utimesSync(at('f'), mtime, mtime)
    },
  ],
]

async function inNamespace(): Promise<void> {
  for (const [what, mutate] of mutations)
    await t.test(what, async t => {
      const { base, images, image, bundle } = await setUp(t)
      const other = path.join(base, 'plain')
      await stacked().unpack({ image, bundle, rootless })
      await plain().unpack({ image, bundle: other, rootless })
      for (const each of [bundle, other]) mutate(name => path.join(each, 'rootfs', name))
      const list = async (app: Koci, bundle: string): Promise<string[]> =>
        (await listDelta(app, { bundle })).map(({ kind, path }) => `${kind} ${path}`)
      const found = await list(stacked(), bundle)
      t.strictSame(found, await list(plain(), other))
      await unmountBundle(stacked(), { bundle })
      t.strictSame(await list(stacked(), bundle), found, 'the same, unmounted')

      await stacked().repack({ image: `${images}:unmounted`, bundle })
      t.strictSame(fs.readdirSync(path.join(bundle, 'rootfs')), [], 'left as it was')
      await mountBundle(stacked(), { bundle })
      // in a user namespace the kernel shows two names of a file that was copied up as one only when it is mounted anew
      const tree = describeTree(path.join(bundle, 'rootfs'))
      await stacked().repack({ image: `${images}:mounted`, bundle, refresh: true })
      t.strictSame(
        await entriesOf(images, 'unmounted', 2),
        await entriesOf(images, 'mounted', 2),
        'what is packed is the same',
      )
      t.strictSame(describeTree(path.join(bundle, 'rootfs')), tree, 'refreshed')
      t.strictSame(await list(stacked(), bundle), [], 'nothing is changed now')
      t.strictSame(fs.readdirSync(path.join(bundle, 'overlay')).sort(), [
        'empty',
        'layers',
        'lowers',
        'seams',
        'upper-2',
        'work-2',
      ])
      const again = path.join(base, 'again')
      await plain().unpack({ image: `${images}:mounted`, bundle: again, rootless })
      t.strictSame(describeTree(path.join(again, 'rootfs')), tree, 'unpacked again')
      await unmountBundle(stacked(), { bundle })
    })
}

if (namespace === undefined) await runInNamespaces(t, import.meta.filename)
else await inNamespace()
