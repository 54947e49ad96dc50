// Memory that hands the uncompressed bytes of layers from the thread that inflates to the thread that writes: a ring of
// slots, filled in order and emptied in order, one writer and one reader, and perhaps one more who only looks on. A slot
// is the writer's until the head has passed it, then the readers' until their tails have. Every wait ends by itself after
// a moment and looks around, so that nobody hangs on a thread that is gone.
import { createError, type ErrorJSON } from '../errors.ts'
import type { Control } from './control.ts'
import { addressOf, outputSize, type Room } from './native.ts'

/** How the reading of a layer ended. */
export type Verdict =
  | { readonly bytes: number }
  /** `complete`: all bytes were handed over before, it is only that they aren't the promised ones. */
  | { readonly error: ErrorJSON; readonly complete: boolean }

// places of words, and values of one
const HEAD = 0
const TAIL = 1
const STATE = 2
const FOLLOWER_TAIL = 3
const FOLLOWED = 4
const TABLE = 16
const STOPPED = 1
const BROKEN = 2
// words of a slot's row in the table
const ROW = 3
const DATA = 0
const END = 1

const patienceMs = 50
const page = 4096

/**
 * Makes the memory of a ring; `budget` is in bytes, and rounded down to what a ring can have. With `followed`, slots
 * aren't filled again before a `RingFollower` has seen them, too.
 */
export function makeRing(budget: number, followed = false): SharedArrayBuffer {
  const slots = 2 ** Math.max(1, Math.floor(Math.log2(budget / outputSize)))
  const memory = new SharedArrayBuffer(dataOf(slots) + slots * outputSize)
  if (followed) new Int32Array(memory, 0, TABLE)[FOLLOWED] = 1
  return memory
}

/** Has both sides end with ERR_KOCI_ABORTED. */
export function stopRing(memory: SharedArrayBuffer): void {
  leave(memory, STOPPED)
}

/** Tells the reader that there is no writer any more. */
export function breakRing(memory: SharedArrayBuffer): void {
  leave(memory, BROKEN)
}

/** Has both sides look around at once. */
export function wakeRing(memory: SharedArrayBuffer): void {
  const words = new Int32Array(memory, 0, TABLE)
  for (const word of [HEAD, TAIL, FOLLOWER_TAIL]) Atomics.notify(words, word)
}

/** 0 while the ring is in use. */
export function ringState(memory: SharedArrayBuffer): number {
  return Atomics.load(new Int32Array(memory, 0, TABLE), STATE)
}

/** @throws {SystemError} ERR_KOCI_ABORTED, ERR_KOCI_WORKER_DIED unless the ring is in use */
export function throwIfLeft(state: number, subject: string): void {
  if (state === STOPPED) throw createError('ABORTED', { subject })
  if (state === BROKEN)
    throw createError('WORKER_DIED', { subject, reason: 'it no longer reads ahead' })
}

function leave(memory: SharedArrayBuffer, state: number): void {
  Atomics.compareExchange(new Int32Array(memory, 0, TABLE), STATE, 0, state)
  wakeRing(memory)
}

class Ring {
  readonly memory: SharedArrayBuffer
  readonly words: Int32Array
  readonly slots: Room[]
  readonly batch: number
  #unannounced = 0

  constructor(memory: SharedArrayBuffer) {
    const count = Math.floor(memory.byteLength / outputSize)
    const start = dataOf(count)
    this.memory = memory
    this.words = new Int32Array(memory, 0, start / 4)
    this.slots = Array.from({ length: count }, (_, index) => {
      const bytes = Buffer.from(memory, start + index * outputSize, outputSize)
      return { bytes, address: addressOf(bytes) }
    })
    // waking the other side is a system call and a change of threads: not for every slot
    this.batch = Math.min(8, Math.max(1, count >> 3))
  }

  get state(): number {
    return Atomics.load(this.words, STATE)
  }

  slotAt(position: number): number {
    return position & (this.slots.length - 1)
  }

  /** Moves head or tail on; the other side is told now and then. */
  advance(word: number, position: number, now: boolean): void {
    Atomics.store(this.words, word, position)
    this.#unannounced += 1
    if (now || this.#unannounced >= this.batch) this.announce(word)
  }

  announce(word: number): void {
    if (this.#unannounced === 0) return
    this.#unannounced = 0
    Atomics.notify(this.words, word)
  }
}

/** The side that fills. */
export class RingWriter {
  readonly #ring: Ring
  #head: number
  #index = 0
  #control: Control | undefined
  #subject = ''

  constructor(memory: SharedArrayBuffer) {
    this.#ring = new Ring(memory)
    this.#head = Atomics.load(this.#ring.words, HEAD)
  }

  get isStopped(): boolean {
    return this.#ring.state !== 0
  }

  /** What follows is of this layer, as long as its control isn't aborted. Indices grow. */
  begin(index: number, control: Control, subject: string): void {
    this.#index = index
    this.#control = control
    this.#subject = subject
  }

  /**
   * Where the next bytes can be put; waits until there is room.
   * @throws {SystemError} ERR_KOCI_ABORTED
   */
  readonly room = (): Room => {
    const { words, slots } = this.#ring
    for (;;) {
      const last = this.#laggard()
      const tail = Atomics.load(words, last)
      if (((this.#head - tail) | 0) < slots.length)
        return slots[this.#ring.slotAt(this.#head)] as Room
      this.#throwIfStopped()
      this.#ring.announce(HEAD)
      Atomics.wait(words, last, tail, patienceMs)
    }
  }

  /** Hands bytes over; those that are in the last room aren't copied. */
  readonly write = (chunk: Buffer): void => {
    if (chunk.buffer === this.#ring.memory) {
      this.#publish(DATA, chunk.length, false)
      return
    }
    for (let at = 0; at < chunk.length;) {
      const copied = chunk.copy(this.room().bytes, 0, at)
      this.#publish(DATA, copied, false)
      at += copied
    }
  }

  /** Ends the layer, unless nobody wants it any more. */
  end(verdict: Verdict): void {
    if (this.#isUnwanted()) return
    try {
      const length = this.room().bytes.write(JSON.stringify(verdict))
      this.#publish(END, length, true)
    } catch (error) {
      if (!this.#isUnwanted()) throw error
    }
  }

  /** The tail that is farthest behind. */
  #laggard(): number {
    const { words } = this.#ring
    if (words[FOLLOWED] === 0) return TAIL
    const ahead = (Atomics.load(words, TAIL) - Atomics.load(words, FOLLOWER_TAIL)) | 0
    return ahead > 0 ? FOLLOWER_TAIL : TAIL
  }

  #isUnwanted(): boolean {
    return this.isStopped || this.#control?.aborted === true
  }

  #publish(kind: number, length: number, now: boolean): void {
    const { words } = this.#ring
    const row = TABLE + this.#ring.slotAt(this.#head) * ROW
    words[row] = this.#index
    words[row + 1] = kind
    words[row + 2] = length
    this.#head = (this.#head + 1) | 0
    this.#ring.advance(HEAD, this.#head, now)
  }

  #throwIfStopped(): void {
    this.#control?.throwIfAborted(this.#subject)
    if (this.isStopped) throw createError('ABORTED', { subject: this.#subject })
  }
}

/** The side that empties. */
export class RingReader {
  readonly #ring: Ring
  #tail: number

  constructor(memory: SharedArrayBuffer) {
    this.#ring = new Ring(memory)
    this.#tail = Atomics.load(this.#ring.words, TAIL)
  }

  /**
   * Hands out the bytes of a layer, each chunk for the time of the call, and says how it ended. What is left of layers
   * before it is thrown away.
   * @throws {SystemError} ERR_KOCI_ABORTED, ERR_KOCI_WORKER_DIED; and what `data` throws
   */
  read(
    index: number,
    control: Control,
    subject: string,
    data: (chunk: Buffer) => void,
  ): Verdict {
    const { words, slots } = this.#ring
    for (let ended = false; ;) {
      this.#await(control, subject)
      const slot = this.#ring.slotAt(this.#tail)
      const row = TABLE + slot * ROW
      const { bytes } = slots[slot] as Room
      const chunk = bytes.subarray(0, words[row + 2])
      try {
        if (words[row] !== index) continue
        ended = words[row + 1] === END
        if (ended) return JSON.parse(chunk.toString()) as Verdict
        data(chunk)
      } finally {
        this.#tail = (this.#tail + 1) | 0
        this.#ring.advance(TAIL, this.#tail, ended)
      }
    }
  }

  /** Waits until there is a slot to be read. */
  #await(control: Control, subject: string): void {
    const { words } = this.#ring
    control.throwIfAborted(subject)
    while (Atomics.load(words, HEAD) === this.#tail) {
      throwIfLeft(this.#ring.state, subject)
      this.#ring.announce(TAIL)
      Atomics.wait(words, HEAD, this.#tail, patienceMs)
      control.throwIfAborted(subject)
    }
  }
}

/** Somebody who sees all that passes through a followed ring. */
export class RingFollower {
  readonly #ring: Ring
  #tail: number

  constructor(memory: SharedArrayBuffer) {
    this.#ring = new Ring(memory)
    this.#tail = Atomics.load(this.#ring.words, FOLLOWER_TAIL)
  }

  /** Shows the chunks of each layer, each for the time of the call, then none for its end, until the ring is left. */
  follow(see: (index: number, chunk: Buffer | undefined) => void): void {
    const { words, slots } = this.#ring
    while (this.#await()) {
      const slot = this.#ring.slotAt(this.#tail)
      const row = TABLE + slot * ROW
      const isEnd = words[row + 1] === END
      const { bytes } = slots[slot] as Room
      see(words[row] as number, isEnd ? undefined : bytes.subarray(0, words[row + 2]))
      this.#tail = (this.#tail + 1) | 0
      this.#ring.advance(FOLLOWER_TAIL, this.#tail, isEnd)
    }
  }

  /** Waits until there is a slot to be seen; false once there will be none. */
  #await(): boolean {
    const { words } = this.#ring
    while (Atomics.load(words, HEAD) === this.#tail) {
      if (this.#ring.state !== 0) return false
      this.#ring.announce(FOLLOWER_TAIL)
      Atomics.wait(words, HEAD, this.#tail, patienceMs)
    }
    return this.#ring.state === 0
  }
}

/** Where the slots begin, the table being before them. */
function dataOf(slots: number): number {
  return Math.ceil(((TABLE + slots * ROW) * 4) / page) * page
}
