// zstd through the library within Node, called directly. It checks frames, lengths and checksums;
// what is left to see here is whether the last frame is complete.
import { createError } from '../errors.ts'
import type { Decompressor, Sink } from './decompress.ts'
import {
  addressOf,
  bind,
  closed,
  countEmpty,
  NativeMemory,
  outputSize,
  unsupported,
  type Room,
} from './native.ts'
import { looksLike } from './sniff.ts'

type Zstd = ReturnType<typeof bindZstd>

// ZSTD_inBuffer and ZSTD_outBuffer: address, size, position.
const address = 0
const size = 1
const position = 2

const maxWindowLog = 27
const windowLogMax = 100
const unknownPrefix = -10
const windowTooLarge = -16

let zstd: Zstd | undefined

/** Decompresses zstd frames, each behind the other, skippable ones among them. */
export class ZstdDecompressor implements Decompressor {
  readonly #sink: Sink
  readonly #subject: string
  readonly #zstd: Zstd
  readonly #context: unknown
  readonly #input = new NativeMemory(24)
  readonly #buffer = new NativeMemory(24)
  readonly #room: () => Room
  #state: 'first' | 'frame' | 'between' = 'first'
  #frameHasBytes = false
  #emptyFrames = 0
  #failure: { error: unknown } | undefined
  #open = true

  constructor(sink: Sink, subject: string, room: () => Room) {
    this.#sink = sink
    this.#room = room
    this.#subject = subject
    this.#zstd = zstd ??= bindZstd(subject)
    this.#context = this.#zstd.create()
    if (!this.#context) throw unsupported(subject, 'zstd has no memory')
    this.#zstd.setParameter(this.#context, windowLogMax, maxWindowLog)
    this.#buffer.words[size] = BigInt(outputSize)
  }

  push(chunk: Buffer): void {
    if (this.#failure) throw this.#failure.error
    try {
      if (chunk.length > 0) this.#take(chunk)
    } catch (error) {
      this.#failure = { error }
      throw error
    }
  }

  end(): void {
    if (this.#failure) throw this.#failure.error
    if (this.#state === 'first') throw this.#bad('it is empty')
    if (this.#state === 'frame') throw this.#bad('it is truncated')
  }

  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#failure ??= { error: closed(this.#subject) }
    this.#zstd.free(this.#context)
  }

  #take(chunk: Buffer): void {
    const input = this.#input.words
    input[address] = addressOf(chunk)
    input[size] = BigInt(chunk.length)
    input[position] = 0n
    let full: boolean
    do {
      const room = this.#room()
      this.#buffer.words[address] = room.address
      this.#buffer.words[position] = 0n
      const left = Number(
        this.#zstd.decompress(this.#context, this.#buffer.bytes, this.#input.bytes),
      )
      if (left < 0) throw this.#refused(left, chunk)
      const produced = Number(this.#buffer.words[position])
      this.#frameHasBytes ||= produced > 0
      if (produced > 0) this.#sink(room.bytes.subarray(0, produced))
      if (!this.#open) throw closed(this.#subject)
      if (left > 0) this.#state = 'frame'
      else this.#endFrame()
      full = left > 0 && produced === outputSize
    } while (full || Number(input[position]) < chunk.length)
  }

  #endFrame(): void {
    this.#state = 'between'
    if (!this.#frameHasBytes) this.#emptyFrames = countEmpty(this.#subject, this.#emptyFrames)
    this.#frameHasBytes = false
  }

  #refused(status: number, chunk: Buffer): Error {
    if (status === windowTooLarge)
      return createError('LIMIT_EXCEEDED', {
        subject: this.#subject,
        limit: 'window of the zstd data',
        value: 'it is larger',
        maximum: `${2 ** maxWindowLog} bytes`,
      })
    if (status !== unknownPrefix) return this.#bad(String(this.#zstd.errorName(status)))
    return this.#bad(
      this.#state === 'first'
        ? `it is not zstd${looksLike(chunk)}`
        : 'something follows its end',
    )
  }

  #bad(reason: string): Error {
    return createError('BAD_COMPRESSION', { subject: this.#subject, format: 'zstd', reason })
  }
}

function bindZstd(subject: string) {
  return bind(subject, {
    create: ['ZSTD_createDCtx', 'void *'],
    free: ['ZSTD_freeDCtx', 'size_t', 'void *'],
    setParameter: ['ZSTD_DCtx_setParameter', 'size_t', 'void *', 'int', 'int'],
    // A size_t that tells an error by a small negative number.
    decompress: ['ZSTD_decompressStream', 'int64', 'void *', 'void *', 'void *'],
    errorName: ['ZSTD_getErrorName', 'const char *', 'int64'],
  })
}
