// The image that most cases work on, made of what a machine has: a Debian base system, trees of its own, large files
// made here, many small layers, and one with whiteouts. Made once and kept in a directory; what is too small doesn't count.
import { createCipheriv } from 'node:crypto'
import {
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import type { LayerEntry } from '../lib/layer/layer-writer.ts'
import { addLayer, makeLayout, type LayerRecipe, type MadeLayer } from './make-image.ts'
import { measure } from './measure.ts'
import { isRoot, type Peers } from './peers.ts'
import { removeTree } from './remove-tree.ts'
import {
  directoryEntry,
  fileEntry,
  parents,
  treeEntries,
  whiteoutEntry,
} from './tree-entries.ts'

/** An image to work on. */
export interface Corpus {
  /** The layout. */
  readonly layout: string
  readonly refName: string
  /** Both, as koci and umoci want them. */
  readonly image: string
  readonly layers: readonly MadeLayer[]
  readonly entries: number
  readonly bytes: number
  readonly compressed: number
  /** Why figures of it don't count; empty if they do. */
  readonly tooSmall: readonly string[]
}

/** What makes one. */
export interface CorpusOptions {
  /** Holds the corpus, also of an earlier run. */
  readonly directory: string
  readonly quick: boolean
  readonly peers: Peers
  readonly signal: AbortSignal
  readonly log: (line: string) => void
}

/** What a corpus has to have to count. */
const least = { layers: 15, entries: 90_000, bytes: 1_400_000_000 }

/** Changed whenever the same machine would give another corpus. */
const recipe = 2
const refName = 'corpus'
const mb = 1_000_000

const ownModules = path.resolve(import.meta.dirname, '../node_modules')

/** What is taken of a machine, where it has it, until there is enough; beyond `treeBytes` a tree is cut off. */
const wanted = [
  '/usr/share/doc',
  '/usr/share/man',
  '/usr/share/locale',
  '/usr/include',
  '/usr/lib/python3',
  '/usr/lib/python3.[0-9]*',
  ownModules,
  '/usr/local/go',
  '/usr/lib/go-[0-9]*',
  '/usr/share/go-[0-9]*',
  '/usr/share',
  '/usr/lib/gcc',
  '/usr/lib/node_modules',
  '/usr/lib/jvm',
  '/usr/bin',
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/aarch64-linux-gnu',
  '/usr/src',
]

/** Files of which the repack cases change four: in directories of `manyPerDirectory`. */
export const manyRoot = 'srv/many'
const manyPerDirectory = 50

/** Takes the corpus from the directory, or makes it there. */
export async function openCorpus(options: CorpusOptions): Promise<Corpus> {
  const { directory, quick, log } = options
  const notes = path.join(directory, 'corpus.json')
  const layout = path.join(directory, 'image')
  const kept = readNotes(notes)
  if (kept?.recipe === recipe && kept.quick === quick && existsSync(layout)) {
    log(`corpus from ${directory}`)
    return describe(layout, kept.layers)
  }
  mkdirSync(directory, { recursive: true })
  rmSync(notes, { force: true })
  // what a run left that was killed
  await removeTree(layout)
  await removeTree(path.join(directory, 'debian'))
  log(`making a corpus in ${directory}`)
  const layers = await makeCorpus(layout, options)
  writeFileSync(notes, `${JSON.stringify({ recipe, quick, layers }, undefined, 2)}\n`)
  return describe(layout, layers)
}

async function makeCorpus(layout: string, options: CorpusOptions): Promise<MadeLayer[]> {
  const { directory, quick, signal, log } = options
  const size = quick
    ? { trees: 2 * mb, tree: 1 * mb, generated: 1 * mb, many: 200 }
    : { trees: 1700 * mb, tree: 330 * mb, generated: 50 * mb, many: 500 }
  const made: MadeLayer[] = []
  await using image = await makeLayout(layout, refName)
  const add = async (layer: LayerRecipe): Promise<void> => {
    signal.throwIfAborted()
    const done = await addLayer(image, refName, layer)
    log(`  ${done.name}: ${done.entries} entries, ${Math.round(done.bytes / mb)} MB`)
    made.push(done)
  }

  if (!quick) {
    const debian = path.join(directory, 'debian')
    try {
      if (await debootstrap(debian, options))
        await add(treeLayer('Debian base', debian, '', size.tree))
    } finally {
      await removeTree(debian)
    }
  }
  const victims: Buffer[] = []
  const taken: string[] = []
  for (const tree of wanted.flatMap(pattern => globSync(pattern).sort())) {
    const left = size.trees - made.reduce((sum, { bytes }) => sum + bytes, 0)
    if (left <= 0) break
    // ours may be in anybody's home
    const as = tree === ownModules ? 'opt/node_modules' : tree.slice(1)
    const layer = treeLayer(tree, realpathSync(tree), as, Math.min(size.tree, left), taken)
    await add({ ...layer, entries: () => choosing(layer.entries(), victims, quick ? 40 : 400) })
    taken.push(tree)
  }
  await add(filesLayer('text', 'srv/text', 2, at => text(size.generated, at)))
  await add(filesLayer('noise', 'srv/noise', 2, at => noise(size.generated / 2, at)))
  await add(filesLayer('zeros', 'srv/zeros', 1, () => Buffer.alloc(size.generated)))
  for (const at of [0, 1]) await add(manyLayer(at, size.many))
  const missing = quick
    ? 0
    : least.entries - made.reduce((sum, { entries }) => sum + entries, 0)
  // what the machine's own trees lack
  if (missing > 0) await add(filesLayer('more', 'srv/more', missing, at => text(4000, at)))
  for (let at = 0; at < 6; at += 1)
    await add(filesLayer(`small ${at}`, 'srv/small', 1, () => text(1000, at), `${at}`))
  await add({ name: 'whiteouts', entries: () => victims.map(whiteoutEntry) })
  return made
}

/** A Debian base system; false where it can't be had, which isn't an error. */
async function debootstrap(target: string, options: CorpusOptions): Promise<boolean> {
  const { peers, signal, log } = options
  if (!peers.has('debootstrap') || !isRoot) {
    log(`  no Debian base: ${isRoot ? 'debootstrap is not installed' : 'it needs root'}`)
    return false
  }
  try {
    const args = ['--variant=minbase', 'stable', target]
    await measure({ program: 'debootstrap', args }, signal)
    return true
  } catch (error) {
    signal.throwIfAborted()
    log(`  no Debian base: ${(error as Error).message.split('\n').at(-1)}`)
    return false
  }
}

function treeLayer(
  name: string,
  root: string,
  as: string,
  maxBytes: number,
  skip: readonly string[] = [],
): LayerRecipe {
  return { name, entries: () => treeEntries(root, { as, maxBytes, skip: [...skip] }) }
}

/** Passes entries on, and chooses some files for the whiteouts: one of so many. */
function* choosing(
  entries: Iterable<LayerEntry>,
  victims: Buffer[],
  of: number,
): Generator<LayerEntry> {
  let files = 0
  for (const entry of entries) {
    yield entry
    if (entry.type === 'file' && files++ % of === of - 1) victims.push(entry.rawPath)
  }
}

function filesLayer(
  name: string,
  directory: string,
  count: number,
  content: (at: number) => Buffer,
  prefix = '',
): LayerRecipe {
  return {
    name,
    *entries() {
      yield* parents(`${directory}/x`)
      for (let at = 0; at < count; at += 1)
        yield fileEntry(`${directory}/${prefix}${at}`, content(at))
    },
  }
}

/** Small files; layer `at` holds the directories `<at>0`, `<at>1` and so on. */
function manyLayer(at: number, count: number): LayerRecipe {
  return {
    name: `many ${at}`,
    *entries() {
      yield* parents(`${manyRoot}/x`)
      for (let file = 0; file < count; file += 1) {
        const directory = `${manyRoot}/${at}${Math.floor(file / manyPerDirectory)}`
        if (file % manyPerDirectory === 0) yield directoryEntry(directory)
        yield fileEntry(`${directory}/${file % manyPerDirectory}`, text(300, file))
      }
    },
  }
}

/** Compresses to a third or so, as sources do: words of a small vocabulary in an order that doesn't repeat. */
function text(size: number, seed: number): Buffer {
  const words = Array.from({ length: 512 }, (_, at) => ((at + 7) ** 3).toString(36))
  const order = noise(Math.ceil(size / 2), seed)
  const result = Buffer.alloc(size)
  let filled = 0
  for (let at = 0; filled < size; at += 2) {
    const word = words[(order.readUInt16LE(at % (order.length - 1)) + at) % words.length] ?? ''
    filled += result.write(`${word}${at % 16 === 0 ? '\n' : ' '}`, filled, 'latin1')
  }
  return result
}

/** Incompressible, and the same for the same seed. */
function noise(size: number, seed: number): Buffer {
  const key = Buffer.alloc(16, seed + 1)
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size))
}

function describe(layout: string, layers: readonly MadeLayer[]): Corpus {
  const sum = (pick: (layer: MadeLayer) => number): number =>
    layers.reduce((total, layer) => total + pick(layer), 0)
  const found = {
    layers: layers.length,
    entries: sum(layer => layer.entries),
    bytes: sum(layer => layer.bytes),
  }
  const tooSmall = (Object.keys(least) as (keyof typeof least)[])
    .filter(key => found[key] < least[key])
    .map(key => `${found[key]} ${key}, at least ${least[key]} count`)
  const { entries, bytes } = found
  const compressed = sum(layer => layer.compressed)
  const image = `${layout}:${refName}`
  return { layout, refName, image, layers, entries, bytes, compressed, tooSmall }
}

function readNotes(
  file: string,
): { recipe: number; quick: boolean; layers: MadeLayer[] } | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
}
