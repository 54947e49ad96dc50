// Entries become the bytes of an uncompressed layer. tar-stream's `pack` writes headers, bodies and padding;
// pax headers are put in front of the entries that need one. The same entries always give the same bytes.
import { pack as createPack, type Header, type Pack } from 'tar-stream'
import { createError } from '../errors.ts'
import {
  encodeRecords,
  recordsHeader,
  subjectOf,
  toHeader,
  type PackHeader,
  type PaxRecord,
} from './layer-header.ts'
import type { EntryType } from './tar-header.ts'

/**
 * An entry of a layer to be written. `rawPath` is clean: no leading or trailing slash, the root is empty.
 * A `whiteout` has the path of what is gone, an `opaqueWhiteout` that of its directory; of both nothing else counts.
 */
export interface LayerEntry {
  readonly rawPath: Buffer
  readonly type: EntryType | 'whiteout' | 'opaqueWhiteout'
  /** Permission, setuid, setgid and sticky bits; 0 is a mode as any other. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Of files: how many bytes `body` yields. */
  readonly size: number
  /** Nanoseconds since the epoch, kept exactly. */
  readonly mtime: bigint
  /** Of symlinks verbatim; of hard links the clean path of an earlier entry. */
  readonly rawLinkname?: Buffer
  readonly devmajor?: number
  readonly devminor?: number
  readonly xattrs?: ReadonlyArray<readonly [name: Buffer, value: Buffer]>
  /** Called once, when it is the entry's turn. A chunk that was yielded belongs to the writer: don't reuse it. */
  body?(): AsyncIterable<Buffer> | Iterable<Buffer>
}

/** How much was written. */
export interface WrittenLayer {
  readonly entries: number
  /** Of the uncompressed layer. */
  readonly bytes: number
}

const blockSize = 512

/** What may wait between the entries and a slow sink. */
const maxBuffered = 1 << 20

/**
 * Writes the entries in the order they come in, and waits for the sink before it goes on: memory is bounded, whatever
 * the size of a file. With `clampTime` (nanoseconds) later modification times become that; whiteouts always have 0.
 *
 * Rejects with the first error of entries, bodies or sink; the sink then has half a layer.
 * @throws {FormatError} ERR_KOCI_INVALID_ENTRY, ERR_KOCI_INVALID_WHITEOUT (nothing may be called `.wh.…`)
 * @throws {IntegrityError} ERR_KOCI_FILE_CHANGED where a body isn't as long as its size
 * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED where names and xattrs of an entry exceed 1 MiB
 */
export async function writeLayer(
  entries: AsyncIterable<LayerEntry> | Iterable<LayerEntry>,
  sink: (chunk: Buffer) => Promise<void> | void,
  options: { clampTime?: bigint } = {},
): Promise<WrittenLayer> {
  const writer = new Writer(options.clampTime)
  await Promise.allSettled([writer.produce(entries), writer.consume(sink)])
  return writer.result()
}

class Writer {
  readonly #pack: Pack = createPack()
  readonly #clampTime: bigint | undefined
  #entries = 0
  #produced = 0
  #consumed = 0
  #failure: { error: unknown } | undefined
  #roomMade: (() => void) | undefined

  constructor(clampTime: bigint | undefined) {
    this.#clampTime = clampTime
  }

  result(): WrittenLayer {
    if (this.#failure) throw this.#failure.error
    return { entries: this.#entries, bytes: this.#consumed }
  }

  async produce(entries: AsyncIterable<LayerEntry> | Iterable<LayerEntry>): Promise<void> {
    try {
      for await (const entry of entries) {
        await this.#write(entry)
        this.#entries++
      }
      this.#pack.finalize()
    } catch (error) {
      this.#fail(error)
    }
  }

  async consume(sink: (chunk: Buffer) => Promise<void> | void): Promise<void> {
    try {
      for await (const chunk of this.#pack as AsyncIterable<Buffer>) {
        await sink(chunk)
        this.#consumed += chunk.length
        this.#roomMade?.()
      }
    } catch (error) {
      this.#fail(error)
    }
  }

  /** The first error is the one that is told; the other side is stopped by it. */
  #fail(error: unknown): void {
    this.#failure ??= { error }
    this.#pack.destroy(null)
    this.#roomMade?.()
  }

  async #write(entry: LayerEntry): Promise<void> {
    const records: PaxRecord[] = []
    const header = toHeader(entry, records, this.#clampTime)
    if (records.length > 0) {
      const body = encodeRecords(records, subjectOf(entry))
      await this.#add(recordsHeader(body.length))
      this.#pack.push(body)
      this.#produced += body.length
    }
    if (header.type === 'file') await this.#addFile(header, entry)
    else await this.#add(header)
    await this.#room()
  }

  /** Adds a header without a body. Nothing may be queued behind it before this resolves: a body of ours may follow. */
  #add(header: PackHeader): Promise<void> {
    this.#produced += blockSize
    return new Promise((resolve, reject) => {
      this.#pack.entry(header as Header, error => (error ? reject(error) : resolve()))
    })
  }

  async #addFile(header: PackHeader, entry: LayerEntry): Promise<void> {
    const done = Promise.withResolvers<void>()
    const stream = this.#pack.entry(header as Header, error =>
      error ? done.reject(error) : done.resolve(),
    )
    // Whatever breaks it is told by the callback, and that only to who still waits.
    stream.on('error', () => {})
    done.promise.catch(() => {})
    const { size } = header
    let written = 0
    for await (const chunk of (size > 0 && entry.body?.()) || []) {
      written += chunk.length
      if (written > size) throw createError('FILE_CHANGED', { subject: subjectOf(entry) })
      stream.write(chunk)
      this.#produced += chunk.length
      await this.#room()
    }
    if (written !== size) throw createError('FILE_CHANGED', { subject: subjectOf(entry) })
    stream.end(null)
    await done.promise
    this.#produced += blockSize + (-size & (blockSize - 1))
  }

  /** Waits for the sink, if it has fallen behind. */
  async #room(): Promise<void> {
    while (this.#produced - this.#consumed > maxBuffered && !this.#failure) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#roomMade = resolve
      await promise
    }
    if (this.#failure) throw this.#failure.error
  }
}
