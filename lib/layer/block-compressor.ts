// The part that gzip and zstd have in common: input is gathered into blocks of one size, blocks are compressed, several
// at a time where the format allows it, and handed on in order.
import { wrapError } from '../errors.ts'
import type { CompressedSink, Compressor } from './compress.ts'

/** A format. Blocks are given in order, each only once those before it were given, not finished. */
export interface Codec {
  /** What comes before the first block. */
  readonly header: Buffer
  /**
   * Compresses a block, which nobody writes to any more; `before` is the block in front of it. The last one may be
   * shorter, or empty.
   */
  block(block: Buffer, before: Buffer | undefined, isLast: boolean): Promise<Buffer>
  /** What comes behind the last block. */
  trailer(): Buffer
}

const blockSize = 1 << 20

/** Compresses blocks of 1 MiB, `concurrency` at a time. */
export class BlockCompressor implements Compressor {
  readonly #codec: Codec
  readonly #sink: CompressedSink
  readonly #concurrency: number
  readonly #queue: Promise<Buffer>[] = []
  #block = Buffer.allocUnsafeSlow(blockSize)
  #filled = 0
  #before: Buffer | undefined
  #started = false
  #failure: { error: unknown } | undefined

  constructor(codec: Codec, sink: CompressedSink, concurrency: number) {
    this.#codec = codec
    this.#sink = sink
    this.#concurrency = concurrency
  }

  async write(chunk: Buffer): Promise<void> {
    if (this.#failure) throw this.#failure.error
    for (let at = 0; at < chunk.length;) {
      const taken = chunk.copy(this.#block, this.#filled, at)
      this.#filled += taken
      at += taken
      if (this.#filled === blockSize) await this.#flush(false)
    }
  }

  async end(): Promise<void> {
    if (this.#failure) throw this.#failure.error
    await this.#flush(true)
    await this.#drain(0)
    await this.#hand(this.#codec.trailer())
  }

  async #flush(isLast: boolean): Promise<void> {
    const block = this.#block.subarray(0, this.#filled)
    const compressed = this.#codec.block(block, this.#before, isLast)
    // It may fail long before its turn comes.
    compressed.catch(() => {})
    this.#queue.push(compressed)
    this.#before = block
    this.#filled = 0
    if (!isLast) this.#block = Buffer.allocUnsafeSlow(blockSize)
    if (!this.#started) {
      this.#started = true
      await this.#hand(this.#codec.header)
    }
    await this.#drain(this.#concurrency)
  }

  /** Hands the oldest on until no more than `most` are under way. */
  async #drain(most: number): Promise<void> {
    for (let next = this.#queue[0]; next && this.#queue.length > most; next = this.#queue[0]) {
      const compressed = await this.#guard(next)
      void this.#queue.shift()
      await this.#hand(compressed)
    }
  }

  async #hand(chunk: Buffer): Promise<void> {
    if (chunk.length === 0) return
    try {
      await this.#sink(chunk)
    } catch (error) {
      this.#failure = { error }
      throw error
    }
  }

  async #guard(work: Promise<Buffer>): Promise<Buffer> {
    try {
      return await work
    } catch (error) {
      this.#failure = { error: wrapError(error, 'compression') }
      throw this.#failure.error
    }
  }
}
