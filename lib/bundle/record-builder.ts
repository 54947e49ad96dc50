// Fills the columns of a record, entry by entry, in mtree order. The columns grow by doubling.
import { createError } from '../errors.ts'
import { S_IFDIR, S_IFMT } from '../fs/libc.ts'
import { extraLength, writeExtra, type Extra } from './extra.ts'
import {
  clampTime,
  flagHashed,
  flagRough,
  hashBytes,
  TreeRecord,
  type Columns,
} from './record.ts'

/** Bytes of link targets and attributes beyond {@link extraShare} for each entry: all of them are in memory. */
const maxExtras = 4 << 20
const extraShare = 128

/** The attributes of an entry that are in columns of their own; see {@link Columns}. */
export interface Row {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly nlink: number
  readonly size: number
  readonly mtime: bigint
  readonly ctime: bigint
  readonly ino: bigint
}

/**
 * Builds a record. `add` a directory, then its entries that aren't directories, then each subdirectory with what is
 * beneath it, then call `leave` for it; the first entry is the root, and its name is empty.
 */
export class RecordBuilder {
  count = 0
  #columns: Columns
  #names: Buffer = Buffer.allocUnsafe(16 * 1024)
  #nameEnd = 0
  // the first byte is unused: offset 0 means "no extra"
  #extras: Buffer = Buffer.alloc(1024)
  #extraEnd = 1

  constructor(capacity = 1024) {
    this.#columns = makeColumns(capacity)
  }

  /** Adds an entry named `names[from, to)` and returns its row. */
  add(values: Row, names: Uint8Array, from: number, to: number): number {
    const row = this.count++
    if (row === this.#columns.mode.length) this.#columns = resize(this.#columns, row, row * 2)
    const columns = this.#columns
    columns.mode[row] = values.mode
    columns.uid[row] = values.uid
    columns.gid[row] = values.gid
    columns.nlink[row] = values.nlink
    columns.size[row] = values.size
    columns.mtime[row] = clampTime(values.mtime)
    columns.ctime[row] = clampTime(values.ctime)
    columns.ino[row] = values.ino
    columns.end[row] = row + 1
    if (this.#nameEnd + to - from >= this.#names.length)
      this.#names = grow(this.#names, this.#nameEnd, to - from + 1)
    for (let at = from; at < to; at++) this.#names[this.#nameEnd++] = names[at] as number
    this.#names[this.#nameEnd++] = 0
    columns.nameEnd[row] = this.#nameEnd
    return row
  }

  /** Ends a directory: what was added since is beneath it. */
  leave(row: number): void {
    this.#columns.end[row] = this.count
  }

  /** Sets the SHA-256 sum of a file. */
  setHash(row: number, sha256: Uint8Array): void {
    this.#columns.sha256.set(sha256, row * hashBytes)
    this.#columns.flags[row] = (this.#columns.flags[row] as number) | flagHashed
  }

  /**
   * Sets what has no column; nothing is stored if it is empty.
   * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED for far more than any real tree has: a small layer can hold gigabytes
   */
  setExtra(row: number, extra: Extra): void {
    if (!extra.rawLinkname && !extra.device && !extra.xattrs?.length) return
    const length = extraLength(extra)
    this.#checkExtras(row, length)
    if (this.#extraEnd + length > this.#extras.length)
      this.#extras = grow(this.#extras, this.#extraEnd, length)
    this.#columns.extra[row] = this.#extraEnd
    this.#extraEnd = writeExtra(extra, this.#extras, this.#extraEnd)
  }

  #checkExtras(row: number, more: number): void {
    const maximum = maxExtras + extraShare * this.count
    const value = this.#extraEnd + more
    if (value <= maximum) return
    const { nameEnd } = this.#columns
    const from = row === 0 ? 0 : (nameEnd[row - 1] as number)
    const subject = this.#names.subarray(from, (nameEnd[row] as number) - 1)
    const limit = 'size of the link targets and extended attributes of a tree'
    throw createError('LIMIT_EXCEEDED', { subject, limit, value, maximum })
  }

  /**
   * Copies rows of another record, a directory and all beneath it or a single entry, and returns the first new row.
   * Those that the other record's `freshTime` distrusts are copied as entries to be looked at again.
   */
  copy(record: TreeRecord, from: number, to: number): number {
    const start = this.count
    const nameFrom = record.nameStart(from)
    const nameTo = record.columns.nameEnd[to - 1] as number
    const length = nameTo - nameFrom
    if (this.#nameEnd + length > this.#names.length)
      this.#names = grow(this.#names, this.#nameEnd, length)
    record.names.copy(this.#names, this.#nameEnd, nameFrom, nameTo)
    this.count += to - from
    if (this.count > this.#columns.mode.length)
      this.#columns = resize(this.#columns, start, this.count * 2)
    const columns = this.#columns
    const source = record.columns
    columns.mode.set(source.mode.subarray(from, to), start)
    columns.uid.set(source.uid.subarray(from, to), start)
    columns.gid.set(source.gid.subarray(from, to), start)
    columns.nlink.set(source.nlink.subarray(from, to), start)
    columns.size.set(source.size.subarray(from, to), start)
    columns.mtime.set(source.mtime.subarray(from, to), start)
    columns.ctime.set(source.ctime.subarray(from, to), start)
    columns.ino.set(source.ino.subarray(from, to), start)
    columns.flags.set(source.flags.subarray(from, to), start)
    source.sha256.copy(columns.sha256, start * hashBytes, from * hashBytes, to * hashBytes)
    for (let row = from; row < to; row++) {
      const target = start + row - from
      columns.end[target] = (source.end[row] as number) - from + start
      columns.nameEnd[target] = (source.nameEnd[row] as number) - nameFrom + this.#nameEnd
      if (source.extra[row]) this.setExtra(target, record.extra(row))
      if ((source.ctime[row] as bigint) >= record.freshTime) this.distrust(target)
    }
    this.#nameEnd += length
    return start
  }

  /** Notes that an entry is only what mtree text can hold. */
  setRough(row: number): void {
    this.#columns.flags[row] = (this.#columns.flags[row] as number) | flagRough
  }

  /** Makes an entry that was added or copied one that is always looked at again. */
  distrust(row: number): void {
    this.#columns.ctime[row] = 0n
    this.#columns.ino[row] = 0n
  }

  /** The record; the builder isn't used any more. */
  finish(freshTime: bigint): TreeRecord {
    // views: memory that was never touched takes no room
    return new TreeRecord(
      firstRows(this.#columns, this.count),
      this.#names.subarray(0, this.#nameEnd),
      this.#extras.subarray(0, this.#extraEnd),
      freshTime,
    )
  }
}

/** Whether `st_mode` is that of a directory. */
export function isDirectoryMode(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR
}

function makeColumns(rows: number): Columns {
  return {
    mode: new Uint16Array(rows),
    uid: new Uint32Array(rows),
    gid: new Uint32Array(rows),
    nlink: new Uint32Array(rows),
    size: new Float64Array(rows),
    mtime: new BigInt64Array(rows),
    ctime: new BigInt64Array(rows),
    ino: new BigUint64Array(rows),
    end: new Uint32Array(rows),
    nameEnd: new Uint32Array(rows),
    extra: new Uint32Array(rows),
    flags: new Uint8Array(rows),
    sha256: Buffer.alloc(rows * hashBytes),
  }
}

function firstRows(columns: Columns, count: number): Columns {
  return {
    mode: columns.mode.subarray(0, count),
    uid: columns.uid.subarray(0, count),
    gid: columns.gid.subarray(0, count),
    nlink: columns.nlink.subarray(0, count),
    size: columns.size.subarray(0, count),
    mtime: columns.mtime.subarray(0, count),
    ctime: columns.ctime.subarray(0, count),
    ino: columns.ino.subarray(0, count),
    end: columns.end.subarray(0, count),
    nameEnd: columns.nameEnd.subarray(0, count),
    extra: columns.extra.subarray(0, count),
    flags: columns.flags.subarray(0, count),
    sha256: columns.sha256.subarray(0, count * hashBytes),
  }
}

function resize(old: Columns, used: number, rows: number): Columns {
  const columns = makeColumns(rows)
  columns.mode.set(old.mode.subarray(0, used))
  columns.uid.set(old.uid.subarray(0, used))
  columns.gid.set(old.gid.subarray(0, used))
  columns.nlink.set(old.nlink.subarray(0, used))
  columns.size.set(old.size.subarray(0, used))
  columns.mtime.set(old.mtime.subarray(0, used))
  columns.ctime.set(old.ctime.subarray(0, used))
  columns.ino.set(old.ino.subarray(0, used))
  columns.end.set(old.end.subarray(0, used))
  columns.nameEnd.set(old.nameEnd.subarray(0, used))
  columns.extra.set(old.extra.subarray(0, used))
  columns.flags.set(old.flags.subarray(0, used))
  columns.sha256.set(old.sha256.subarray(0, used * hashBytes))
  return columns
}

function grow(old: Buffer, used: number, more: number): Buffer {
  const buffer = Buffer.allocUnsafe(Math.max(old.length * 2, used + more))
  old.copy(buffer, 0, 0, used)
  return buffer
}
