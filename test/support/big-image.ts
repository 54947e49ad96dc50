// Makes images whose layers have far more entries than would fit into a test's memory: the tar is made in pieces, and
// compressed and hashed as it comes.
import { createHash } from 'node:crypto'
import { finished } from 'node:stream/promises'
import { constants, createGzip, createZstdCompress } from 'node:zlib'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { toDigest } from '../../lib/oci/digest.ts'
import { appendLayer, encodeDraft, newImage } from '../../lib/oci/image-draft.ts'
import { layerMediaType } from '../../lib/oci/media-type.ts'
import { hostPlatform } from '../../lib/oci/platform.ts'
import { tarBytes, type TarMember } from './tar-builder.ts'

/** Pieces of a tar, without the zeros at its end. */
export type TarPieces = Iterable<Uint8Array>

const pieceEntries = 128

/**
 * Headers of entries that are alike but for name and link target, which may have up to 100 bytes; far faster than
 * making each by itself.
 */
export function* alike(
  member: TarMember,
  count: number,
  nameOf: (index: number) => string,
  linknameOf?: (index: number) => string,
): Generator<Buffer, void, undefined> {
  const template = tarBytes([{ ...member, name: '', linkname: '' }], { end: false })
  const size = template.length
  for (let from = 0; from < count; from += pieceEntries) {
    const entries = Math.min(pieceEntries, count - from)
    const piece = Buffer.alloc(entries * size)
    for (let i = 0; i < entries; i++) {
      const at = i * size
      template.copy(piece, at)
      let sum = 8 * 0x20
      sum += piece.write(nameOf(from + i), at, 100, 'latin1') * 0
      if (linknameOf) piece.write(linknameOf(from + i), at + 157, 100, 'latin1')
      for (let j = at; j < at + 148; j++) sum += piece[j] as number
      for (let j = at + 156; j < at + 512; j++) sum += piece[j] as number
      piece.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148, 'latin1')
    }
    yield piece
  }
}

/** Zeros for the body of a file. */
export function* zeros(bytes: number): Generator<Buffer, void, undefined> {
  const piece = Buffer.alloc(1 << 20)
  for (let rest = bytes; rest > 0; rest -= piece.length)
    yield rest < piece.length ? piece.subarray(0, rest) : piece
}

/** Puts an image of such layers into a new layout. Returns `path:tag` and the sizes of the blobs. */
export async function makeBigImage(
  path: string,
  layers: readonly TarPieces[],
  compression: 'gzip' | 'zstd' = 'gzip',
): Promise<{ image: string; sizes: number[] }> {
  const layout = await ImageLayout.create(path)
  const sizes: number[] = []
  try {
    let draft = newImage({ platform: hostPlatform(), created: '2026-01-01T00:00:00Z' })
    for (const pieces of layers) {
      const blob = await layout.createBlob()
      const hash = createHash('sha256')
      const compressor =
        compression === 'gzip'
          ? createGzip({ level: 9 })
          : createZstdCompress({
              params: {
                [constants.ZSTD_c_compressionLevel]: 15,
                [constants.ZSTD_c_windowLog]: 23,
              },
            })
      const written = (async () => {
        for await (const chunk of compressor) await blob.write(chunk as Buffer)
      })()
      const write = async (piece: Uint8Array): Promise<void> => {
        hash.update(piece)
        if (!compressor.write(piece))
          await new Promise<void>(resolve => compressor.once('drain', resolve))
      }
      for (const piece of pieces) await write(piece)
      await write(Buffer.alloc(1024))
      compressor.end()
      await finished(compressor, { readable: false })
      await written
      const { digest, size } = await blob.commit(layerMediaType(compression))
      sizes.push(size)
      const diffID = toDigest('sha256', hash.digest('hex'))
      draft = appendLayer(draft, { digest, size, compression, diffID }, { created_by: 'test' })
    }
    const encoded = encodeDraft(draft)
    await layout.putBlob(encoded.config.bytes, encoded.config.descriptor.mediaType)
    await layout.putBlob(encoded.manifest.bytes, encoded.manifest.descriptor.mediaType)
    await layout.setRef('big', encoded.manifest.descriptor)
    return { image: `${path}:big`, sizes }
  } finally {
    await layout.close()
  }
}
