// Sorted runs of changes in a file: how one is written, read back, and how several become one. A record is its length, the
// kind, flags, and the path with those it is an alias of, each behind its length; runs are merged without decoding them.
import { change, type Change } from './change.ts'
import type { NamelessFile } from './fs/nameless-file.ts'

/** Records of a file that are sorted, each path in them once. */
export interface Run {
  readonly file: NamelessFile
  readonly offset: number
  readonly size: number
  readonly count: number
  /** Whether some are in it for the sake of others. */
  readonly hasAliases: boolean
}

const isOpaque = 1
const hasAlias = 2
const isLeaf = 4
const kindAt = 4
const flagsAt = 5
const pathAt = 10
const firstPiece = 1 << 16

/** Changes as records, one behind the other as they came. Garbage that lives long is dear: objects would be just that. */
export class Records {
  #bytes: Buffer
  #length = 0
  #offsets = new Uint32Array(1024)
  #count = 0

  constructor(size: number) {
    this.#bytes = Buffer.allocUnsafe(size)
  }

  /** False if there is no room for it any more. */
  add(each: Change): boolean {
    const end = this.#length + lengthOf(each)
    if (end > this.#bytes.length) {
      if (this.#count > 0) return false
      this.#bytes = Buffer.allocUnsafe(end)
    }
    if (this.#count === this.#offsets.length) {
      const offsets = new Uint32Array(this.#count * 2)
      offsets.set(this.#offsets)
      this.#offsets = offsets
    }
    encode(each, this.#bytes, this.#length)
    this.#offsets[this.#count++] = this.#length
    this.#length = end
    return true
  }

  /** Adds them to a file as a run, after which there are none. */
  moveTo(file: NamelessFile): Run {
    const bytes = this.#bytes
    const writer = new RunWriter(file)
    const sorted = this.#offsets
      .subarray(0, this.#count)
      .sort((a, b) => comparePaths(bytes, a, bytes, b) || a - b)
    for (let at = 0; at < this.#count; at++) {
      const record = sorted[at] as number
      const next = sorted[at + 1] as number
      const isAgain = at + 1 < this.#count && comparePaths(bytes, record, bytes, next) === 0
      if (isAgain) takeFlags(bytes, record, bytes, next)
      else writer.add(bytes, record)
    }
    this.#length = 0
    this.#count = 0
    return writer.finish()
  }
}

/** Writes one run, at the end of a file. */
export class RunWriter {
  readonly #file: NamelessFile
  readonly #offset: number
  #count = 0
  #hasAliases = false

  constructor(file: NamelessFile) {
    this.#file = file
    this.#offset = file.size
  }

  addChange(each: Change): void {
    const record = Buffer.allocUnsafe(lengthOf(each))
    encode(each, record, 0)
    this.add(record, 0)
  }

  add(bytes: Buffer, start: number): void {
    this.#count++
    this.#hasAliases ||= ((bytes[start + flagsAt] as number) & hasAlias) !== 0
    this.#file.append(bytes, start, start + bytes.readUInt32LE(start))
  }

  finish(): Run {
    const file = this.#file
    file.flush()
    return {
      file,
      offset: this.#offset,
      size: file.size - this.#offset,
      count: this.#count,
      hasAliases: this.#hasAliases,
    }
  }
}

/** The changes of a run, in order. */
export function* readRun(run: Run): Generator<Change, void, undefined> {
  for (const cursor = new Cursor(run, 0); cursor.next();)
    yield decode(cursor.bytes, cursor.start)
}

/** Makes one of several, at the end of a file. Of a path in more than one the last one's counts; opaque if any says so. */
export function mergeRuns(runs: readonly Run[], file: NamelessFile): Run {
  const writer = new RunWriter(file)
  const queue = new Queue(runs.map((run, at) => new Cursor(run, at)))
  let kept = Buffer.allocUnsafe(firstPiece)
  let isKept = false
  for (let { first } = queue; first; { first } = queue) {
    const { bytes, start } = first
    if (isKept && comparePaths(kept, 0, bytes, start) === 0) takeFlags(kept, 0, bytes, start)
    else if (isKept) writer.add(kept, 0)
    // what it was read into is used again
    const length = bytes.readUInt32LE(start)
    if (length > kept.length) kept = Buffer.allocUnsafe(length)
    bytes.copy(kept, 0, start, start + length)
    isKept = true
    queue.advance()
  }
  if (isKept) writer.add(kept, 0)
  return writer.finish()
}

/** Where one is in a run. */
class Cursor {
  /** What the current record is in, until the next one is asked for. */
  bytes: Buffer = Buffer.allocUnsafe(firstPiece)
  /** Where it begins there. */
  start = 0
  readonly order: number
  readonly #run: Run
  #next = 0
  #end = 0
  #read = 0

  constructor(run: Run, order: number) {
    this.#run = run
    this.order = order
  }

  /** Goes to the next record; false at the end. */
  next(): boolean {
    if (!this.#has(4)) return false
    const length = this.bytes.readUInt32LE(this.#next)
    if (!this.#has(length)) throw this.#run.file.cutShort()
    this.start = this.#next
    this.#next += length
    return true
  }

  /** Whether that much is left, in one piece. */
  #has(length: number): boolean {
    const { file, offset, size } = this.#run
    const held = this.#end - this.#next
    if (held >= length) return true
    if (held + size - this.#read < length) return false
    const { bytes } = this
    const piece = length > bytes.length ? Buffer.allocUnsafe(length * 2) : bytes
    bytes.copy(piece, 0, this.#next, this.#end)
    const wanted = Math.min(piece.length - held, size - this.#read)
    const count = file.read(piece.subarray(held, held + wanted), offset + this.#read)
    this.bytes = piece
    this.#next = 0
    this.#end = held + count
    this.#read += count
    return this.#end >= length
  }
}

/** Cursors in order of their paths; of those with one path in their own. */
class Queue {
  /** The first one is the last. */
  readonly #cursors: Cursor[] = []

  constructor(cursors: readonly Cursor[]) {
    for (const each of cursors) this.#insert(each)
  }

  get first(): Cursor | undefined {
    return this.#cursors.at(-1)
  }

  /** The first one goes to its next record. */
  advance(): void {
    const first = this.#cursors.pop()
    if (first) this.#insert(first)
  }

  #insert(cursor: Cursor): void {
    if (!cursor.next()) return
    let from = 0
    for (let to = this.#cursors.length; from < to;) {
      const middle = (from + to) >> 1
      if (compare(this.#cursors[middle] as Cursor, cursor) > 0) from = middle + 1
      else to = middle
    }
    this.#cursors.splice(from, 0, cursor)
  }
}

function compare(a: Cursor, b: Cursor): number {
  return comparePaths(a.bytes, a.start, b.bytes, b.start) || a.order - b.order
}

/** By hand: the call of something native would cost more than the few dozen bytes do. */
function comparePaths(a: Buffer, aStart: number, b: Buffer, bStart: number): number {
  const aLength = a.readUInt32LE(aStart + pathAt - 4)
  const bLength = b.readUInt32LE(bStart + pathAt - 4)
  const common = Math.min(aLength, bLength)
  for (let at = 0; at < common; at++) {
    const difference = (a[aStart + pathAt + at] as number) - (b[bStart + pathAt + at] as number)
    if (difference !== 0) return difference
  }
  return aLength - bLength
}

/** What a record that doesn't count leaves to the one that does. */
function takeFlags(from: Buffer, fromStart: number, to: Buffer, toStart: number): void {
  const flags = (from[fromStart + flagsAt] as number) & isOpaque
  to[toStart + flagsAt] = (to[toStart + flagsAt] as number) | flags
}

function lengthOf({ rawPath, aliasOf = [] }: Change): number {
  return aliasOf.reduce((sum, path) => sum + 4 + path.length, pathAt + rawPath.length)
}

function encode(each: Change, bytes: Buffer, start: number): void {
  const { kind, rawPath, aliasOf, opaque, leaf } = each
  bytes.writeUInt32LE(lengthOf(each), start)
  bytes[start + kindAt] = kind.charCodeAt(0)
  bytes[start + flagsAt] =
    (opaque ? isOpaque : 0) | (aliasOf ? hasAlias : 0) | (leaf ? isLeaf : 0)
  let at = start + flagsAt + 1
  for (const path of aliasOf ? [rawPath, ...aliasOf] : [rawPath]) {
    bytes.writeUInt32LE(path.length, at)
    bytes.set(path, at + 4)
    at += 4 + path.length
  }
}

function decode(bytes: Buffer, start: number): Change {
  const flags = bytes[start + flagsAt] as number
  const kind = String.fromCharCode(bytes[start + kindAt] as number) as Change['kind']
  const recordEnd = start + bytes.readUInt32LE(start)
  const paths: Buffer[] = []
  for (let at = start + flagsAt + 1; at < recordEnd;) {
    const end = at + 4 + bytes.readUInt32LE(at)
    // not a part of what is read into next
    paths.push(Buffer.from(bytes.subarray(at + 4, end)))
    at = end
  }
  const [rawPath, ...aliasOf] = paths as [Buffer, ...Buffer[]]
  const made = change(kind, rawPath, (flags & hasAlias) === 0 ? undefined : aliasOf)
  if ((flags & (isOpaque | isLeaf)) === 0) return made
  const opaque = (flags & isOpaque) !== 0
  return { ...made, ...(opaque && { opaque }), ...((flags & isLeaf) !== 0 && { leaf: true }) }
}
