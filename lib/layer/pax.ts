// Extended header records, read exactly as Go's archive/tar reads them. Keys are kept as latin1 text, which loses
// no byte; values stay bytes. A record that isn't well formed makes the whole archive unreadable.
import type { Draft, Fail } from './tar-block.ts'

/** The records of one extended header by key; of equal keys the last one counts. */
export type PaxRecords = Map<string, Buffer>

const xattrPrefix = 'SCHILY.xattr.'
const maxInt64 = 2n ** 63n - 1n
const nul = 0x00
const newline = 0x0a
const space = 0x20
const plus = 0x2b
const comma = 0x2c
const minus = 0x2d
const dot = 0x2e
const zero = 0x30
const equals = 0x3d

/** Records that a container runtime leaves out, though they mean something to the tool that wrote them. */
const ignored = /^(?:SCHILY\.(?:acl\.|fflags)|LIBARCHIVE\.xattr\.|RHT\.security\.)/

/**
 * Reads the body of an extended header. Values are slices of `body`.
 * The pairs of the sparse format 0.0 are joined into one `GNU.sparse.map`, the form of 0.1.
 */
export function parsePax(body: Buffer, fail: Fail): PaxRecords {
  const records: PaxRecords = new Map()
  const sparse: Buffer[] = []
  for (let at = 0; at < body.length;) {
    const start = skipTo(body, space, at, body.length) + 1
    const end = recordEnd(body, at, start, fail)
    const middle = skipTo(body, equals, start, end)
    if (middle === start || middle >= end) fail('a pax record has no key')
    const key = body.toString('latin1', start, middle)
    const value = body.subarray(middle + 1, end)
    if (hasNul(key, value)) fail('a pax record has a NUL byte in a name')
    if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
      const even = sparse.length % 2 === 0
      if (even !== (key === 'GNU.sparse.offset') || value.includes(comma))
        fail('its sparse records are out of order')
      sparse.push(value)
    } else records.set(key, value)
    at = end + 1
  }
  if (sparse.length > 0) records.set('GNU.sparse.map', join(sparse))
  return records
}

/** Applies the records to a header as far as they concern every kind of entry; returns the keys left out. */
export function applyPax(records: PaxRecords, header: Draft, fail: Fail): string[] {
  const xattrs: Array<readonly [Buffer, Buffer]> = []
  const left: string[] = []
  for (const [key, value] of records) {
    if (key.startsWith(xattrPrefix))
      xattrs.push([Buffer.from(key.slice(xattrPrefix.length), 'latin1'), Buffer.from(value)])
    else if (ignored.test(key)) left.push(key)
    else if (value.length > 0) applyRecord(key, value, header, fail)
  }
  if (xattrs.length > 0) header.xattrs = xattrs
  return left
}

/**
 * A decimal number as Go's `strconv.ParseInt` takes it: an optional sign, digits, 64 bits; NaN if it is none.
 * Inexact beyond 2^53.
 */
export function parseInteger(bytes: Buffer, start = 0, end: number = bytes.length): number {
  let at = start
  if (bytes[at] === plus || bytes[at] === minus) at++
  if (at >= end) return Number.NaN
  let value = 0
  for (; at < end; at++) {
    const digit = (bytes[at] as number) - 0x30
    if (digit < 0 || digit > 9) return Number.NaN
    value = value * 10 + digit
  }
  if (value > Number.MAX_SAFE_INTEGER) return Number(parseWide(bytes, start, end) ?? Number.NaN)
  return bytes[start] === minus ? 0 - value : value
}

/** The same for a sign and digits that are known to be that: exact, but slow. */
function parseWide(bytes: Buffer, start: number, end: number): bigint | undefined {
  let first = bytes[start] === plus || bytes[start] === minus ? start + 1 : start
  while (first < end - 1 && bytes[first] === zero) first++
  if (end - first > 19) return undefined
  const digits = BigInt(bytes.toString('latin1', first, end))
  const value = bytes[start] === minus ? -digits : digits
  return value > maxInt64 || value < -maxInt64 - 1n ? undefined : value
}

function skipTo(bytes: Buffer, byte: number, start: number, end: number): number {
  let at = start
  while (at < end && bytes[at] !== byte) at++
  return at
}

/** Where the record at `at` ends, its key beginning at `start`: the place of its newline. */
function recordEnd(body: Buffer, at: number, start: number, fail: Fail): number {
  const length = start > body.length ? Number.NaN : parseInteger(body, at, start - 1)
  if (!(length >= 5 && length <= body.length - at)) fail('a pax record has no valid length')
  const end = at + length - 1
  if (end < start || body[end] !== newline) fail('a pax record does not end where it says')
  return end
}

function hasNul(key: string, value: Buffer): boolean {
  switch (key) {
    case 'path':
    case 'linkpath':
    case 'uname':
    case 'gname':
    case 'GNU.sparse.name':
      return value.includes(nul)
    default:
      return key.includes('\0')
  }
}

function join(values: Buffer[]): Buffer {
  return Buffer.from(values.map(value => value.toString('latin1')).join(','), 'latin1')
}

function applyRecord(key: string, value: Buffer, header: Draft, fail: Fail): void {
  switch (key) {
    case 'path':
      header.rawPath = Buffer.from(value)
      break
    case 'linkpath':
      header.rawLinkname = Buffer.from(value)
      break
    case 'uid':
    case 'gid':
    case 'size':
      header[key] = parseInteger(value)
      if (Number.isNaN(header[key])) fail(`its pax ${key} is not a number`)
      break
    case 'mtime':
    case 'atime':
      header[key] = parseTime(value) ?? fail(`its pax ${key} is not a time`)
      break
    case 'ctime':
      if (parseTime(value) === undefined) fail('its pax ctime is not a time')
      break
  }
}

/** Seconds and an optional fraction as nanoseconds; digits beyond the ninth are cut off, towards zero. */
function parseTime(value: Buffer): bigint | undefined {
  const point = skipTo(value, dot, 0, value.length)
  const seconds = parseInteger(value, 0, point)
  if (Number.isNaN(seconds)) return undefined
  let fraction = 0
  for (let at = point + 1, unit = 1e8; at < value.length; at++, unit = Math.floor(unit / 10)) {
    const digit = (value[at] as number) - 0x30
    if (digit < 0 || digit > 9) return undefined
    fraction += digit * unit
  }
  const whole = Number.isSafeInteger(seconds) ? BigInt(seconds) : parseWide(value, 0, point)
  if (whole === undefined) return undefined
  return whole * 1_000_000_000n + BigInt(value[0] === minus ? -fraction : fraction)
}
