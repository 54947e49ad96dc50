// Entries become a blob of the layout: tar, hash, compress on all cores, hash, store. One pass, bounded memory.
import { createHash } from 'node:crypto'
import { createError } from '../errors.ts'
import type { ImageLayout } from '../layout/image-layout.ts'
import { toDigest } from '../oci/digest.ts'
import type { NewLayer } from '../oci/image-draft.ts'
import { layerFormat, layerMediaType, type Compression } from '../oci/media-type.ts'
import type { Manifest } from '../oci/manifest.ts'
import { parseSourceDate } from '../oci/source-date.ts'
import { printable } from '../text.ts'
import { createCompressor } from './compress.ts'
import { writeLayer, type LayerEntry } from './layer-writer.ts'

/** A compression, or `auto`: the compressed one that the newest layer of the image has, else gzip. */
export type Compress = Compression | 'auto'

/**
 * Writes a layer into the layout. The same entries give the same bytes, at any concurrency.
 * Modification times after SOURCE_DATE_EPOCH, if it is set, become that.
 * @throws {FormatError} ERR_KOCI_INVALID_ENTRY for a hard link to what isn't an earlier entry, and as `writeLayer`
 */
export function writeLayerBlob(
  layout: ImageLayout,
  entries: AsyncIterable<LayerEntry>,
  compression: Compression,
): Promise<NewLayer> {
  const sourceDate = parseSourceDate(process.env['SOURCE_DATE_EPOCH'])
  return storeLayer(layout, compression, async sink => {
    await writeLayer(
      withTargets(entries),
      sink,
      sourceDate === undefined ? {} : { clampTime: BigInt(sourceDate) * 1_000_000_000n },
    )
  })
}

/** Writes the bytes of a tar, whatever they are, as a layer into the layout: `write` gives them to its sink. */
export async function storeLayer(
  layout: ImageLayout,
  compression: Compression,
  write: (sink: (chunk: Buffer) => Promise<void> | void) => Promise<void>,
): Promise<NewLayer> {
  const blob = await layout.createBlob()
  try {
    const hash = createHash('sha256')
    const compressor = createCompressor(compression, chunk => blob.write(chunk))
    let uncompressedSize = 0
    await write(chunk => {
      hash.update(chunk)
      uncompressedSize += chunk.length
      return compressor.write(chunk)
    })
    await compressor.end()
    const { digest, size } = await blob.commit(layerMediaType(compression))
    const diffID = toDigest('sha256', hash.digest('hex'))
    return { digest, size, compression, diffID, uncompressedSize }
  } catch (error) {
    await blob.abort()
    throw error
  }
}

/** Middleware may have dropped a file that others are links to: nobody could extract such a layer. */
async function* withTargets(
  entries: AsyncIterable<LayerEntry>,
): AsyncGenerator<LayerEntry, void, undefined> {
  const names = new Set<string>()
  for await (const entry of entries) {
    const { type, rawPath, rawLinkname = rawPath } = entry
    if (type === 'hardlink' && !names.has(rawLinkname.toString('latin1')))
      throw createError('INVALID_ENTRY', {
        subject: rawPath,
        reason: `it is a link to ${printable(rawLinkname)}, which isn't in the layer before it`,
      })
    if (type !== 'directory') names.add(rawPath.toString('latin1'))
    yield entry
  }
}

/** What `auto` means for an image: newest to oldest, the first layer that is compressed. */
export function chooseCompression(compress: Compress, manifest: Manifest): Compression {
  if (compress !== 'auto') return compress
  for (const { mediaType } of manifest.layers.toReversed()) {
    const { compression } = layerFormat(mediaType)
    if (compression !== 'none') return compression
  }
  return 'gzip'
}
