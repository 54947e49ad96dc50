// A layer's uncompressed bytes as a stream for middleware authors. The engine doesn't come this way: it reads
// blobs in workers, synchronously.
import { createHash } from 'node:crypto'
import { createError, wrapError } from '../errors.ts'
import { openRegular, readFrom, type BlobLocation } from '../layout/regular-file.ts'
import { algorithmOf, toDigest, type Digest } from '../oci/digest.ts'
import type { Compression } from '../oci/media-type.ts'
import { createDecompressor } from './decompress.ts'
import type { Layer } from './layer.ts'

const pieceSize = 1 << 20
const biteSize = 16 << 10

/**
 * Yields the uncompressed tar of a layer; the consumer owns each piece.
 * Fails at the end with ERR_KOCI_DIGEST_MISMATCH or ERR_KOCI_DIFF_ID_MISMATCH if the bytes weren't the promised ones;
 * a replaced source is held to the DiffID alone.
 */
export async function* openLayer(layer: Layer): AsyncGenerator<Buffer, void, undefined> {
  const subject = `layer ${layer.digest}`
  const { source } = layer
  const compressed = source ? source.open() : readPieces(await layer.locateBlob(), subject)
  const blobHash = createHash(algorithmOf(layer.digest))
  const tarHash = createHash(algorithmOf(layer.diffID))
  let pieces: Buffer[] = []
  const compression: Compression = source?.compression ?? layer.compression
  const decompressor = createDecompressor(
    compression,
    piece => {
      pieces.push(Buffer.from(piece))
    },
    { subject },
  )
  try {
    for await (const chunk of compressed) {
      blobHash.update(chunk)
      // small bites: what one of them inflates to is held in memory, and a bomb makes a thousandfold of it
      for (let at = 0; at < chunk.byteLength; at += biteSize) {
        const length = Math.min(biteSize, chunk.byteLength - at)
        decompressor.push(Buffer.from(chunk.buffer, chunk.byteOffset + at, length))
        yield* hashed()
      }
    }
    decompressor.end()
    yield* hashed()
  } finally {
    decompressor.close()
  }

  if (!source) expectDigest('DIGEST_MISMATCH', layer.digest, blobHash.digest('hex'))
  expectDigest('DIFF_ID_MISMATCH', layer.diffID, tarHash.digest('hex'))

  function* hashed(): Generator<Buffer, void, undefined> {
    const ready = pieces
    pieces = []
    for (const piece of ready) {
      tarHash.update(piece)
      yield piece
    }
  }

  function expectDigest(
    name: 'DIGEST_MISMATCH' | 'DIFF_ID_MISMATCH',
    expected: Digest,
    encoded: string,
  ): void {
    const found = toDigest(algorithmOf(expected), encoded)
    if (found !== expected) throw createError(name, { subject, found, expected })
  }
}

async function* readPieces(
  { path, offset, size }: BlobLocation,
  subject: string,
): AsyncGenerator<Buffer, void, undefined> {
  const file = await openRegular(path, subject)
  if (!file) throw createError('BLOB_NOT_FOUND', { subject, layout: path })
  try {
    for (let at = 0; at < size;) {
      const piece = await readFrom(file.handle, offset + at, Math.min(pieceSize, size - at))
      if (piece.length === 0)
        throw createError('SIZE_MISMATCH', { subject, found: at, expected: size })
      at += piece.length
      yield piece
    }
  } catch (error) {
    throw wrapError(error, subject)
  } finally {
    await file.handle.close()
  }
}
