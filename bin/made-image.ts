// What commands that make an image print of it as JSON.
import type { ResolvedImage } from '../lib/layout/resolved-image.ts'

/** Its tag, its manifest, and its layers, base first. */
export function madeImage(image: ResolvedImage): object {
  const { mediaType, digest, size } = image.descriptor
  return {
    tag: image.refName,
    manifest: { mediaType, digest, size },
    layers: image.layers.map(({ descriptor, diffID }) => ({
      digest: descriptor.digest,
      diffID,
    })),
  }
}
