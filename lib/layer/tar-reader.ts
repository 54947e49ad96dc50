// The tar reader: takes the bytes of an archive in pieces of any size and says what Go's archive/tar would say,
// or throws. Everything is synchronous; bodies are passed on as slices of what was pushed.
// Headers that lie in one piece are read where they lie; only those cut by a border between pieces are copied.
import { createError } from '../errors.ts'
import { printable } from '../text.ts'
import { parseInteger, parsePax, type PaxRecords } from './pax.ts'
import {
  expectBounded,
  GnuSparseMap,
  parsePaxMap,
  PaxSparseMap,
  paxSparseVersion,
  validateRegions,
  type SparseMap,
} from './sparse-map.ts'
import { blockSize, isZeroBlock, parseBlock, type Draft, type Fail } from './tar-block.ts'
import {
  completeHeader,
  isHeaderOnly,
  subjectOf,
  typeflags,
  type Pending,
} from './tar-entry.ts'
import type { TarHandler } from './tar-header.ts'

export type { EntryType, TarHandler, TarHeader, TarWarning } from './tar-header.ts'

/** What the next bytes are; `header` and `map` come in whole blocks. */
type State = 'header' | 'map' | 'special' | 'body' | 'padding' | 'drain' | 'ended'

const empty = Buffer.alloc(0)
const zeros = Buffer.alloc(64 * 1024)

/**
 * Parses an archive that is pushed piece by piece, and tells `handler`.
 *
 * Equal to Go's `archive/tar`, or an error: where tar tools differ, that is what container runtimes do. Accepts
 * ustar, v7, star and GNU headers, pax records, GNU long names and every sparse format. How the bytes are cut into
 * pieces never matters. Nothing that was pushed is kept; memory is bounded by Go's limit of 1 MiB on special headers.
 *
 * After an error, whether the reader's or one that the handler threw, every further call throws the same error.
 * @throws {FormatError} ERR_KOCI_BAD_ARCHIVE, ERR_KOCI_INVALID_ENTRY (ids or device numbers that don't exist)
 * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_ENTRY
 * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED
 */
export class TarReader {
  readonly #handler: TarHandler
  readonly #subject: string
  readonly #fail: Fail = reason => {
    throw createError('BAD_ARCHIVE', { subject: this.#subject, offset: this.#offset, reason })
  }

  #state: State = 'header'
  #failure: { error: unknown } | undefined
  #offset = 0
  readonly #partial = Buffer.alloc(blockSize)
  #filled = 0
  #sawZeroBlock = false
  #sawTrailingData = false

  // What is gathered for the next entry.
  #pending: Pending = { records: undefined, longName: undefined, longLink: undefined }
  #special: Buffer = empty
  #specialType = 0
  #held: { header: Draft; bodySize: number; map: SparseMap } | undefined

  // Where in the body, and in the logical file, the reader is.
  #remaining = 0
  #padding = 0
  #position = 0
  #regions: number[] | undefined
  #region = 0

  constructor(handler: TarHandler, options: { subject?: string } = {}) {
    this.#handler = handler
    this.#subject = options.subject ?? 'archive'
  }

  /** How many bytes of the archive have been taken. */
  get offset(): number {
    return this.#offset + this.#filled
  }

  /** Takes the next piece of the archive; the handler is called from within. */
  push(chunk: Buffer): void {
    if (this.#failure) throw this.#failure.error
    try {
      this.#take(chunk)
    } catch (error) {
      this.#failure = { error }
      throw error
    }
  }

  /**
   * Says that there is no more. The archive may lack its end marker, and the padding of its last body, as in Go;
   * anything else that is missing is an error.
   */
  end(): void {
    if (this.#failure) throw this.#failure.error
    if (this.#state === 'ended') return
    try {
      const complete = this.#state === 'header' && this.#filled === 0
      if (!complete && this.#state !== 'padding' && this.#state !== 'drain')
        this.#fail('it is truncated')
      this.#expectNothingPending()
      this.#state = 'ended'
    } catch (error) {
      this.#failure = { error }
      throw error
    }
  }

  #take(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) at += this.#takeSome(chunk, at)
  }

  #takeSome(chunk: Buffer, at: number): number {
    switch (this.#state) {
      case 'header':
      case 'map':
        return this.#takeBlock(chunk, at)
      case 'special':
        return this.#takeSpecial(chunk, at)
      case 'body':
        return this.#takeBody(chunk, at)
      case 'padding':
        return this.#takePadding(chunk, at)
      case 'drain':
        return this.#drain(chunk, at)
      case 'ended':
        throw createError('CONSUMED', { subject: this.#subject })
    }
  }

  #takeBlock(chunk: Buffer, at: number): number {
    if (this.#filled === 0 && chunk.length - at >= blockSize) {
      this.#useBlock(chunk, at)
      this.#offset += blockSize
      return blockSize
    }
    const taken = chunk.copy(this.#partial, this.#filled, at, at + blockSize - this.#filled)
    this.#filled += taken
    if (this.#filled === blockSize) {
      this.#filled = 0
      this.#useBlock(this.#partial, 0)
      this.#offset += blockSize
    }
    return taken
  }

  #useBlock(block: Buffer, at: number): void {
    if (this.#state === 'map') this.#useMapBlock(block, at)
    else if (isZeroBlock(block, at)) this.#useZeroBlock()
    else this.#useHeader(block, at)
  }

  #useZeroBlock(): void {
    if (this.#sawZeroBlock) {
      this.#expectNothingPending()
      this.#state = 'drain'
    }
    this.#sawZeroBlock = true
  }

  #expectNothingPending(): void {
    const { records, longName, longLink } = this.#pending
    if (records || longName || longLink)
      this.#fail('it ends with an extended header that no entry follows')
  }

  #useHeader(block: Buffer, at: number): void {
    if (this.#sawZeroBlock) this.#fail('there is a single block of zeros between entries')
    const header = parseBlock(block, at, this.#fail)
    if (header.size < 0 && !isHeaderOnly(header.typeflag)) this.#fail('its size is negative')
    switch (header.typeflag) {
      case typeflags.pax:
      case typeflags.globalPax:
      case typeflags.longName:
      case typeflags.longLink:
        this.#startSpecial(header)
        break
      default:
        this.#startEntry(header, block, at)
    }
  }

  #startSpecial(header: Draft): void {
    expectBounded(this.#subject, 'size of an extended header', header.size)
    this.#specialType = header.typeflag
    this.#special = Buffer.allocUnsafe(header.size)
    this.#remaining = header.size
    this.#padding = paddingOf(header.size)
    this.#state = 'special'
    if (header.size === 0) this.#endSpecial()
  }

  #takeSpecial(chunk: Buffer, at: number): number {
    const start = this.#special.length - this.#remaining
    const taken = chunk.copy(this.#special, start, at)
    this.#remaining -= taken
    if (this.#remaining === 0) this.#endSpecial()
    this.#offset += taken
    return taken
  }

  #endSpecial(): void {
    const body = this.#special
    this.#special = empty
    this.#state = this.#padding > 0 ? 'padding' : 'header'
    switch (this.#specialType) {
      case typeflags.pax:
        this.#pending.records = parsePax(body, this.#fail)
        break
      case typeflags.longName:
        this.#pending.longName = this.#longString(body)
        break
      case typeflags.longLink:
        this.#pending.longLink = this.#longString(body)
        break
      default:
        this.#endGlobalHeader(parsePax(body, this.#fail))
    }
  }

  #longString(body: Buffer): Buffer {
    const end = body.indexOf(0)
    const string = Buffer.from(end < 0 ? body : body.subarray(0, end))
    return string.length > 0 ? string : this.#fail('a GNU long name is empty')
  }

  /** Runtimes ignore global headers, and Go forgets what came before one. */
  #endGlobalHeader(records: PaxRecords): void {
    for (const key of ['path', 'linkpath', 'size'])
      if (records.has(key))
        this.#fail(`a global header sets ${key}, which tar tools read differently`)
    this.#takePending()
    this.#handler.warn?.('IGNORED_GLOBAL_HEADER', 'global extended header ignored')
  }

  #takePending(): Pending {
    const pending = this.#pending
    this.#pending = { records: undefined, longName: undefined, longLink: undefined }
    return pending
  }

  #startEntry(header: Draft, block: Buffer, at: number): void {
    const pending = this.#takePending()
    const left = completeHeader(header, pending, this.#subject, this.#fail)
    for (const key of left)
      this.#handler.warn?.('IGNORED_RECORD', `${printable(key)} ignored`, header)
    if (header.type !== 'file') this.#startHeaderOnly(header, pending.records)
    else if (header.typeflag === typeflags.sparse) {
      const map = new GnuSparseMap(block, at, subjectOf(header, this.#subject), this.#fail)
      this.#hold(header, map)
    } else this.#startFile(header, pending.records)
  }

  /** Other tools may take the size of these for the size of a body, and so see other entries. */
  #startHeaderOnly(header: Draft, records: PaxRecords | undefined): void {
    if (records && paxSparseVersion(records)) this.#fail('a sparse entry is not a file')
    if (header.size !== 0)
      this.#handler.warn?.('IGNORED_SIZE', `size of a ${header.type} ignored`, header)
    header.size = 0
    this.#begin(header, 0, 0, undefined)
  }

  #startFile(header: Draft, records: PaxRecords | undefined): void {
    const bodySize = this.#expectSize(header.size)
    const version = records && paxSparseVersion(records)
    if (records === undefined || version === undefined) {
      this.#begin(header, bodySize, bodySize, undefined)
      return
    }
    const name = nonEmpty(records, 'GNU.sparse.name')
    const size =
      nonEmpty(records, 'GNU.sparse.size') ?? nonEmpty(records, 'GNU.sparse.realsize')
    if (version === '1.0') {
      const map = new PaxSparseMap(bodySize, subjectOf(header, this.#subject), this.#fail)
      this.#hold(header, map) // with the size of its body, before that becomes the logical size
    }
    if (name) header.rawPath = Buffer.from(name)
    if (size) header.size = parseInteger(size)
    if (Number.isNaN(header.size)) this.#fail('its sparse size is not a number')
    if (version === '0.1')
      this.#begin(header, bodySize, bodySize, parsePaxMap(records, this.#fail))
  }

  /** Keeps an entry back until its sparse map is complete. */
  #hold(header: Draft, map: SparseMap): void {
    const bodySize = this.#expectSize(header.size)
    this.#held = { header, bodySize, map }
    this.#state = 'map'
    if (map.complete) this.#endMap(this.#held)
  }

  #useMapBlock(block: Buffer, at: number): void {
    const held = this.#held ?? this.#fail('no entry is held')
    held.map.push(block, at)
    if (held.map.complete) this.#endMap(held)
  }

  #endMap({
    header,
    bodySize,
    map,
  }: {
    header: Draft
    bodySize: number
    map: SparseMap
  }): void {
    this.#held = undefined
    if (map.size !== undefined) header.size = map.size
    this.#begin(header, bodySize, bodySize - map.inBody, map.regions())
  }

  #expectSize(size: number): number {
    if (size < 0) this.#fail('its size is negative')
    if (size > Number.MAX_SAFE_INTEGER) this.#fail('its size is beyond 2^53')
    return size
  }

  /** Hands an entry out, `stored` of whose `bodySize` bytes are still to come. */
  #begin(header: Draft, bodySize: number, stored: number, regions: number[] | undefined): void {
    this.#expectSize(header.size)
    if (regions) validateRegions(regions, header.size, stored, this.#fail)
    header.sparse = regions !== undefined
    this.#regions = regions
    this.#region = 0
    this.#position = 0
    this.#remaining = stored
    this.#padding = paddingOf(bodySize)
    this.#handler.entry(header)
    if (stored > 0) this.#state = 'body'
    else this.#endBody()
  }

  #takeBody(chunk: Buffer, at: number): number {
    let length = Math.min(this.#remaining, chunk.length - at)
    if (this.#regions) length = this.#enterRegion(this.#regions, length)
    const whole = at === 0 && length === chunk.length
    this.#handler.data(whole ? chunk : chunk.subarray(at, at + length), this.#position)
    this.#offset += length
    this.#position += length
    this.#remaining -= length
    if (this.#remaining === 0) this.#endBody()
    return length
  }

  /** Moves on to the region that the next byte belongs to; returns how many of `length` bytes are in it. */
  #enterRegion(regions: number[], length: number): number {
    for (; ; this.#region += 2) {
      const start = regions[this.#region] as number
      const end = start + (regions[this.#region + 1] as number)
      if (this.#position < start) this.#position = start
      if (this.#position < end) return Math.min(length, end - this.#position)
    }
  }

  #endBody(): void {
    this.#state = this.#padding > 0 ? 'padding' : 'header'
    this.#regions = undefined
    this.#handler.endEntry()
  }

  #takePadding(chunk: Buffer, at: number): number {
    const taken = Math.min(this.#padding, chunk.length - at)
    this.#padding -= taken
    if (this.#padding === 0) this.#state = 'header'
    this.#offset += taken
    return taken
  }

  #drain(chunk: Buffer, at: number): number {
    const length = Math.min(chunk.length - at, zeros.length)
    if (!this.#sawTrailingData && zeros.compare(chunk, at, at + length, 0, length) !== 0) {
      this.#sawTrailingData = true
      this.#handler.warn?.('TRAILING_DATA', 'bytes after the end of the archive ignored')
    }
    this.#offset += length
    return length
  }
}

function paddingOf(size: number): number {
  return (blockSize - (size % blockSize)) % blockSize
}

function nonEmpty(records: PaxRecords, key: string): Buffer | undefined {
  const value = records.get(key)
  return value?.length ? value : undefined
}
