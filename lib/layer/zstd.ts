// One zstd frame with a checksum, through node:zlib's stream. The stream must never see a block together with the end of
// the input: it would then choose another kind of frame.
import { constants, createZstdCompress, type ZstdCompress } from 'node:zlib'
import type { Codec } from './block-compressor.ts'

/** zstd at this level. Its blocks must be given one at a time. */
export function zstdCodec(level: number): Codec {
  const stream = createZstdCompress({
    chunkSize: 256 * 1024,
    params: {
      [constants.ZSTD_c_compressionLevel]: level,
      [constants.ZSTD_c_checksumFlag]: 1,
    },
  })
  const pieces: Buffer[] = []
  stream.on('data', (piece: Buffer) => pieces.push(piece))
  // Whoever waits is told.
  stream.on('error', () => {})
  return {
    header: Buffer.alloc(0),
    async block(block, _before, isLast) {
      if (block.length > 0) await written(stream, block)
      if (isLast) await ended(stream)
      return Buffer.concat(pieces.splice(0))
    },
    trailer: () => Buffer.alloc(0),
  }
}

function written(stream: ZstdCompress, block: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(block, error => (error ? reject(error) : resolve()))
  })
}

function ended(stream: ZstdCompress): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.once('end', resolve).once('error', reject).end()
  })
}
