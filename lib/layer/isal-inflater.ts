// Intel's ISA-L (libisal.so.2; Debian: libisal2), where the system has it. Its state is a structure in our memory, and it
// has no function that tells its version or asks for gzip: so before it is trusted it has to show that it inflates, that
// it finds the end of a member, and that it refuses a wrong checksum. Whatever it can't do, zlib does.
import { gzipSync } from 'node:zlib'
import koffi from 'koffi'
import { GzipHeader } from './gzip-header.ts'
import type { Inflater } from './inflater.ts'
import {
  addressOf,
  makeRoom,
  NativeMemory,
  outputSize,
  Refusal,
  unsupported,
  type Room,
} from './native.ts'

const library = 'libisal.so.2'

// struct inflate_state of igzip_lib.h where pointers have 64 bits: places in words of 8 bytes, or of 4.
const stateSize = 87_368
/** A later version of the same ABI may have put something behind it. */
const spare = 16_384
const nextOut = 0
const availOut = 2
const nextIn = 2
const availIn = 8
const blockState = 5290
const crcFlag = 5293

/** ISAL_BLOCK_FINISH: the member has ended, its checksum was right, and everything is out. */
const finished = 5
/** ISAL_GZIP_NO_HDR_VER: a trailer behind it is checked, a header before it isn't expected. It can read headers, too, but fails at those that have a checksum and come in pieces. */
const gzip = 6
const ok = 0

interface Isal {
  init(state: Uint8Array): void
  reset(state: Uint8Array): void
  inflate(state: Uint8Array): number
}

let isal: Isal | false | undefined

/** @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_PLATFORM if it is needed, and isn't there or doesn't work */
export function createIsalInflater(subject: string, isNeeded: boolean): Inflater | undefined {
  isal ??= load()
  if (isal) return new IsalInflater(isal)
  if (isNeeded) throw unsupported(subject, `there is no ${library} that works`)
  return undefined
}

class IsalInflater implements Inflater {
  readonly #isal: Isal
  readonly #header = new GzipHeader()
  readonly #state = new NativeMemory(stateSize + spare)
  #ended = false

  constructor(isal: Isal) {
    this.#isal = isal
    isal.init(this.#state.bytes)
    this.#state.halves[crcFlag] = gzip
  }

  get left(): number {
    return this.#state.halves[availIn] ?? 0
  }

  get ended(): boolean {
    return this.#ended
  }

  reset(): void {
    this.#isal.reset(this.#state.bytes)
    this.#header.reset()
    this.#ended = false
  }

  give(chunk: Buffer, from: number, length: number): void {
    const end = from + length
    const at = this.#header.isDone ? from : this.#header.take(chunk, from, end)
    this.#state.words[nextIn] = addressOf(chunk) + BigInt(at)
    this.#state.halves[availIn] = end - at
  }

  run(room: Room): number {
    const { words, halves, bytes } = this.#state
    words[nextOut] = room.address
    halves[availOut] = outputSize
    const before = halves[availIn] ?? 0
    const status = this.#isal.inflate(bytes)
    if (status !== ok) throw new Refusal('it is corrupt')
    this.#ended = halves[blockState] === finished
    const after = halves[availIn] ?? 0
    const produced = outputSize - (halves[availOut] ?? 0)
    if (produced === 0 && !this.#ended && after > 0 && after === before)
      throw new Refusal('it is corrupt')
    return produced
  }

  close(): void {
    // its state is ours, and the collector's
  }
}

function load(): Isal | false {
  if (koffi.sizeof('void *') !== 8) return false
  try {
    const found = koffi.load(library)
    const candidate = {
      init: found.func('isal_inflate_init', 'void', ['void *']),
      reset: found.func('isal_inflate_reset', 'void', ['void *']),
      inflate: found.func('isal_inflate', 'int', ['void *']),
    } as unknown as Isal
    return works(candidate) && candidate
  } catch {
    return false
  }
}

/** Two members in one piece, the second with a wrong checksum. */
function works(candidate: Isal): boolean {
  const text = Buffer.from(Array.from({ length: 900 }, (_, at) => `${at * at}\n`).join(''))
  const member = gzipSync(text)
  const wrong = Buffer.from(member)
  const checksum = wrong.length - 8
  wrong.writeUInt32LE((wrong.readUInt32LE(checksum) ^ 1) >>> 0, checksum)
  const input = Buffer.concat([member, wrong])

  const room = makeRoom()()
  const inflater = new IsalInflater(candidate)
  const sees = (at: number): boolean => {
    inflater.reset()
    inflater.give(input, at, input.length - at)
    const produced = inflater.run(room)
    return inflater.ended && room.bytes.subarray(0, produced).equals(text)
  }
  if (!sees(0) || inflater.left !== wrong.length) return false
  try {
    return !sees(member.length)
  } catch (error) {
    return error instanceof Refusal
  }
}
