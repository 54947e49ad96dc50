// One 512-byte header block: ustar, v7, star or GNU, read exactly as Go's archive/tar reads it.
// Numbers may be octal or base-256 and may be negative; nothing here judges what they mean.
import { looksLike } from './sniff.ts'
import type { TarHeader } from './tar-header.ts'

/** Headers, and the padding of bodies, come in blocks of this many bytes. */
export const blockSize = 512

/** Throws the error for a malformed archive; the caller knows where in the archive that is. */
export type Fail = (reason: string) => never

/** A header that is still being put together; `size` is the size of the body in the archive. */
export type Draft = { -readonly [Key in keyof TarHeader]: TarHeader[Key] }

const empty = Buffer.alloc(0)
const noXattrs: TarHeader['xattrs'] = []
const zeros = Buffer.alloc(blockSize)
const maxInt64 = 2n ** 63n - 1n
const nsPerSecond = 1_000_000_000n

/** Whether a block holds nothing but zeros: two of them end an archive. */
export function isZeroBlock(block: Buffer, at: number): boolean {
  return block[at] === 0 && zeros.compare(block, at, at + blockSize) === 0
}

/** Whether a header block is in the GNU format; the only one whose type S is understood. */
export function isGnuBlock(block: Buffer, at: number): boolean {
  return matches(block, at + 257, 'ustar  \0')
}

/** Reads a header block at `at`; type and xattrs are left to the caller. Nothing of `block` is kept. */
export function parseBlock(block: Buffer, at: number, fail: Fail): Draft {
  verifyChecksum(block, at, fail)
  const header: Draft = {
    type: 'file',
    rawPath: cstring(block, at, 100),
    rawLinkname: cstring(block, at + 157, 100),
    mode: parseMode(block, at + 100, fail),
    uid: parseNumber(block, at + 108, 8, 'uid', fail),
    gid: parseNumber(block, at + 116, 8, 'gid', fail),
    size: parseNumber(block, at + 124, 12, 'size', fail),
    mtime: parseTime(block, at + 136) ?? fail('its mtime field is not a number'),
    atime: undefined,
    devmajor: 0,
    devminor: 0,
    xattrs: noXattrs,
    typeflag: block[at + 156] as number,
    sparse: false,
  }
  const ustar = matches(block, at + 257, 'ustar\0')
  if (!ustar && !isGnuBlock(block, at)) return header
  header.devmajor = parseNumber(block, at + 329, 8, 'devmajor', fail)
  header.devminor = parseNumber(block, at + 337, 8, 'devminor', fail)
  if (!ustar) parseGnuFields(header, block, at)
  else if (matches(block, at + 508, 'tar\0')) parseStarFields(header, block, at, fail)
  else prependPrefix(header, block, at + 345, 155)
  return header
}

/** A number field, octal or base-256; inexact beyond 2^53. */
export function parseNumber(
  block: Buffer,
  at: number,
  length: number,
  name: string,
  fail: Fail,
): number {
  const value = isBinary(block, at)
    ? Number(parseBinary(block, at, length) ?? Number.NaN)
    : parseOctal(block, at, length)
  return Number.isNaN(value) ? fail(`its ${name} field is not a number`) : value
}

function parseMode(block: Buffer, at: number, fail: Fail): number {
  const binary = isBinary(block, at) ? parseBinary(block, at, 8) : undefined
  if (binary !== undefined) return Number(BigInt.asUintN(12, binary))
  return parseNumber(block, at, 8, 'mode', fail) & 0o7777
}

/** Seconds as nanoseconds; undefined where the field is not a number. */
function parseTime(block: Buffer, at: number): bigint | undefined {
  if (isBinary(block, at)) {
    const seconds = parseBinary(block, at, 12)
    return seconds === undefined ? undefined : seconds * nsPerSecond
  }
  const seconds = parseOctal(block, at, 12)
  return Number.isNaN(seconds) ? undefined : BigInt(seconds) * nsPerSecond
}

function parseStarFields(header: Draft, block: Buffer, at: number, fail: Fail): void {
  prependPrefix(header, block, at + 345, 131)
  header.atime = parseTime(block, at + 476) ?? fail('its atime field is not a number')
  if (parseTime(block, at + 488) === undefined) fail('its ctime field is not a number')
}

/** GNU has atime and ctime where ustar has the prefix; old Go wrote a prefix there all the same. */
function parseGnuFields(header: Draft, block: Buffer, at: number): void {
  const atime = block[at + 345] === 0 ? 0n : parseTime(block, at + 345)
  const ctime = block[at + 357] === 0 ? 0n : parseTime(block, at + 357)
  if (atime !== undefined && ctime !== undefined) {
    if (block[at + 345] !== 0) header.atime = atime
    return
  }
  const end = stringEnd(block, at + 345, 155)
  for (let index = at + 345; index < end; index++) if ((block[index] as number) >= 0x80) return
  prependPrefix(header, block, at + 345, 155)
}

function prependPrefix(header: Draft, block: Buffer, at: number, length: number): void {
  if (block[at] === 0) return
  const prefix = cstring(block, at, length)
  header.rawPath = Buffer.concat([prefix, Buffer.from('/'), header.rawPath])
}

/** A copy of a field's bytes, up to the first NUL if there is one. */
function cstring(block: Buffer, at: number, length: number): Buffer {
  const end = stringEnd(block, at, length)
  if (end === at) return empty
  const copy = Buffer.allocUnsafe(end - at)
  block.copy(copy, 0, at, end)
  return copy
}

function stringEnd(block: Buffer, at: number, length: number): number {
  const end = at + length
  let index = at
  while (index < end && block[index] !== 0) index++
  return index
}

function isBinary(block: Buffer, at: number): boolean {
  return (block[at] as number) >= 0x80
}

/** Two's complement behind the marker bit; undefined where it doesn't fit 64 bits. */
function parseBinary(block: Buffer, at: number, length: number): bigint | undefined {
  const hex = block.toString('hex', at, at + length)
  const value = BigInt.asIntN(length * 8 - 1, BigInt(`0x${hex}`))
  return value > maxInt64 || value < -maxInt64 - 1n ? undefined : value
}

/** Octal digits between any spaces and NULs; an empty field is 0. NaN where there is anything else. */
function parseOctal(block: Buffer, at: number, length: number): number {
  let end = at + length
  while (at < end && isBlank(block[at] as number)) at++
  while (at < end && isBlank(block[end - 1] as number)) end--
  let value = 0
  for (; at < end && block[at] !== 0; at++) {
    const digit = (block[at] as number) - 0x30
    if (digit < 0 || digit > 7) return Number.NaN
    value = value * 8 + digit
  }
  return value
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0
}

/** The sum of the bytes, the checksum field counting as spaces; Sun's tar summed signed bytes. */
function verifyChecksum(block: Buffer, at: number, fail: Fail): void {
  const field = at + 148
  let sum = 8 * 0x20
  let high = 0
  for (let index = at; index < at + blockSize; index++) {
    const byte = block[index] as number
    sum += byte
    high += byte >> 7
  }
  for (let index = field; index < field + 8; index++) {
    const byte = block[index] as number
    sum -= byte
    high -= byte >> 7
  }
  const expected = parseOctal(block, field, 8)
  if (expected !== sum && expected !== sum - high * 256)
    fail(`bad header checksum${looksLike(block.subarray(at, at + 8))}`)
}

function matches(block: Buffer, at: number, text: string): boolean {
  for (let index = 0; index < text.length; index++)
    if (block[at + index] !== text.charCodeAt(index)) return false
  return true
}
