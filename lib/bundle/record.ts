// The recorded state of a tree: one column per attribute, entries in mtree order (a directory, its other entries
// sorted bytewise, then its subdirectories sorted, each with everything beneath it). Columns instead of objects:
// 100,000 entries are a dozen allocations, are written to disk as they are, and compare without touching names.

import type { Xattr } from '../fs/entry-xattrs.ts'
import {
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
  type CString,
} from '../fs/libc.ts'

import { extraLength, readExtra, writeExtra, type Extra } from './extra.ts'

/** The kinds of things a walk can meet. */
export type EntryType = 'file' | 'directory' | 'symlink' | 'char' | 'block' | 'fifo' | 'socket'

const typeNames: Readonly<Record<number, EntryType>> = {
  [S_IFREG]: 'file',
  [S_IFDIR]: 'directory',
  [S_IFLNK]: 'symlink',
  [S_IFCHR]: 'char',
  [S_IFBLK]: 'block',
  [S_IFIFO]: 'fifo',
  [S_IFSOCK]: 'socket',
}

/** Bytes of a SHA-256 sum. */
export const hashBytes = 32

/**
 * One entry of a record, taken out of its columns. `rawPath` has no leading slash; the root's is empty.
 * `mtime` and `ctime` are nanoseconds. What a record made from mtree text can't know is undefined.
 */
export interface RecordEntry {
  readonly rawPath: Buffer
  readonly type: EntryType
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly nlink: number
  readonly size: number
  readonly mtime: bigint
  readonly ctime: bigint | undefined
  readonly ino: bigint | undefined
  readonly sha256: Buffer | undefined
  readonly rawLinkname: Buffer | undefined
  readonly devmajor: number | undefined
  readonly devminor: number | undefined
  readonly xattrs: readonly Xattr[]
}

/** The row of `sha256` is set. */
export const flagHashed = 1
/** The entry was read from mtree text: whole seconds, only the extended attributes that umoci tracks, no device numbers. */
export const flagRough = 2

/** The columns of a record, row `i` of each being entry `i`; all have the same number of rows. */
export interface Columns {
  /** Whole `st_mode`, type bits included. */
  mode: Uint16Array
  uid: Uint32Array
  gid: Uint32Array
  nlink: Uint32Array
  size: Float64Array
  mtime: BigInt64Array
  /** 0 where the text is all we have, or the entry must always be looked at. */
  ctime: BigInt64Array
  ino: BigUint64Array
  /** First row after everything beneath this entry. */
  end: Uint32Array
  /** End of the name in `names`, NUL included; it starts where the one before ends. */
  nameEnd: Uint32Array
  /** Where the entry's extra is in `extras`, or 0. */
  extra: Uint32Array
  /** Sum of the values below. */
  flags: Uint8Array
  /** {@link hashBytes} bytes a row. */
  sha256: Buffer
}

/** The state of a tree as it was recorded; row 0 is the root, whose name is empty. */
export class TreeRecord {
  readonly count: number
  readonly columns: Columns
  readonly names: Buffer
  extras: Buffer
  /** Whether a comparison brought stats up to date since the record was read: worth storing then. */
  isRenewed = false
  /** Entries whose ctime isn't below this may have changed unnoticed since (nanoseconds; git's "racy" rule). */
  freshTime: bigint

  constructor(columns: Columns, names: Buffer, extras: Buffer, freshTime: bigint) {
    this.count = columns.mode.length
    this.columns = columns
    this.names = names
    this.extras = extras
    this.freshTime = freshTime
  }

  /** The name of an entry; shares the record's memory. */
  name(row: number): Buffer {
    return this.names.subarray(this.nameStart(row), (this.columns.nameEnd[row] as number) - 1)
  }

  /** The name of an entry as system calls want it; shares the record's memory. */
  cname(row: number): CString {
    return this.names.subarray(this.nameStart(row), this.columns.nameEnd[row]) as CString
  }

  /** Where the name of an entry starts in `names`. */
  nameStart(row: number): number {
    return row === 0 ? 0 : (this.columns.nameEnd[row - 1] as number)
  }

  /** Whether an entry is a directory. */
  isDirectory(row: number): boolean {
    return ((this.columns.mode[row] as number) & S_IFMT) === S_IFDIR
  }

  /** The SHA-256 sum of a file if it is known; shares the record's memory. */
  hash(row: number): Buffer | undefined {
    const at = row * hashBytes
    return (this.columns.flags[row] as number) & flagHashed
      ? this.columns.sha256.subarray(at, at + hashBytes)
      : undefined
  }

  /** Link target, device numbers and extended attributes of an entry; the Buffers share the record's memory. */
  extra(row: number): Extra {
    const at = this.columns.extra[row] as number
    return at === 0 ? {} : readExtra(this.extras, at, this.columns.mode[row] as number)
  }

  /** The path of an entry, without a slash in front. Looks at all rows before it: for single ones. */
  path(row: number): Buffer {
    const parts: Buffer[] = []
    for (let above = 1; above <= row; above++)
      if (above === row || (this.columns.end[above] as number) > row)
        parts.push(this.name(above), Buffer.from('/'))
    return Buffer.concat(parts.slice(0, -1))
  }

  /** The row of a path, or -1. Walks along the siblings: for single look-ups. */
  find(rawPath: Buffer): number {
    let row = 0
    for (let from = 0; from < rawPath.length;) {
      const slash = rawPath.indexOf(0x2f, from)
      const to = slash === -1 ? rawPath.length : slash
      row = this.child(row, rawPath.subarray(from, to))
      if (row === -1) return -1
      from = to + 1
    }
    return row
  }

  /** The row of a directory's entry of this name, or -1. */
  child(parent: number, name: Buffer): number {
    const { end } = this.columns
    const last = end[parent] as number
    for (let row = parent + 1; row < last; row = end[row] as number)
      if (this.name(row).equals(name)) return row
    return -1
  }

  /**
   * Takes what a comparison found out. `states` has for each row 0: not known to be unchanged; 1: trusted and
   * unchanged; 2: looked at, unchanged, its stats brought up to date. `time` is when the comparison began.
   * Rows that the old `freshTime` distrusted stay distrusted.
   */
  settle(states: Uint8Array, extras: ReadonlyMap<number, Extra>, time: bigint): void {
    if (!states.includes(2)) return
    const { ctime, ino, flags } = this.columns
    for (let row = 0; row < this.count; row++)
      if (states[row] === 2) flags[row] = (flags[row] as number) & ~flagRough
    if (time !== 0n) {
      for (let row = 0; row < this.count; row++) {
        const isTrusted = states[row] !== 0 || (ctime[row] as bigint) < this.freshTime
        if (!isTrusted) ctime[row] = ino[row] = 0n
      }
      this.freshTime = time
    }
    if (extras.size > 0) this.#replaceExtras(extras)
    this.isRenewed = true
  }

  #replaceExtras(changed: ReadonlyMap<number, Extra>): void {
    const { extra } = this.columns
    const parts: Buffer[] = [Buffer.alloc(1)]
    let end = 1
    for (let row = 0; row < this.count; row++) {
      if (extra[row] === 0 && !changed.has(row)) continue
      const value = changed.get(row) ?? this.extra(row)
      const bytes = Buffer.allocUnsafe(extraLength(value))
      writeExtra(value, bytes, 0)
      parts.push(bytes)
      extra[row] = end
      end += bytes.length
    }
    this.extras = Buffer.concat(parts)
  }

  /** Every entry, in mtree order. */
  *entries(): Generator<RecordEntry, void, undefined> {
    const { columns } = this
    const parents: Array<{ path: Buffer; end: number }> = []
    for (let row = 0; row < this.count; row++) {
      while (parents.length > 0 && row >= (parents.at(-1)?.end ?? 0)) parents.pop()
      const parent = parents.at(-1)?.path
      const rawPath = joinPath(parent, this.name(row))
      if (this.isDirectory(row))
        parents.push({ path: rawPath, end: columns.end[row] as number })
      yield this.entry(row, rawPath)
    }
  }

  /** One entry, whose path the caller knows. */
  entry(row: number, rawPath: Buffer): RecordEntry {
    const { columns } = this
    const { rawLinkname, device, xattrs } = this.extra(row)
    const mode = columns.mode[row] as number
    const ino = columns.ino[row] as bigint
    const ctime = columns.ctime[row] as bigint
    return {
      rawPath,
      type: typeNames[mode & S_IFMT] ?? 'file',
      mode: mode & 0o7777,
      uid: columns.uid[row] as number,
      gid: columns.gid[row] as number,
      nlink: columns.nlink[row] as number,
      size: columns.size[row] as number,
      mtime: columns.mtime[row] as bigint,
      ctime: ctime !== 0n ? ctime : undefined,
      ino: ino !== 0n ? ino : undefined,
      sha256: this.hash(row),
      rawLinkname,
      devmajor: device?.[0],
      devminor: device?.[1],
      xattrs: xattrs ?? [],
    }
  }
}

const minTime = -(2n ** 63n)
const maxTime = 2n ** 63n - 1n

/** A time as a column holds it: nanoseconds between the years 1677 and 2262, what is beyond counts as the end. */
export function clampTime(time: bigint): bigint {
  if (time > maxTime) return maxTime
  return time < minTime ? minTime : time
}

/** Joins a directory's path and a name; the root's path is empty (or undefined: then the name itself is the path). */
export function joinPath(parent: Buffer | undefined, name: Buffer): Buffer {
  if (!parent || parent.length === 0) return Buffer.from(name)
  const path = Buffer.allocUnsafe(parent.length + 1 + name.length)
  parent.copy(path)
  path[parent.length] = 0x2f
  name.copy(path, parent.length + 1)
  return path
}
