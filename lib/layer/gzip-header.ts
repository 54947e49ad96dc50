// The header of a gzip member (RFC 1952, 2.3), however it is cut. Nothing in it is used, but everything is checked.
import { crc32 } from 'node:zlib'
import { Refusal } from './native.ts'

const magic: readonly number[] = [0x1f, 0x8b, 8]
const reserved = 0xe0

/** What comes next: so many bytes, all up to a zero, or the end. */
type Part = 'fixed' | 'length' | 'extra' | 'name' | 'comment' | 'sum' | 'done'

/** What may come behind the fixed part, in this order, each if the header has its flag. */
const optional: readonly (readonly [part: Part, flag: number])[] = [
  ['length', 4],
  ['extra', 4],
  ['name', 8],
  ['comment', 16],
  ['sum', 2],
]

/** Takes the bytes of one header after the other. */
export class GzipHeader {
  #part: Part = 'fixed'
  #flags = 0
  /** Of a part whose length is known, what is still to come. */
  #missing = 10
  /** Of a number, what came so far. */
  #value = 0
  #sum = 0

  /** Whether the whole header was taken. */
  get isDone(): boolean {
    return this.#part === 'done'
  }

  /** Expects the next header. */
  reset(): void {
    this.#part = 'fixed'
    this.#missing = 10
    this.#flags = 0
    this.#sum = 0
  }

  /**
   * Takes what belongs to the header.
   * @returns where it ends in the chunk, or the chunk's end
   * @throws {Refusal} if it isn't one
   */
  take(chunk: Buffer, from: number, end: number): number {
    let at = from
    while (at < end && !this.isDone) {
      const next = this.#endOfPart(chunk, at, end)
      const bytes = chunk.subarray(at, next)
      if (this.#part !== 'sum') this.#sum = crc32(bytes, this.#sum)
      for (let index = at; index < next; index++) this.#see(chunk[index] ?? 0)
      at = next
      if (this.#missing === 0) this.#enter(this.#following())
    }
    return at
  }

  #endOfPart(chunk: Buffer, at: number, end: number): number {
    if (this.#part === 'name' || this.#part === 'comment') {
      const zero = chunk.indexOf(0, at)
      return zero < 0 || zero >= end ? end : zero + 1
    }
    return Math.min(end, at + this.#missing)
  }

  #see(byte: number): void {
    switch (this.#part) {
      case 'fixed': {
        const place = 10 - this.#missing--
        if (place < magic.length && byte !== magic[place]) throw new Refusal('it is corrupt')
        if (place !== magic.length) return
        if ((byte & reserved) !== 0) throw new Refusal('it is corrupt')
        this.#flags = byte
        return
      }
      case 'name':
      case 'comment':
        if (byte === 0) this.#missing = 0
        return
      case 'length':
      case 'sum':
        this.#value |= byte << (this.#missing === 2 ? 0 : 8)
        this.#missing--
        return
      case 'extra':
      case 'done':
        this.#missing--
    }
  }

  /** The next part that this header has. */
  #following(): Part {
    const behind = optional.slice(optional.findIndex(([part]) => part === this.#part) + 1)
    return behind.find(([, flag]) => (this.#flags & flag) !== 0)?.[0] ?? 'done'
  }

  #enter(part: Part): void {
    if (this.#part === 'sum' && this.#value !== (this.#sum & 0xff_ff))
      throw new Refusal('it is corrupt')
    const extra = this.#value
    this.#part = part
    this.#value = 0
    this.#missing = part === 'length' || part === 'sum' ? 2 : part === 'extra' ? extra : 1
    if (this.#missing === 0) this.#enter(this.#following())
  }
}
