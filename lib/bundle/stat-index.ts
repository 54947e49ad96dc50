// The stat index: a record as it is in memory, in a file beside the mtree text. With it an unchanged tree is
// compared without reading the text or opening a file. It is a cache: whatever is wrong with it, it just doesn't count.
import { createHash } from 'node:crypto'
import type { Digest } from '../oci/digest.ts'
import { hashBytes, TreeRecord, type Columns } from './record.ts'

/** What an index belongs to; both must be the same for it to count. */
export interface IndexOwner {
  /** Of the manifest that the bundle was made from. */
  readonly manifest: Digest
  /** SHA-256 sum of the mtree text beside the index: if umoci rewrote the text, the index is stale. */
  readonly textSha256: Buffer
}

// Written in the machine's own byte order, so that a machine of the other order finds no magic.
const magic = 0x6b6f_6369
const version = 1
const headerBytes = 256
const digestAt = 72
// without the sums: 4 × 8, 6 × 4, 2 and 1 bytes a row
const rowBytes = 4 * 8 + 6 * 4 + 2 + 1

/**
 * The file's content, in pieces that are the record's own memory: it must not change meanwhile. Layout: header, the
 * columns, widest first, then sums, names, extras, and a SHA-256 sum of all that.
 */
export function* encodeStatIndex(
  record: TreeRecord,
  owner: IndexOwner,
): Generator<Buffer, void, undefined> {
  const { columns, count, names, extras } = record
  const header = Buffer.alloc(headerBytes)
  new Uint32Array(header.buffer, header.byteOffset, 6).set([
    magic,
    version,
    count,
    names.length,
    extras.length,
    0,
  ])
  new BigInt64Array(header.buffer, header.byteOffset + 24, 1)[0] = record.freshTime
  owner.textSha256.copy(header, 32, 0, hashBytes)
  header.write(owner.manifest, digestAt, 'latin1')
  const parts = [header, ...columnsOf(columns).map(bytesOf), columns.sha256, names, extras]
  const hash = createHash('sha256')
  for (const part of parts) {
    hash.update(part)
    yield part
  }
  yield hash.digest()
}

/**
 * Reads an index back; undefined if it is missing, damaged, of another version, or belongs to another manifest or text.
 * The record may share the bytes.
 */
export function decodeStatIndex(
  bytes: Buffer | undefined,
  owner: IndexOwner,
): TreeRecord | undefined {
  if (!bytes || bytes.length < headerBytes + hashBytes) return undefined
  const file = bytes.byteOffset % 8 === 0 ? bytes : realigned(bytes)
  const bodyEnd = file.length - hashBytes
  const [word, format, count, namesLength, extrasLength] = new Uint32Array(
    file.buffer,
    file.byteOffset,
    6,
  ) as unknown as [number, number, number, number, number]
  if (word !== magic || format !== version) return undefined
  if (headerBytes + count * (rowBytes + hashBytes) + namesLength + extrasLength !== bodyEnd)
    return undefined
  if (!file.subarray(32, 32 + hashBytes).equals(owner.textSha256)) return undefined
  const digest = file.toString('latin1', digestAt, headerBytes)
  if (digest.slice(0, digest.indexOf('\0')) !== owner.manifest) return undefined
  const sum = createHash('sha256').update(file.subarray(0, bodyEnd)).digest()
  if (!sum.equals(file.subarray(bodyEnd))) return undefined

  const extrasAt = bodyEnd - extrasLength
  const namesAt = extrasAt - namesLength
  const columns = readColumns(file, count, namesAt)
  if (!isSound(columns, count, namesLength, extrasLength)) return undefined
  const freshTime = new BigInt64Array(file.buffer, file.byteOffset + 24, 1)[0] as bigint
  return new TreeRecord(
    columns,
    file.subarray(namesAt, extrasAt),
    file.subarray(extrasAt, bodyEnd),
    freshTime,
  )
}

type Column = Exclude<Columns[keyof Columns], Buffer>

/** In the order in which they are stored, so that each is aligned. */
function columnsOf(columns: Columns): Column[] {
  const { size, mtime, ctime, ino, uid, gid, nlink, end, nameEnd, extra, mode, flags } = columns
  return [size, mtime, ctime, ino, uid, gid, nlink, end, nameEnd, extra, mode, flags]
}

function readColumns(file: Buffer, count: number, namesAt: number): Columns {
  const { buffer } = file
  const wide = file.byteOffset + headerBytes
  const narrow = wide + 4 * 8 * count
  const mode = narrow + 6 * 4 * count
  const sums = namesAt - count * hashBytes
  return {
    size: new Float64Array(buffer, wide, count),
    mtime: new BigInt64Array(buffer, wide + 8 * count, count),
    ctime: new BigInt64Array(buffer, wide + 16 * count, count),
    ino: new BigUint64Array(buffer, wide + 24 * count, count),
    uid: new Uint32Array(buffer, narrow, count),
    gid: new Uint32Array(buffer, narrow + 4 * count, count),
    nlink: new Uint32Array(buffer, narrow + 8 * count, count),
    end: new Uint32Array(buffer, narrow + 12 * count, count),
    nameEnd: new Uint32Array(buffer, narrow + 16 * count, count),
    extra: new Uint32Array(buffer, narrow + 20 * count, count),
    mode: new Uint16Array(buffer, mode, count),
    flags: new Uint8Array(buffer, mode + 2 * count, count),
    sha256: file.subarray(sums, namesAt),
  }
}

// The sum tells damage; this keeps whoever forged one from sending a walk in circles.
function isSound(
  { end, nameEnd, extra }: Columns,
  count: number,
  namesLength: number,
  extrasLength: number,
): boolean {
  if (count === 0 || end[0] !== count || nameEnd[0] !== 1) return false
  let nameStart = 0
  const open: number[] = []
  for (let row = 0; row < count; row++) {
    while (open.length > 0 && row >= (open.at(-1) as number)) open.pop()
    const last = end[row] as number
    if (last <= row || last > (open.at(-1) ?? count)) return false
    if (last > row + 1) open.push(last)
    if ((nameEnd[row] as number) <= nameStart) return false
    nameStart = nameEnd[row] as number
    if ((extra[row] as number) >= Math.max(extrasLength, 1)) return false
  }
  return nameStart === namesLength
}

function bytesOf(column: Column): Buffer {
  return Buffer.from(column.buffer, column.byteOffset, column.byteLength)
}

function realigned(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  bytes.copy(copy)
  return copy
}
