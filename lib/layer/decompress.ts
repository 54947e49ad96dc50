// Decompression for worker threads: synchronous, piece by piece, output bounded, nothing after the data let through.
import type { Compression } from '../oci/media-type.ts'
import { GzipDecompressor } from './gunzip.ts'
import type { InflaterName } from './inflater.ts'
import { makeRoom, type Room } from './native.ts'
import { ZstdDecompressor } from './unzstd.ts'

/** Takes compressed bytes and hands the plain ones to a sink, all within the call. */
export interface Decompressor {
  /** Takes the next piece; every byte of it that can be decompressed goes to the sink before this returns. */
  push(chunk: Buffer): void
  /** Says that there is no more; throws where the data is incomplete. */
  end(): void
  /** Frees memory that the garbage collector doesn't know of. Call it always, also after errors; twice does no harm. */
  close(): void
}

/** Gets plain bytes. The chunk is reused: it is valid only during the call. At most 256 KiB, unless uncompressed. */
export type Sink = (chunk: Buffer) => void

/**
 * Makes a decompressor for a layer whose media type says `compression`; what the bytes look like is never guessed.
 * `room` says where the next plain bytes are to be put, if not always in the same place; `none` doesn't ask.
 * `inflater` names what inflates gzip, if not the fastest that is there.
 *
 * Checked are checksums, lengths, truncation, and that nothing follows: only gzip may be followed by zeros. Members
 * of gzip and frames of zstd may follow each other, but at most 100,000 empty ones. zstd windows end at 128 MiB.
 * After an error every further `push` or `end` throws the same error.
 * @throws {FormatError} ERR_KOCI_BAD_COMPRESSION
 * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED
 * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_PLATFORM where this build of Node has no zlib or zstd to call
 */
export function createDecompressor(
  compression: Compression,
  sink: Sink,
  options: { subject?: string; room?: () => Room; inflater?: InflaterName | undefined } = {},
): Decompressor {
  const { subject = 'layer', room = makeRoom(), inflater } = options
  switch (compression) {
    case 'none':
      return { push: sink, end() {}, close() {} }
    case 'gzip':
      return new GzipDecompressor(sink, subject, room, inflater)
    case 'zstd':
      return new ZstdDecompressor(sink, subject, room)
  }
}
