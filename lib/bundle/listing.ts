// The names of one directory, sorted bytewise: one run of bytes and one number a name, because a directory can have a
// million of them. Objects are made as names are asked for.
import type { CString } from '../fs/libc.ts'

/** A name in a directory. */
export interface Listed {
  /** Shares the listing's memory. */
  readonly name: CString
  readonly isDirectory: boolean
}

const fewNames = 12

/** Names to be added, then sorted, then read. */
export class Listing implements Iterable<Listed> {
  /** How many there are. */
  length = 0
  // each name is a byte that says whether it is a directory, its own bytes, and NUL
  #bytes: Buffer = Buffer.allocUnsafe(1024)
  #end = 0
  /** Where each name starts. */
  #starts = new Uint32Array(32)

  /** Adds `bytes[from, to)`, which has no NUL. */
  add(bytes: Buffer, from: number, to: number, isDirectory: boolean): void {
    const end = this.#end + to - from + 2
    if (end > this.#bytes.length) this.#bytes = grown(this.#bytes, this.#end, end)
    if (this.length === this.#starts.length) {
      const starts = new Uint32Array(this.length * 2)
      starts.set(this.#starts)
      this.#starts = starts
    }
    const target = this.#bytes
    let at = this.#end
    target[at++] = isDirectory ? 1 : 0
    this.#starts[this.length++] = at
    for (let next = from; next < to; next++) target[at++] = bytes[next] as number
    target[at] = 0
    this.#end = end
  }

  /** The name at a place. */
  name(place: number): CString {
    const start = this.#starts[place] as number
    return this.#bytes.subarray(start, this.#bytes.indexOf(0, start) + 1) as CString
  }

  /** Whether the name at a place is a directory's. */
  isDirectory(place: number): boolean {
    return this.#bytes[(this.#starts[place] as number) - 1] === 1
  }

  *[Symbol.iterator](): Generator<Listed, void, undefined> {
    for (let place = 0; place < this.length; place++)
      yield { name: this.name(place), isDirectory: this.isDirectory(place) }
  }

  /** Sorts bytewise: quicksort by one byte after the other, which looks at no common prefix twice. */
  sort(): this {
    const starts = this.#starts
    const bytes = this.#bytes
    // from, to, and how many bytes are known to be the same
    const rest = [0, this.length, 0]
    while (rest.length > 0) {
      const depth = rest.pop() as number
      const to = rest.pop() as number
      const from = rest.pop() as number
      if (to - from <= fewNames) {
        sortFew(starts, bytes, from, to, depth)
        continue
      }
      const byteAt = (place: number): number =>
        bytes[(starts[place] as number) + depth] as number
      const pivot = median(byteAt(from), byteAt((from + to) >> 1), byteAt(to - 1))
      let less = from
      let more = to
      for (let at = from; at < more;) {
        const start = starts[at] as number
        const byte = bytes[start + depth] as number
        if (byte < pivot) {
          starts[at++] = starts[less] as number
          starts[less++] = start
        } else if (byte > pivot) {
          starts[at] = starts[--more] as number
          starts[more] = start
        } else at++
      }
      rest.push(from, less, depth, more, to, depth)
      // names end with NUL, and none is there twice
      if (pivot !== 0) rest.push(less, more, depth + 1)
    }
    return this
  }
}

function sortFew(
  starts: Uint32Array,
  bytes: Buffer,
  from: number,
  to: number,
  depth: number,
): void {
  for (let next = from + 1; next < to; next++) {
    const start = starts[next] as number
    let at = next
    for (; at > from; at--) {
      const before = starts[at - 1] as number
      if (!isBefore(bytes, start + depth, before + depth)) break
      starts[at] = before
    }
    starts[at] = start
  }
}

function isBefore(bytes: Buffer, one: number, other: number): boolean {
  for (; ; one++, other++) {
    const byte = bytes[one] as number
    const difference = byte - (bytes[other] as number)
    if (difference !== 0 || byte === 0) return difference < 0
  }
}

function median(a: number, b: number, c: number): number {
  return a < b ? (b < c ? b : Math.max(a, c)) : a < c ? a : Math.max(b, c)
}

function grown(old: Buffer, used: number, least: number): Buffer {
  const buffer = Buffer.allocUnsafe(Math.max(old.length * 2, least))
  old.copy(buffer, 0, 0, used)
  return buffer
}
