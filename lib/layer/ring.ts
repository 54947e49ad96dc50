// Memory that hands the uncompressed bytes of layers from the thread that inflates to the thread that writes: a ring of
// slots, filled in order and emptied in order, one writer and one reader, and perhaps one more who only looks on. A slot
// is the writer's until the head has passed it, then the readers' until their tails have. Every wait ends by itself after
// a moment and looks around, so that nobody hangs on a thread that is gone.
import { createError, type ErrorJSON } from '../errors.ts'
import type { Control } from './control.ts'
import type { Room } from './native.ts'
import {
  DATA,
  END,
  FOLLOWER_TAIL,
  HEAD,
  patienceMs,
  Ring,
  ROW,
  SUMS,
  sumSize,
  TABLE,
  TAIL,
  throwIfLeft,
} from './ring-memory.ts'

/** How the reading of a layer ended. */
export type Verdict =
  | { readonly bytes: number }
  /** `complete`: all bytes were handed over before, it is only that they aren't the promised ones. */
  | { readonly error: ErrorJSON; readonly complete: boolean }

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
    if (this.#ring.follower === 'nobody') return TAIL
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
    const { words, follower } = this.#ring
    const ahead = follower === 'sums' ? FOLLOWER_TAIL : HEAD
    control.throwIfAborted(subject)
    while (Atomics.load(words, ahead) === this.#tail) {
      throwIfLeft(this.#ring.state, subject)
      this.#ring.announce(TAIL)
      Atomics.wait(words, ahead, this.#tail, patienceMs)
      control.throwIfAborted(subject)
    }
  }
}

/** Somebody who sees all that passes through a followed ring. */
export class RingFollower {
  readonly #ring: Ring
  #tail: number
  /** Of the slot that is being seen, once it has one. */
  #sums: Buffer = Buffer.alloc(0)

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
      words[row + SUMS] = 0
      const { bytes } = slots[slot] as Room
      see(words[row] as number, isEnd ? undefined : bytes.subarray(0, words[row + 2]))
      this.#tail = (this.#tail + 1) | 0
      this.#ring.advance(FOLLOWER_TAIL, this.#tail, isEnd)
    }
  }

  /** Leaves a sum with the slot that is being seen; without one, that there is none. */
  leaveSum(sum: Uint8Array | undefined): void {
    const slot = this.#ring.slotAt(this.#tail)
    const place = TABLE + slot * ROW + SUMS
    const count = this.#ring.words[place] as number
    if (count === 0) this.#sums = this.#ring.sumsAt(slot)
    this.#sums.set(sum ?? noSum, count * sumSize)
    this.#ring.words[place] = count + 1
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

/** The sums that a follower left, as the reader comes to their slots. */
export class SlotSums {
  readonly #ring: Ring
  #sums: Buffer = Buffer.alloc(0)
  #left = 0
  #at = 0

  private constructor(ring: Ring) {
    this.#ring = ring
  }

  /** Undefined if nobody leaves any. */
  static of(memory: SharedArrayBuffer): SlotSums | undefined {
    const ring = new Ring(memory)
    return ring.follower === 'sums' ? new SlotSums(ring) : undefined
  }

  /** What comes next are the sums of the slot that this chunk is in. */
  enter(chunk: Buffer): void {
    const slot = this.#ring.slotOf(chunk)
    this.#sums = this.#ring.sumsAt(slot)
    this.#left = this.#ring.words[TABLE + slot * ROW + SUMS] as number
    this.#at = 0
  }

  /** The next sum, valid until the chunk isn't; undefined where it isn't known. */
  next(): Buffer | undefined {
    if (this.#left === 0) return undefined
    this.#left -= 1
    const sum = this.#sums.subarray(this.#at, this.#at + sumSize)
    this.#at += sumSize
    return sum.equals(noSum) ? undefined : sum
  }
}

const noSum = Buffer.alloc(sumSize)
