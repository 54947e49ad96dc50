// The bytes of one file: written as they come, hashed on the way, holes left out on disk but not in the hash.
// Long runs of zeros become holes, too: that is how a sparse file comes back from a layer that can't say it is one.
import { createHash, hash, type Hash } from 'node:crypto'
import { check, ftruncate, pwrite, write } from '../fs/libc.ts'
import * as sys from '../fs/syscall.ts'

const zeros = Buffer.alloc(64 * 1024)
/** Runs of zeros shorter than this are written; the longest run that may be missed is twice that. */
const HOLE = 16 * 1024
// beyond this much nothing, hashing takes longer than reading the file again ever would save
const MAX_HASHED_HOLE = 2 ** 30

/** Writes one file after the other. */
export class FileBody {
  #fd = -1
  #size = 0
  #position = 0
  /** Of what was written. */
  #end = 0
  #hashing = false
  #hash: Hash | undefined
  #sum: Buffer | undefined

  /** The descriptor stays the caller's. `size` is the logical one. */
  begin(fd: number, size: number, hashing: boolean): void {
    this.#fd = fd
    this.#size = size
    this.#position = 0
    this.#end = 0
    this.#hashing = hashing
    this.#hash = undefined
    this.#sum = undefined
  }

  /** `offset` only grows; where it jumps there is a hole. */
  data(chunk: Buffer, offset: number): void {
    if (offset !== this.#position) this.#skip(offset)
    if (this.#hashing) {
      // most files come in one piece
      if (chunk.length === this.#size) this.#sum = hash('sha256', chunk, 'buffer')
      else {
        this.#hash ??= createHash('sha256')
        this.#hash.update(chunk)
      }
    }
    if (chunk.length < HOLE) this.#write(chunk, offset)
    else this.#writeSparsely(chunk, offset)
    this.#position = offset + chunk.length
  }

  #sequential = true

  #write(chunk: Buffer, offset: number): void {
    if (this.#sequential) {
      const written = check(sys.write(this.#fd, chunk), 'write')
      if (written < chunk.length) write(this.#fd, chunk.subarray(written))
    } else pwrite(this.#fd, chunk, offset)
    this.#end = offset + chunk.length
  }

  /** Looks at one byte per step unless that is zero. */
  #writeSparsely(chunk: Buffer, offset: number): void {
    let start = 0
    for (let at = 0; at + HOLE <= chunk.length; at += HOLE) {
      if (chunk[at] !== 0 || zeros.compare(chunk, at, at + HOLE, 0, HOLE) !== 0) continue
      if (at > start) this.#write(chunk.subarray(start, at), offset + start)
      this.#sequential = false
      start = at + HOLE
    }
    const rest = start === 0 ? chunk : chunk.subarray(start)
    if (rest.length > 0) this.#write(rest, offset + start)
  }

  /** Completes the file; gives its SHA-256 if that was asked for and is worth it. */
  end(): Buffer | undefined {
    if (this.#end < this.#size) ftruncate(this.#fd, this.#size)
    if (this.#position < this.#size) this.#skip(this.#size)
    this.#sequential = true
    if (!this.#hashing) return undefined
    if (this.#sum !== undefined) return this.#sum
    return this.#hash === undefined
      ? hash('sha256', zeros.subarray(0, 0), 'buffer')
      : this.#hash.digest()
  }

  #skip(offset: number): void {
    this.#sequential = false
    let rest = offset - this.#position
    this.#position = offset
    if (!this.#hashing) return
    if (rest > MAX_HASHED_HOLE) {
      this.#hashing = false
      return
    }
    this.#hash ??= createHash('sha256')
    for (; rest > 0; rest -= zeros.length)
      this.#hash.update(rest < zeros.length ? zeros.subarray(0, rest) : zeros)
  }
}
