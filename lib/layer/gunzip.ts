// gzip through Node's own zlib, called directly. zlib checks the header, checksum and length of each member;
// what comes between and after the members is checked here.
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

type Zlib = ReturnType<typeof bindZlib>

// z_stream where pointers and longs have 64 bits: places in words of 8 bytes, or of 4 for the uInts.
const streamSize = 112
const nextIn = 0
const availIn = 2
const nextOut = 3
const availOut = 8

const noFlush = 0
const ok = 0
const streamEnd = 1
const bufferError = -5
const memoryError = -4
const gzipOnly = 15 + 16
const maxInput = 2 ** 30
const magic = 0x1f

let zlib: Zlib | undefined

/** Decompresses gzip members, each behind the other; after the last one zeros are allowed, as tapes are padded. */
export class GzipDecompressor implements Decompressor {
  readonly #sink: Sink
  readonly #subject: string
  readonly #zlib: Zlib
  readonly #stream = new NativeMemory(streamSize)
  readonly #room: () => Room
  #state: 'first' | 'member' | 'between' | 'zeros' = 'first'
  #memberHasBytes = false
  #emptyMembers = 0
  #failure: { error: unknown } | undefined
  #open = true

  constructor(sink: Sink, subject: string, room: () => Room) {
    this.#sink = sink
    this.#room = room
    this.#subject = subject
    this.#zlib = zlib ??= bindZlib(subject)
    const version = this.#zlib.version()
    const status = this.#zlib.init(this.#stream.bytes, gzipOnly, version, streamSize)
    if (status !== ok)
      throw unsupported(subject, `zlib ${String(version)} refuses: ${String(status)}`)
  }

  push(chunk: Buffer): void {
    if (this.#failure) throw this.#failure.error
    try {
      this.#take(chunk)
    } catch (error) {
      this.#failure = { error }
      throw error
    }
  }

  end(): void {
    if (this.#failure) throw this.#failure.error
    if (this.#state === 'first') throw this.#bad('it is empty')
    if (this.#state === 'member') throw this.#bad('it is truncated')
  }

  close(): void {
    if (!this.#open) return
    this.#open = false
    this.#failure ??= { error: closed(this.#subject) }
    this.#zlib.end(this.#stream.bytes)
  }

  #take(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#state === 'zeros') {
        this.#expectZeros(chunk, at)
        return
      }
      if (this.#state !== 'member') this.#startMember(chunk, at)
      else at = this.#inflate(chunk, at)
    }
  }

  #startMember(chunk: Buffer, at: number): void {
    if (chunk[at] === magic) {
      this.#zlib.reset(this.#stream.bytes)
      this.#memberHasBytes = false
      this.#state = 'member'
    } else if (this.#state === 'first') throw this.#bad(`it is not gzip${looksLike(chunk)}`)
    else this.#state = 'zeros'
  }

  /** Inflates until the chunk is used up and everything it holds is out, or the member ends. */
  #inflate(chunk: Buffer, at: number): number {
    const { words, halves, bytes } = this.#stream
    words[nextIn] = addressOf(chunk) + BigInt(at)
    const given = Math.min(chunk.length - at, maxInput)
    halves[availIn] = given
    let status: unknown
    do {
      const room = this.#room()
      words[nextOut] = room.address
      halves[availOut] = outputSize
      status = this.#zlib.inflate(bytes, noFlush)
      if (status !== ok && status !== streamEnd && status !== bufferError)
        throw this.#refused(status)
      const produced = outputSize - halves[availOut]
      if (produced > 0) {
        this.#memberHasBytes = true
        this.#sink(room.bytes.subarray(0, produced))
        if (!this.#open) throw closed(this.#subject)
      }
    } while (status === ok && (halves[availIn] > 0 || halves[availOut] === 0))
    if (status === streamEnd) this.#endMember()
    return at + given - halves[availIn]
  }

  #endMember(): void {
    this.#state = 'between'
    if (!this.#memberHasBytes)
      this.#emptyMembers = countEmpty(this.#subject, this.#emptyMembers)
  }

  #expectZeros(chunk: Buffer, at: number): void {
    for (let index = at; index < chunk.length; index++)
      if (chunk[index] !== 0) throw this.#bad('something follows its end')
  }

  #refused(status: unknown): Error {
    if (status === memoryError) return this.#bad('zlib ran out of memory')
    return this.#bad(status === -3 ? 'it is corrupt' : `zlib says ${String(status)}`)
  }

  #bad(reason: string): Error {
    return createError('BAD_COMPRESSION', { subject: this.#subject, format: 'gzip', reason })
  }
}

function bindZlib(subject: string) {
  return bind(subject, {
    version: ['zlibVersion', 'const char *'],
    init: ['inflateInit2_', 'int', 'void *', 'int', 'const char *', 'int'],
    inflate: ['inflate', 'int', 'void *', 'int'],
    reset: ['inflateReset', 'int', 'void *'],
    end: ['inflateEnd', 'int', 'void *'],
  })
}
