// Node's own zlib, called directly: Node exports its symbols.
import type { Inflater } from './inflater.ts'
import {
  addressOf,
  bind,
  NativeMemory,
  outputSize,
  Refusal,
  unsupported,
  type Room,
} from './native.ts'

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
const dataError = -3
const memoryError = -4
const bufferError = -5
const gzipOnly = 15 + 16

let zlib: Zlib | undefined

/** @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_PLATFORM where this build of Node has no zlib to call */
export function createZlibInflater(subject: string): Inflater {
  zlib ??= bindZlib(subject)
  return new ZlibInflater(zlib, subject)
}

class ZlibInflater implements Inflater {
  readonly #zlib: Zlib
  readonly #stream = new NativeMemory(streamSize)
  #ended = false

  constructor(zlib: Zlib, subject: string) {
    this.#zlib = zlib
    const version = zlib.version()
    const status = zlib.init(this.#stream.bytes, gzipOnly, version, streamSize)
    if (status !== ok)
      throw unsupported(subject, `zlib ${String(version)} refuses: ${String(status)}`)
  }

  get left(): number {
    return this.#stream.halves[availIn] ?? 0
  }

  get ended(): boolean {
    return this.#ended
  }

  reset(): void {
    this.#zlib.reset(this.#stream.bytes)
    this.#ended = false
  }

  give(chunk: Buffer, at: number, length: number): void {
    this.#stream.words[nextIn] = addressOf(chunk) + BigInt(at)
    this.#stream.halves[availIn] = length
  }

  run(room: Room): number {
    const { words, halves, bytes } = this.#stream
    words[nextOut] = room.address
    halves[availOut] = outputSize
    const status = this.#zlib.inflate(bytes, noFlush)
    if (status !== ok && status !== streamEnd && status !== bufferError)
      throw new Refusal(reasonOf(status))
    this.#ended = status === streamEnd
    return outputSize - halves[availOut]
  }

  close(): void {
    this.#zlib.end(this.#stream.bytes)
  }
}

function reasonOf(status: unknown): string {
  if (status === memoryError) return 'zlib ran out of memory'
  return status === dataError ? 'it is corrupt' : `zlib says ${String(status)}`
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
