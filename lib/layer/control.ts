// What a running extraction shares with the thread that asked for it: a flag to stop, and how far it is.
import { createError } from '../errors.ts'

/** How far an extraction is; all numbers only grow. */
export interface Counters {
  /** Bytes of the blob that were read. */
  readonly read: number
  /** Bytes of the uncompressed tar. */
  readonly bytes: number
  readonly entries: number
  /** Logical bytes of files that were begun. */
  readonly fileBytes: number
}

/**
 * Shared memory of one extraction. Synchronous code can't get messages, and a terminated worker would leave its
 * descriptors open: so the flag is polled, per piece and per entry.
 */
export class Control implements Counters {
  readonly memory: SharedArrayBuffer
  readonly #flag: Int32Array
  // each is written by one thread only, in whole words
  readonly #numbers: Float64Array

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(5 * 8)) {
    this.memory = memory
    this.#flag = new Int32Array(memory, 0, 1)
    this.#numbers = new Float64Array(memory, 8, 4)
  }

  get read(): number {
    return this.#numbers[0] as number
  }
  set read(value: number) {
    this.#numbers[0] = value
  }

  get bytes(): number {
    return this.#numbers[1] as number
  }
  set bytes(value: number) {
    this.#numbers[1] = value
  }

  get entries(): number {
    return this.#numbers[2] as number
  }
  set entries(value: number) {
    this.#numbers[2] = value
  }

  get fileBytes(): number {
    return this.#numbers[3] as number
  }
  set fileBytes(value: number) {
    this.#numbers[3] = value
  }

  /** Asks the extraction to stop; it ends with ERR_KOCI_ABORTED within a piece or an entry. */
  abort(): void {
    Atomics.store(this.#flag, 0, 1)
  }

  get aborted(): boolean {
    return Atomics.load(this.#flag, 0) !== 0
  }

  /** @throws {SystemError} ERR_KOCI_ABORTED */
  throwIfAborted(subject: string): void {
    if (this.aborted) throw createError('ABORTED', { subject })
  }
}
