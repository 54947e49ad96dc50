// Where the data of a sparse file lies: the four ways in which tar says it, made one list.
// Regions are flat pairs, `[offset, length, offset, length, …]`; what doesn't fit 53 bits is refused in the end.
import { createError } from '../errors.ts'
import { parseInteger, type PaxRecords } from './pax.ts'
import { blockSize, isGnuBlock, parseNumber, type Fail } from './tar-block.ts'

/** Go's limit in bytes on everything that describes an entry: extended headers, long names, sparse maps. */
export const maxSpecialSize: number = 1 << 20

/** A map that comes in blocks of its own, behind the header. */
export interface SparseMap {
  /** The entry's logical size, where the map is what says it. */
  readonly size: number | undefined
  /** How many bytes of the entry's body the map itself takes. */
  readonly inBody: number
  readonly complete: boolean
  push(block: Buffer, at: number): void
  regions(): number[]
}

const newline = 0x0a
const comma = 0x2c
const empty = Buffer.alloc(0)

/** Refuses a special header or a map that is beyond Go's limit. */
export function expectBounded(subject: string, limit: string, value: number): void {
  if (value > maxSpecialSize)
    throw createError('LIMIT_EXCEEDED', { subject, limit, value, maximum: maxSpecialSize })
}

/** Which map an entry's pax records announce: within them (0.0, 0.1), at the head of the body (1.0), or none. */
export function paxSparseVersion(records: PaxRecords): '0.1' | '1.0' | undefined {
  const major = textOf(records, 'GNU.sparse.major')
  const minor = textOf(records, 'GNU.sparse.minor')
  if (major === '0' && (minor === '0' || minor === '1')) return '0.1'
  if (major === '1' && minor === '0') return '1.0'
  if (major !== '' || minor !== '') return undefined
  return textOf(records, 'GNU.sparse.map') === '' ? undefined : '0.1'
}

/** The map of the formats 0.0 and 0.1. */
export function parsePaxMap(records: PaxRecords, fail: Fail): number[] {
  const count = parseInteger(records.get('GNU.sparse.numblocks') ?? empty)
  const map = records.get('GNU.sparse.map') ?? empty
  const regions = map.length > 0 ? parseFields(map, comma, 0, Infinity, fail) : []
  if (regions.length !== count * 2) fail('its sparse map has not as many entries as it says')
  return regions
}

/** The map of an old GNU header: 4 entries within the header, 21 more in each extension block. */
export class GnuSparseMap implements SparseMap {
  readonly size: number
  readonly inBody = 0
  complete: boolean
  #extensions = 0
  readonly #regions: number[] = []
  readonly #subject: string
  readonly #fail: Fail

  constructor(header: Buffer, at: number, subject: string, fail: Fail) {
    this.#subject = subject
    this.#fail = fail
    if (!isGnuBlock(header, at)) fail('a sparse entry is not in the GNU format')
    this.size = parseNumber(header, at + 483, 12, 'realsize', fail)
    this.#append(header, at + 386, 4)
    this.complete = header[at + 482] === 0
  }

  push(block: Buffer, at: number): void {
    this.#extensions += blockSize
    expectBounded(this.#subject, 'size of a sparse map', this.#extensions)
    this.#append(block, at, 21)
    this.complete = block[at + 504] === 0
  }

  regions(): number[] {
    return this.#regions
  }

  #append(block: Buffer, at: number, count: number): void {
    for (let entry = at; entry < at + count * 24 && block[entry] !== 0; entry += 24) {
      this.#regions.push(parseNumber(block, entry, 12, 'sparse offset', this.#fail))
      this.#regions.push(parseNumber(block, entry + 12, 12, 'sparse length', this.#fail))
    }
  }
}

/** The map of format 1.0: decimal lines at the head of the body, padded to whole blocks. */
export class PaxSparseMap implements SparseMap {
  readonly size = undefined
  complete = false
  readonly #text: Buffer[] = []
  #newlines = 0
  #needed = 0
  readonly #bodySize: number
  readonly #subject: string
  readonly #fail: Fail

  constructor(bodySize: number, subject: string, fail: Fail) {
    this.#bodySize = bodySize
    this.#subject = subject
    this.#fail = fail
    this.#expectRoom()
  }

  get inBody(): number {
    return this.#text.length * blockSize
  }

  push(block: Buffer, at: number): void {
    this.#text.push(Buffer.from(block.subarray(at, at + blockSize)))
    for (let index = at; index < at + blockSize; index++)
      if (block[index] === newline) this.#newlines++
    if (this.#needed === 0 && this.#newlines > 0) this.#needed = this.#count() * 2 + 1
    this.complete = this.#needed > 0 && this.#newlines >= this.#needed
    if (!this.complete) this.#expectRoom()
  }

  regions(): number[] {
    const text = Buffer.concat(this.#text)
    const start = text.indexOf(newline) + 1
    return parseFields(text, newline, start, this.#needed - 1, this.#fail)
  }

  /** Another block has to come: it must be within the body, and within the limit. */
  #expectRoom(): void {
    const needed = this.inBody + blockSize
    if (needed > this.#bodySize) this.#fail('its sparse map is longer than its body')
    expectBounded(this.#subject, 'size of a sparse map', needed)
  }

  #count(): number {
    const text = Buffer.concat(this.#text)
    const count = parseInteger(text, 0, text.indexOf(newline))
    return count >= 0 && count <= maxSpecialSize
      ? count
      : this.#fail('its sparse map has no valid count')
  }
}

/** Holds that the regions are in order, within the file, and as long together as what is stored of it. */
export function validateRegions(
  regions: readonly number[],
  size: number,
  stored: number,
  fail: Fail,
): void {
  let end = 0
  let total = 0
  for (let index = 0; index < regions.length; index += 2) {
    const offset = regions[index] as number
    const length = regions[index + 1] as number
    if (offset < end || length < 0 || offset + length > size)
      fail(
        'its sparse map has regions that overlap, are out of order or lie outside of the file',
      )
    end = offset + length
    total += length
  }
  if (total !== stored) fail('its sparse map does not cover its body')
}

function textOf(records: PaxRecords, key: string): string {
  return records.get(key)?.toString('latin1') ?? ''
}

/** Up to `most` numbers, each ended by a separator or the end. */
function parseFields(
  text: Buffer,
  separator: number,
  start: number,
  most: number,
  fail: Fail,
): number[] {
  const fields: number[] = []
  for (let at = start; at <= text.length && fields.length < most;) {
    let end = at
    while (end < text.length && text[end] !== separator) end++
    const field = parseInteger(text, at, end)
    if (Number.isNaN(field)) fail('its sparse map holds something that is not a number')
    fields.push(field)
    at = end + 1
  }
  return fields
}
