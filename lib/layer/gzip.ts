// One gzip member from blocks that are compressed independently: each ends on a byte, and starts with the end of the
// block before it as dictionary, so that little is lost. Any gunzip reads it.
import { promisify } from 'node:util'
import { constants, crc32, deflateRaw, type InputType, type ZlibOptions } from 'node:zlib'
import type { Codec } from './block-compressor.ts'

const windowSize = 32 * 1024
const deflate = promisify<InputType, ZlibOptions, Buffer>(deflateRaw)

/** No name, no time, system "unknown": nothing of where and when it was made. */
const header = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])

/** gzip at this level. */
export function gzipCodec(level: number): Codec {
  let sum = 0
  let length = 0
  return {
    header,
    block(block, before, isLast) {
      sum = crc32(block, sum)
      length += block.length
      return deflate(block, {
        level,
        windowBits: 15,
        memLevel: 8,
        strategy: constants.Z_DEFAULT_STRATEGY,
        chunkSize: 256 * 1024,
        finishFlush: isLast ? constants.Z_FINISH : constants.Z_SYNC_FLUSH,
        ...(before ? { dictionary: before.subarray(-windowSize) } : {}),
      })
    },
    trailer() {
      const trailer = Buffer.alloc(8)
      trailer.writeUInt32LE(sum, 0)
      trailer.writeUInt32LE(length % 2 ** 32, 4)
      return trailer
    },
  }
}
