// gzip: members, each behind the other. Header, checksum and length of each are checked by what inflates it; what comes
// between and after them is checked here.
import { createError } from '../errors.ts'
import type { Decompressor, Sink } from './decompress.ts'
import { createInflater, type Inflater, type InflaterName } from './inflater.ts'
import { closed, countEmpty, outputSize, Refusal, type Room } from './native.ts'
import { looksLike } from './sniff.ts'

const maxInput = 2 ** 30
const magic = 0x1f

/** Decompresses gzip members, each behind the other; after the last one zeros are allowed, as tapes are padded. */
export class GzipDecompressor implements Decompressor {
  readonly #sink: Sink
  readonly #subject: string
  readonly #inflater: Inflater
  readonly #room: () => Room
  #state: 'first' | 'member' | 'between' | 'zeros' = 'first'
  #memberHasBytes = false
  #emptyMembers = 0
  #failure: { error: unknown } | undefined
  #open = true

  constructor(sink: Sink, subject: string, room: () => Room, inflater?: InflaterName) {
    this.#sink = sink
    this.#room = room
    this.#subject = subject
    this.#inflater = createInflater(subject, inflater)
  }

  push(chunk: Buffer): void {
    if (this.#failure) throw this.#failure.error
    try {
      this.#take(chunk)
    } catch (thrown) {
      const error = thrown instanceof Refusal ? this.#bad(thrown.message) : thrown
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
    this.#inflater.close()
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
      this.#inflater.reset()
      this.#memberHasBytes = false
      this.#state = 'member'
    } else if (this.#state === 'first') throw this.#bad(`it is not gzip${looksLike(chunk)}`)
    else this.#state = 'zeros'
  }

  /** Inflates until the chunk is used up and everything it holds is out, or the member ends. */
  #inflate(chunk: Buffer, at: number): number {
    const inflater = this.#inflater
    const given = Math.min(chunk.length - at, maxInput)
    inflater.give(chunk, at, given)
    let produced: number
    do {
      const room = this.#room()
      produced = inflater.run(room)
      if (produced > 0) {
        this.#memberHasBytes = true
        this.#sink(room.bytes.subarray(0, produced))
        if (!this.#open) throw closed(this.#subject)
      }
    } while (!inflater.ended && (inflater.left > 0 || produced === outputSize))
    if (inflater.ended) this.#endMember()
    return at + given - inflater.left
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

  #bad(reason: string): Error {
    return createError('BAD_COMPRESSION', { subject: this.#subject, format: 'gzip', reason })
  }
}
