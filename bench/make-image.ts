// An image from entries, made with koci's own writer: gzip layers, one after the other.
import type { Layer } from '../lib/layer/layer.ts'
import type { LayerEntry } from '../lib/layer/layer-writer.ts'
import { writeLayerBlob } from '../lib/layer/write-layer-blob.ts'
import { createImage } from '../lib/layout/create-image.ts'
import { ImageLayout } from '../lib/layout/image-layout.ts'
import { commitImage } from '../lib/layout/commit-image.ts'
import { layersOf } from '../lib/unpack.ts'

/** A layer to be made. */
export interface LayerRecipe {
  readonly name: string
  readonly entries: () => Iterable<LayerEntry>
}

/** A layer that was made. Bytes. */
export interface MadeLayer {
  readonly name: string
  readonly entries: number
  /** Of the uncompressed tar. */
  readonly bytes: number
  /** Of the blob. */
  readonly compressed: number
}

/** Makes an image without layers in a new layout. */
export async function makeLayout(directory: string, refName: string): Promise<ImageLayout> {
  const layout = await ImageLayout.create(directory)
  await createImage(layout, refName)
  return layout
}

/** Puts a layer on top of the image. */
export async function addLayer(
  layout: ImageLayout,
  refName: string,
  { name, entries }: LayerRecipe,
): Promise<MadeLayer> {
  let count = 0
  // the writer wants to wait for entries; these are always there
  // eslint-disable-next-line typescript/require-await
  async function* counted(): AsyncGenerator<LayerEntry> {
    for (const entry of entries()) {
      count += 1
      yield entry
    }
  }
  const layer = await writeLayerBlob(layout, counted(), 'gzip')
  const image = { layout, ...(await layout.resolve(refName)) }
  await commitImage(image, refName, layer, { createdBy: name })
  const { uncompressedSize = 0, size } = layer
  return { name, entries: count, bytes: uncompressedSize, compressed: size }
}

/** The layers of an image, base first, to be read while `use` runs. */
export async function withLayers<T>(
  directory: string,
  refName: string,
  use: (layers: Layer[]) => Promise<T>,
): Promise<T> {
  await using layout = await ImageLayout.open(directory)
  return await use(layersOf({ layout, ...(await layout.resolve(refName)) }))
}

/** The paths of the blobs of an image's layers, base first. */
export function blobsOf(directory: string, refName: string): Promise<string[]> {
  return withLayers(directory, refName, async layers => {
    const located = await Promise.all(layers.map(layer => layer.locateBlob()))
    return located.map(({ path }) => path)
  })
}
