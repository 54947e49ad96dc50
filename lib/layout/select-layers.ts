// Which layers of an image are meant: by their numbers, or from one on that is named by its digest.
import { createError } from '../errors.ts'
import { chainIDs } from '../oci/chain-id.ts'
import type { LayerRange } from '../oci/image-draft.ts'
import type { Digest } from '../oci/digest.ts'
import type { ResolvedImage, ResolvedLayer } from './resolved-image.ts'

/** Some layers that follow one another; 0 is the base, both ends belong to them. Without anything: all. */
export interface LayerSelection {
  readonly first?: number | undefined
  readonly last?: number | undefined
  /** Instead of `first`: the digest or the DiffID of a layer, or the beginning of one. */
  readonly from?: string | undefined
}

/**
 * Finds the selected layers of an image.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION if it doesn't have them, or has several of that name
 */
export function selectLayers(
  layers: readonly Pick<ResolvedLayer, 'descriptor' | 'diffID'>[],
  { first = 0, last = layers.length - 1, from }: LayerSelection,
): LayerRange {
  if (from !== undefined) return { first: findLayer(layers, from), last: layers.length - 1 }
  if (first <= last && last < layers.length) return { first, last }
  const has = layers.length === 0 ? 'no layers' : `layers 0 to ${layers.length - 1}, base first`
  throw createError('INVALID_OPTION', {
    subject: first >= last ? `layer ${first}` : `layers ${first} to ${last}`,
    reason: `the image has ${has}`,
  })
}

/** The image as if it had the selected layers only: ChainIDs are those of what is there then. */
export function withLayers<I extends Pick<ResolvedImage, 'layers'>>(
  image: I,
  selection: LayerSelection | undefined,
): I & { readonly selected?: LayerRange | undefined } {
  if (selection === undefined) return image
  const selected = selectLayers(image.layers, selection)
  const layers = image.layers.slice(selected.first, selected.last + 1)
  if (layers.length === image.layers.length) return image
  const chain = chainIDs(layers.map(({ diffID }) => diffID))
  return {
    ...image,
    selected,
    layers: layers.map((layer, at) => ({ ...layer, chainID: chain[at] as Digest })),
  }
}

const shortest = 6

function findLayer(
  layers: readonly Pick<ResolvedLayer, 'descriptor' | 'diffID'>[],
  wanted: string,
): number {
  const subject = `layer ${wanted}`
  const encoded = wanted.replace(/^sha\d+:/, '')
  if (encoded.length < shortest || !/^[0-9a-f]+$/.test(encoded))
    throw createError('INVALID_OPTION', {
      subject,
      reason: `give a digest, or its first ${shortest} digits or more`,
    })
  const isMeant = (digest: string): boolean =>
    digest.startsWith(wanted) || digest.slice(digest.indexOf(':') + 1).startsWith(wanted)
  const found = layers.flatMap(({ descriptor, diffID }, at) =>
    isMeant(descriptor.digest) || isMeant(diffID) ? [at] : [],
  )
  const [only, second] = found
  if (only !== undefined && second === undefined) return only
  throw createError('INVALID_OPTION', {
    subject,
    reason:
      only === undefined
        ? 'the image has no such layer - koci stat shows them'
        : `it could be any of layers ${found.join(', ')} - select by number`,
  })
}
