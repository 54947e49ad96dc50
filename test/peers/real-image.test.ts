// An image as large as real ones, made of what is installed on this machine, through everything that koci does with
// images; with the time it takes, and that umoci takes for the same.
import {
  appendFileSync,
  chmodSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { makeImage } from '../support/image.ts'
import {
  countLayers,
  entriesOf,
  isRoot,
  missing,
  run,
  temporary,
  umociMissing,
} from '../support/peers.ts'
import { describeTree } from '../support/tree.ts'

const entriesAtLeast = 6000
const rootless = !isRoot
const flags = rootless ? ['--rootless'] : []
const withoutUmoci = umociMissing(rootless)
const withoutSkopeo = missing('skopeo')

// everybody may read them; taken in this order until there are enough entries
const candidates = [
  '/usr/share/zoneinfo',
  '/usr/share/man/man3',
  '/usr/share/man/man8',
  '/usr/share/man/man7',
  '/usr/share/man/man2',
  '/usr/include/linux',
  '/usr/share/perl',
  '/usr/lib/python3',
  '/usr/share/doc',
  path.resolve(import.meta.dirname, '../../node_modules'),
]

/** Directories with enough entries together, as paths without a leading slash. */
function chooseTrees(): string[] {
  const chosen: string[] = []
  let entries = 0
  for (const directory of candidates) {
    if (entries >= entriesAtLeast) break
    if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory()) continue
    entries += readdirSync(directory, { recursive: true }).length
    chosen.push(directory.slice(1))
  }
  return chosen
}

const trees = chooseTrees()

/** Three layers: the trees; links of both kinds; and one that takes much of it away again. */
function makeLayers(base: string): Buffer[] {
  const second = path.join(base, 'second')
  const third = path.join(base, 'third')
  run('sh', ['-ec', secondLayer, second])
  run('sh', ['-ec', thirdLayer, third])
  const parents = new Set(trees.flatMap(parentsOf))
  return [
    tar(base, '/', ['--no-recursion', '.', ...parents, '--recursion', ...trees]),
    tar(base, second, ['.']),
    tar(base, third, ['.']),
  ]
}

const secondLayer = `
  mkdir -p "$0/opt/data" "$0/opt/hard" "$0/opt/soft" "$0/opt/hidden"
  cd "$0/opt"
  for n in $(seq 1000 1500); do
    echo "content $n" > data/$n
    test $n -lt 1100 || ln data/$n hard/$n
    ln -s ../data/$n soft/$n
    echo "$n" > hidden/$n
  done`
const thirdLayer = `
  mkdir -p "$0/opt/data" "$0/opt/hidden"
  cd "$0/opt"
  : > .wh.soft
  : > data/.wh.1400
  : > hidden/.wh..wh..opq
  echo new > hidden/new
  echo changed > data/1200
  ln -s data now-soft`

function parentsOf(tree: string): string[] {
  const names = tree.split('/').slice(0, -1)
  return names.map((_, index) => names.slice(0, index + 1).join('/'))
}

function tar(base: string, directory: string, args: readonly string[]): Buffer {
  const file = path.join(base, 'layer.tar')
  const options = ['--format=posix', '--sort=name', '--numeric-owner', '-C', directory]
  run('tar', [...options, '-cf', file, ...args])
  const bytes = readFileSync(file)
  rmSync(file)
  return bytes
}

/** The first regular file of the image's trees, as a path in the rootfs. */
function someFile(rootfs: string): string {
  const [tree = ''] = trees
  const file = readdirSync(path.join(rootfs, tree), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile())
    .map(entry => path.relative(rootfs, path.join(entry.parentPath, entry.name)))
    .sort()[0]
  if (file === undefined) throw new Error(`${tree}: no files`)
  return file
}

await t.test(
  'unpack, repack unchanged, change, repack, refresh, unpack: always the same tree',
  { skip: missing('tar', 'seq') },
  async t => {
    const base = temporary(t, 'real')
    const images = path.join(base, 'images')
    const image = await makeImage(images, 'real', { layers: makeLayers(base) })
    const app = new Koci().use(mtree())
    const times: string[] = []
    const timed = async <T>(what: string, use: () => T | Promise<T>): Promise<T> => {
      const start = performance.now()
      const result = await use()
      times.push(`${what} ${((performance.now() - start) / 1000).toFixed(2)} s`)
      return result
    }
    const bundle = path.join(base, 'bundle')
    const theirs = path.join(base, 'theirs')
    const packOurs = (tag: string, refresh = false) =>
      app.repack({ image: `${images}:${tag}`, bundle, refresh })
    const packTheirs = (tag: string) =>
      run('umoci', ['repack', '--image', `${images}:${tag}`, theirs])
    const unpackTheirs = (tag: string, bundle: string) =>
      run('umoci', ['unpack', ...flags, '--image', `${images}:${tag}`, bundle])

    const { rootfs } = await timed('koci unpack', () => app.unpack({ image, bundle, rootless }))
    const tree = describeTree(rootfs)
    t.ok(tree.length >= entriesAtLeast, `${tree.length} entries`)
    t.ok(tree.filter(line => line.includes(' =opt/')).length > 300, 'hard links')
    t.ok(tree.filter(line => line.includes(' -> ')).length > 0, 'symlinks')
    t.notOk(tree.some(line => line.startsWith('opt/soft') || line.startsWith('opt/hidden/1')))
    if (withoutUmoci === false) {
      await timed('umoci unpack', () => unpackTheirs('real', theirs))
      t.strictSame(describeTree(path.join(theirs, 'rootfs')), tree)
    }

    const { changes: none } = await timed('koci repack, unchanged', () => packOurs('same'))
    t.strictSame([...none], [])
    t.equal(await countLayers(images, 'same'), 3)
    if (withoutUmoci === false)
      await timed('umoci repack, unchanged', () => packTheirs('same-theirs'))

    const chmodded = someFile(rootfs)
    const change = (rootfs: string): void => {
      appendFileSync(`${rootfs}/opt/data/1001`, 'more')
      writeFileSync(`${rootfs}/opt/added`, 'added')
      rmSync(`${rootfs}/opt/data/1002`)
      chmodSync(path.join(rootfs, chmodded), 0o755)
    }
    const expected = [
      'directory opt',
      'directory opt/data',
      'file opt/added',
      'file opt/data/.wh.1002',
      'file opt/data/1001',
      `file ${chmodded}`,
    ].sort()
    change(rootfs)
    await timed('koci repack, four changes', () => packOurs('changed', true))
    t.strictSame((await entriesOf(images, 'changed', 3)).sort(), expected)
    if (withoutUmoci === false) {
      change(path.join(theirs, 'rootfs'))
      await timed('umoci repack, four changes', () => packTheirs('changed-theirs'))
      t.strictSame((await entriesOf(images, 'changed-theirs', 3)).sort(), expected)
    }

    const { changes } = await timed('koci repack, refreshed', () => packOurs('same-again'))
    t.strictSame([...changes], [])
    const changed = describeTree(rootfs)
    const again = path.join(base, 'again')
    await app.unpack({ image: `${images}:changed`, bundle: again, rootless })
    t.strictSame(describeTree(path.join(again, 'rootfs')), changed)
    if (withoutUmoci === false) {
      unpackTheirs('changed', path.join(base, 'again-theirs'))
      t.strictSame(describeTree(path.join(base, 'again-theirs/rootfs')), changed)
    }
    if (withoutSkopeo === false) {
      const { Layers } = JSON.parse(run('skopeo', ['inspect', `oci:${images}:changed`]))
      t.equal(Layers.length, 4)
      const target = `dir:${base}/copy`
      run('skopeo', ['--insecure-policy', 'copy', '-q', `oci:${images}:changed`, target])
    }
    for (const time of times) t.comment(time)
  },
)
