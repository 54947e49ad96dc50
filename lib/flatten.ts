// Layers of an image become one that has the same effect on top of what is below them. They are read twice: first to find
// out what of them counts in the end, then for the contents of the files that do. No rootfs is made, so whoever runs it
// the owners, devices and attributes are those of the layers.
import { ImageTree, pairs, type Inode } from './layer/image-tree.ts'
import type { Layer } from './layer/layer.ts'
import { writeLayer, type LayerEntry } from './layer/layer-writer.ts'
import { readTree, WantedFiles } from './layer/read-tree.ts'
import { chooseCompression, storeLayer, type Compress } from './layer/write-layer-blob.ts'
import { replaceLayers, type ChangeOptions } from './layout/change-image.ts'
import type { ResolvedImage } from './layout/image-layout.ts'
import { selectLayers, type LayerSelection } from './layout/select-layers.ts'
import { layersOf } from './unpack.ts'

/** Which image, which of its layers, and how the new one is stored. */
export interface FlattenOptions extends ChangeOptions {
  /** @default all of them */
  readonly layers?: LayerSelection | undefined
  /** `auto` takes what the newest layer of the image has. @default 'auto' */
  readonly compress?: Compress | undefined
  /** Of the new layer's descriptor. */
  readonly annotations?: Readonly<Record<string, string>> | undefined
}

/**
 * Replaces layers of an image by one. Whiteouts that delete what is in the layers themselves are gone with it; those that
 * delete what is below them stay. The same image gives the same bytes.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for layers that the image doesn't have; {ConflictError} ERR_KOCI_REF_MOVED if
 * somebody else replaced them meanwhile; what is wrong with the layers; the image is as it was then
 */
export function flattenImage(options: FlattenOptions): Promise<ResolvedImage> {
  const { layers: selection = {}, compress = 'auto', annotations, signal } = options
  return replaceLayers(options, async image => {
    const range = selectLayers(image.layers, selection)
    const layers = layersOf(image).slice(0, range.last + 1)
    const compression = chooseCompression(compress, image.manifest)
    const layer = await storeLayer(image.layout, compression, async sink => {
      // times of what is there already are left alone, whatever SOURCE_DATE_EPOCH says
      await writeLayer(flattenedEntries(layers, range.first, signal), sink)
    })
    return { range, layer: { ...layer, annotations } }
  })
}

/** The entries of one layer that has the effect of all from `first` on: parents first, links last. */
async function* flattenedEntries(
  layers: readonly Layer[],
  first: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<LayerEntry, void, undefined> {
  const tree = new ImageTree()
  await readTree(tree, layers.slice(0, first), signal)
  const before = tree.clone()
  await readTree(tree, layers.slice(first), signal)

  const { made, links, wanted } = sortOut(before, tree)
  yield* made
  for await (const { wanted: entry, body } of wanted.read(layers, signal))
    yield { ...entry, body: () => body }
  yield* links
}

interface Parts {
  /** What has no content. */
  readonly made: readonly LayerEntry[]
  /** Files, to be read from where they are. */
  readonly wanted: WantedFiles<LayerEntry>
  /** Further names of files. */
  readonly links: readonly LayerEntry[]
}

function sortOut(before: ImageTree, after: ImageTree): Parts {
  const changed: { path: Buffer; inode: Inode | undefined }[] = []
  /** A name for each file, where it has one already. */
  const names = new Map<Inode, Buffer>()
  for (const { path, before: old, after: now } of pairs(before, after)) {
    const rawPath = Buffer.from(path, 'latin1')
    if (old?.inode !== now?.inode) changed.push({ path: rawPath, inode: now?.inode })
    else if (now && !now.children) names.set(now.inode, rawPath)
  }
  changed.sort((a, b) => Buffer.compare(a.path, b.path))

  const made: LayerEntry[] = []
  const links: LayerEntry[] = []
  const wanted = new WantedFiles<LayerEntry>()
  for (const { path: rawPath, inode } of changed) {
    const name = inode && names.get(inode)
    if (!inode) made.push(whiteout(rawPath))
    else if (name)
      links.push({ ...inode, rawPath, type: 'hardlink', size: 0, rawLinkname: name })
    else {
      if (inode.type !== 'directory') names.set(inode, rawPath)
      const entry: LayerEntry = { ...inode, rawPath }
      if (inode.size > 0) wanted.add(inode, entry)
      else made.push(entry)
    }
  }
  return { made, wanted, links }
}

function whiteout(rawPath: Buffer): LayerEntry {
  return { rawPath, type: 'whiteout', mode: 0, uid: 0, gid: 0, size: 0, mtime: 0n }
}
