// Compression of a new layer: gzip on all cores, zstd, or none. What comes out depends on nothing but the bytes that
// went in and the level: not on how these were cut, nor on how many cores there are.
import { availableParallelism } from 'node:os'
import { createError } from '../errors.ts'
import type { Compression } from '../oci/media-type.ts'
import { BlockCompressor } from './block-compressor.ts'
import { gzipCodec } from './gzip.ts'
import { zstdCodec } from './zstd.ts'

/** Takes plain bytes and hands the compressed ones to a sink. One call at a time: await each. */
export interface Compressor {
  /** Resolves when more may come; the chunk may be used again then. */
  write(chunk: Buffer): Promise<void>
  /** Resolves when everything is compressed and the sink has taken it. Once only. */
  end(): Promise<void>
}

/** Gets compressed bytes, never a second time before what it returned has settled; the chunk is valid until then. */
export type CompressedSink = (chunk: Buffer) => Promise<void> | void

/** How hard, and on how many cores. */
export interface CompressorOptions {
  /** How many blocks of gzip are compressed at the same time. @default os.availableParallelism() */
  readonly concurrency?: number
  /** 0 to 9 for gzip, 1 to 19 for zstd. @default 6 for gzip, 3 for zstd */
  readonly level?: number
}

/**
 * Makes a compressor: one gzip member, one zstd frame with a checksum, or the bytes as they are.
 *
 * Memory is bounded: a few MiB for each core. The first error, whether the sink's or another, is thrown by the call
 * that meets it and by every later one. A compressor that is no longer wanted is simply dropped.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION
 */
export function createCompressor(
  compression: Compression,
  sink: CompressedSink,
  options: CompressorOptions = {},
): Compressor {
  const concurrency = options.concurrency ?? availableParallelism()
  expectWithin('concurrency', concurrency, 1, 1024)
  switch (compression) {
    case 'none':
      return { write: async chunk => sink(chunk), end: async () => {} }
    case 'gzip': {
      const level = options.level ?? 6
      expectWithin('gzip level', level, 0, 9)
      return new BlockCompressor(gzipCodec(level), sink, concurrency)
    }
    case 'zstd': {
      const level = options.level ?? 3
      expectWithin('zstd level', level, 1, 19)
      return new BlockCompressor(zstdCodec(level), sink, 1)
    }
  }
}

function expectWithin(subject: string, value: number, least: number, most: number): void {
  if (Number.isInteger(value) && value >= least && value <= most) return
  const reason = `${value} is not a whole number from ${least} to ${most}`
  throw createError('INVALID_OPTION', { subject, reason })
}
