// The tar reader as an async iterable, for middleware that wants to look into a layer.
// The reader pushes and the caller pulls: what one piece of the archive holds is queued, and the next piece is asked
// for when that is used up.
import { createError } from '../errors.ts'
import { TarReader, type TarHeader } from './tar-reader.ts'

/** An entry of a layer. */
export interface TarEntry {
  /** Its names are raw: see `cleanPath`. */
  readonly header: TarHeader
  /**
   * The body, readable once, until the next entry is asked for; it may be left unread. Always `header.size` bytes: the
   * holes of a sparse file come as zeros. Chunks are slices of the pieces that were read.
   */
  readonly body: AsyncIterable<Buffer>
}

/**
 * Reads an uncompressed archive, entry by entry. `pieces` are read only as far as the caller gets, to their end behind
 * the last entry, and closed when the caller stops early.
 *
 * Throws what `TarReader` and `pieces` throw, behind the entries that come before the fault.
 * @throws {UsageError} ERR_KOCI_CONSUMED where a body is read twice, or after the next entry was asked for
 */
export async function* readEntries(
  pieces: AsyncIterable<Buffer>,
  options: { subject?: string } = {},
): AsyncGenerator<TarEntry, void, undefined> {
  const events = new EventQueue(pieces, options)
  try {
    for (let event = await events.next(); event; event = await events.next()) {
      if (event.kind !== 'entry') continue
      const body = new Body(events, event.header)
      yield { header: event.header, body }
      body.close()
    }
  } finally {
    await events.close()
  }
}

type Event =
  | { readonly kind: 'entry'; readonly header: TarHeader }
  | { readonly kind: 'data'; readonly chunk: Buffer; readonly offset: number }
  | { readonly kind: 'end' }

class EventQueue {
  readonly #pieces: AsyncIterator<Buffer>
  readonly #reader: TarReader
  #events: Event[] = []
  #at = 0
  #ended = false
  #failure: { error: unknown } | undefined

  constructor(pieces: AsyncIterable<Buffer>, options: { subject?: string }) {
    this.#pieces = pieces[Symbol.asyncIterator]()
    this.#reader = new TarReader(
      {
        entry: header => void this.#events.push({ kind: 'entry', header }),
        data: (chunk, offset) => void this.#events.push({ kind: 'data', chunk, offset }),
        endEntry: () => void this.#events.push({ kind: 'end' }),
      },
      options,
    )
  }

  /** What comes next, over all pieces; undefined at the end. */
  async next(): Promise<Event | undefined> {
    for (;;) {
      const event = this.#events[this.#at++]
      if (event) return event
      if (this.#failure) throw this.#failure.error
      if (this.#ended) return undefined
      await this.#read()
    }
  }

  async close(): Promise<void> {
    if (!this.#ended) await this.#pieces.return?.()
  }

  async #read(): Promise<void> {
    this.#events = []
    this.#at = 0
    try {
      const piece = await this.#pieces.next()
      this.#ended = piece.done === true
      if (piece.done === true) this.#reader.end()
      else this.#reader.push(piece.value)
    } catch (error) {
      this.#failure = { error }
    }
  }
}

const longestHole = 64 * 1024

class Body implements AsyncIterable<Buffer> {
  readonly #events: EventQueue
  readonly #header: TarHeader
  #state: 'unread' | 'reading' | 'over' = 'unread'

  constructor(events: EventQueue, header: TarHeader) {
    this.#events = events
    this.#header = header
  }

  /** From here on the events belong to the entries behind. */
  close(): void {
    this.#state = 'over'
  }

  [Symbol.asyncIterator](): AsyncGenerator<Buffer, void, undefined> {
    if (this.#state !== 'unread') throw this.#consumed()
    this.#state = 'reading'
    return this.#read()
  }

  async *#read(): AsyncGenerator<Buffer, void, undefined> {
    let position = 0
    for (;;) {
      if (this.#state === 'over') throw this.#consumed()
      const event = await this.#events.next()
      if (event?.kind !== 'data') break
      yield* hole(event.offset - position)
      yield event.chunk
      position = event.offset + event.chunk.length
    }
    yield* hole(this.#header.size - position)
  }

  #consumed(): Error {
    return createError('CONSUMED', { subject: this.#header.rawPath })
  }
}

function* hole(length: number): Generator<Buffer, void, undefined> {
  for (let left = length; left > 0; left -= longestHole)
    yield Buffer.alloc(Math.min(left, longestHole))
}
