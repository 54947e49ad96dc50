// What the sides of a ring share: where in its memory what is, and who waits for whom. Words of 32 bits come first, then a
// table with a row for each slot, then the slots, then room for the sums of each.
import { createError } from '../errors.ts'
import { addressOf, outputSize, type Room } from './native.ts'

/** Where the word is that counts the slots that were filled; it wraps. */
export const HEAD = 0
/** As HEAD, of those that were read. */
export const TAIL = 1
const STATE = 2
/** As HEAD, of those that the follower has seen. */
export const FOLLOWER_TAIL = 3
/** Which follower there is. */
export const FOLLOWER = 4
const SLOTS = 5
/** Where the table begins. */
export const TABLE = 16
const STOPPED = 1
const BROKEN = 2
/** Words of a slot's row in the table: layer, kind, length, number of sums. */
export const ROW = 4
/** A slot of bytes. */
export const DATA = 0
/** A slot with a verdict: the end of a layer. */
export const END = 1
/** Of a row: how many sums the follower left for the slot. */
export const SUMS = 3

/** Who there is beside the writer and the reader: nobody, somebody who looks on, or one whose sums the reader needs. */
export type Follower = 'nobody' | 'looks' | 'sums'
const followers: readonly Follower[] = ['nobody', 'looks', 'sums']

/** Of a SHA-256 sum. */
export const sumSize = 32
/** Of a slot: a body takes two blocks at least, its header's and its own; one more may have begun before. */
export const maxSums: number = outputSize / 1024 + 1

/** How long a wait is before it looks around. */
export const patienceMs = 50
const page = 4096

/**
 * Makes the memory of a ring; `budget` is in bytes, and rounded down to what a ring can have. With a follower, slots
 * aren't filled again before a `RingFollower` has seen them, too; with one that sums, the reader comes after it.
 */
export function makeRing(budget: number, follower: Follower = 'nobody'): SharedArrayBuffer {
  const slots = 2 ** Math.max(1, Math.floor(Math.log2(budget / outputSize)))
  const sums = follower === 'sums' ? slots * maxSums * sumSize : 0
  const memory = new SharedArrayBuffer(dataOf(slots) + slots * outputSize + sums)
  const words = new Int32Array(memory, 0, TABLE)
  words[SLOTS] = slots
  words[FOLLOWER] = followers.indexOf(follower)
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

/** One side's view of the memory. */
export class Ring {
  readonly memory: SharedArrayBuffer
  readonly words: Int32Array
  readonly slots: Room[]
  readonly batch: number
  readonly follower: Follower
  #unannounced = 0

  constructor(memory: SharedArrayBuffer) {
    const count = new Int32Array(memory, 0, TABLE)[SLOTS] as number
    const start = dataOf(count)
    this.memory = memory
    this.words = new Int32Array(memory, 0, start / 4)
    this.follower = followers[this.words[FOLLOWER] as number] ?? 'nobody'
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

  /** Where the sums of a slot are. */
  sumsAt(slot: number): Buffer {
    const start = dataOf(this.slots.length) + this.slots.length * outputSize
    return Buffer.from(this.memory, start + slot * maxSums * sumSize, maxSums * sumSize)
  }

  /** The slot that a chunk is in. */
  slotOf(chunk: Buffer): number {
    return (chunk.byteOffset - dataOf(this.slots.length)) / outputSize
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

/** Where the slots begin, the table being before them. */
function dataOf(slots: number): number {
  return Math.ceil(((TABLE + slots * ROW) * 4) / page) * page
}
