// A list of changes that may hold too much, made exact: each path is compared with the record. Only what is listed is
// looked at, so that it costs what the list costs, not what the tree does.
import { change, leafChange, type Change } from '../change.ts'
import { ChangeSorter, type ChangeList } from '../change-list.ts'
import { createError, isError } from '../errors.ts'
import { readXattrs, XattrReader } from '../fs/entry-xattrs.ts'
import { cstring, S_IFDIR, S_IFMT, S_IFREG, type CString, type Stat } from '../fs/libc.ts'
import { scanError } from '../fs/open-file.ts'
import type { DirNode, Rooted } from '../fs/rooted.ts'
import { EntryComparison } from './compare-entry.ts'
import { machineXattrs, type CompareOptions } from './compare-tree.ts'
import type { TreeRecord } from './record.ts'
import {
  extraOf,
  FileHasher,
  isMountPoint,
  openListed,
  statEntry,
  statRoot,
  Turns,
} from './scan.ts'

/**
 * What of a list differs from the record, sorted bytewise; as `compareTree` would say it, of the paths in the list.
 *
 * What a listed path is, and whether it is still there, the tree decides: the kind in the list means nothing. Of what is
 * gone the topmost directory that is gone with it is listed, and directories on the way that aren't recorded are added.
 * Beneath an `opaque` directory everything that is recorded counts as listed. Other names of a file that changed are
 * found by its recorded inode.
 * @throws {BreakoutError} ERR_KOCI_PATH_ESCAPE a path with `..`, `.` or empty components; {SystemError} ERR_KOCI_IO,
 * ERR_KOCI_ABORTED
 */
export async function verifyListed(
  root: Rooted,
  record: TreeRecord,
  listed: Iterable<Change>,
  options: CompareOptions = {},
): Promise<ChangeList> {
  const { subject = 'rootfs' } = options
  try {
    using verification = new Verification(root, record, options, subject)
    return await verification.run(listed)
  } catch (error) {
    throw scanError(error, subject)
  }
}

/**
 * The list as it is, for want of a record; but that what isn't there any more is deleted: the topmost directory that is gone
 * with it.
 */
export function* takeAsListed(
  root: Rooted,
  listed: Iterable<Change>,
): Generator<Change, void, undefined> {
  for (const each of listed) {
    const { kind, rawPath } = each
    const { end, stat } =
      rawPath.length === 0 ? { end: 0, stat: statRoot(root) } : follow(root, rawPath)
    const isAsListed = end === rawPath.length && stat !== undefined && kind !== 'D'
    const found = isAsListed ? each : change(stat ? 'M' : 'D', rawPath.subarray(0, end))
    const isLeaf = stat !== undefined && (stat.mode & S_IFMT) !== S_IFDIR
    yield isLeaf ? { ...found, leaf: true } : found
  }
}

const slash = 0x2f

class Verification implements Disposable {
  readonly #root: Rooted
  readonly #record: TreeRecord
  readonly #entries: EntryComparison
  readonly #verifyContent: boolean
  readonly #turns: Turns
  readonly #hasher: FileHasher
  readonly #xattrs = new XattrReader()
  readonly #rows: RowFinder
  readonly #changes = new ChangeSorter()
  /** Names of files with several that changed, by inode and path as latin1. */
  readonly #linked = new Map<bigint, Map<string, Buffer>>()

  constructor(root: Rooted, record: TreeRecord, options: CompareOptions, subject: string) {
    this.#root = root
    this.#record = record
    this.#rows = new RowFinder(record)
    this.#entries = new EntryComparison(record, options.ignoreXattrs ?? machineXattrs)
    this.#verifyContent = options.verifyContent ?? false
    this.#turns = new Turns(options.signal, subject)
    this.#hasher = new FileHasher(this.#turns)
  }

  async run(listed: Iterable<Change>): Promise<ChangeList> {
    this.#turns.check()
    for (const { rawPath, opaque } of listed) {
      await this.#visit(rawPath)
      const row = opaque ? this.#rows.find(rawPath) : -1
      // everything recorded beneath it counts as listed
      for (const path of row === -1 ? [] : this.#beneath(row, rawPath)) await this.#visit(path)
    }
    this.#addAliases()
    return this.#changes.finish()
  }

  [Symbol.dispose](): void {
    this.#changes[Symbol.dispose]()
  }

  *#beneath(parent: number, path: Buffer): Generator<Buffer> {
    const { end } = this.#record.columns
    const last = end[parent] as number
    for (let row = parent + 1; row < last; row = end[row] as number) {
      const rawPath = join(path, this.#record.name(row))
      yield rawPath
      yield* this.#beneath(row, rawPath)
    }
  }

  /** Goes down a path as far as it is there, and compares what it ends at. */
  async #visit(rawPath: Buffer): Promise<void> {
    if (this.#turns.isDue()) await this.#turns.take()
    let { root: node } = this.#root
    let row = 0
    if (rawPath.length === 0) return this.#compareDirectory(node, rawPath, row)
    for (let from = 0; ;) {
      const next = rawPath.indexOf(slash, from)
      const end = next === -1 ? rawPath.length : next
      const name = plainName(rawPath, from, end)
      const path = rawPath.subarray(0, end)
      row = row === -1 ? -1 : this.#rows.child(row, name)
      const child = openListed(this.#root, node, name)
      if (!child) return this.#compareEntry(node, name, path, row)
      if (isMountPoint(this.#root, child)) {
        if (row === -1) this.#add('A', path)
        return
      }
      const isRecorded = row !== -1 && this.#record.isDirectory(row)
      if (!isRecorded) this.#add(row === -1 ? 'A' : 'M', path)
      if (!isRecorded) row = -1
      if (end === rawPath.length) {
        if (isRecorded) this.#compareDirectory(child, path, row)
        return
      }
      node = child
      from = end + 1
    }
  }

  #compareDirectory(node: DirNode, path: Buffer, row: number): void {
    const stat = node.parent ? node.stat : statRoot(this.#root)
    if (this.#entries.isSettled(row, stat)) return
    const xattrs = readXattrs(this.#root.fdOf(node))
    const extra = xattrs.length > 0 ? { xattrs } : undefined
    if (this.#entries.compareMetadata(row, stat, extra) === 'different') this.#add('M', path)
  }

  /** Something that isn't a directory, or isn't there. */
  async #compareEntry(node: DirNode, name: CString, path: Buffer, row: number): Promise<void> {
    const fd = this.#root.fdOf(node)
    const stat = statEntry(fd, name)
    if (!stat) {
      if (row !== -1) this.#add('D', path)
      return
    }
    if ((stat.mode & S_IFMT) === S_IFDIR) throw createError('FILE_CHANGED', { subject: path })
    if (stat.mountID !== this.#root.root.stat.mountID) return
    if (row === -1) this.#addFile('A', path, stat)
    else if (!(await this.#isSame(fd, name, row, stat))) this.#addFile('M', path, stat)
  }

  async #isSame(fd: number, name: CString, row: number, stat: Stat): Promise<boolean> {
    const isFile = (stat.mode & S_IFMT) === S_IFREG
    const isRead = isFile && this.#verifyContent
    if (!isRead && this.#entries.isSettled(row, stat)) return true
    const extra = extraOf(fd, name, stat, this.#xattrs)
    if (this.#entries.compareMetadata(row, stat, extra) === 'different') return false
    if (!isFile) return true
    const recorded = this.#record.hash(row)
    if (!recorded) return false
    try {
      return recorded.equals(await this.#hasher.hash(fd, name, stat))
    } catch (error) {
      if (isError(error, 'FILE_CHANGED')) return false
      throw error
    }
  }

  #add(kind: Change['kind'], path: Buffer): void {
    this.#changes.add(change(kind, path))
  }

  #addFile(kind: 'A' | 'M', path: Buffer, { ino, nlink }: Stat): void {
    this.#changes.add(leafChange(kind, path))
    if (nlink < 2) return
    let names = this.#linked.get(ino)
    if (!names) this.#linked.set(ino, (names = new Map<string, Buffer>()))
    // it can be met again, on the way to what was listed beneath it
    names.set(path.toString('latin1'), path)
  }

  /** A layer can say that names are one file only of names that are in it. */
  #addAliases(): void {
    const { ino } = this.#record.columns
    if (this.#linked.size === 0 || !ino.some(each => this.#linked.has(each))) return
    for (const { rawPath, ino } of this.#record.entries()) {
      const names = ino === undefined ? undefined : this.#linked.get(ino)
      if (!names || names.has(rawPath.toString('latin1'))) continue
      if (statOf(this.#root, rawPath)?.ino !== ino) continue
      this.#changes.add(leafChange('M', rawPath, [...names.values()]))
    }
  }
}

/** Rows by name, for many look-ups in one directory after the other. */
class RowFinder {
  readonly #record: TreeRecord
  /** Of the directories on the way to the last path. */
  readonly #names = new Map<number, Map<string, number>>()

  constructor(record: TreeRecord) {
    this.#record = record
  }

  child(parent: number, name: CString): number {
    if (!this.#record.isDirectory(parent)) return -1
    let names = this.#names.get(parent)
    if (!names) {
      const { end } = this.#record.columns
      for (const row of this.#names.keys())
        if (row >= parent || (end[row] as number) <= parent) this.#names.delete(row)
      names = this.#list(parent)
      this.#names.set(parent, names)
    }
    return names.get(name.toString('latin1', 0, name.length - 1)) ?? -1
  }

  find(rawPath: Buffer): number {
    let row = 0
    for (const key of rawPath.length === 0 ? [] : rawPath.toString('latin1').split('/'))
      row = row === -1 ? -1 : this.child(row, cstring(Buffer.from(key, 'latin1')))
    return row
  }

  #list(parent: number): Map<string, number> {
    const { end } = this.#record.columns
    const names = new Map<string, number>()
    const last = end[parent] as number
    for (let row = parent + 1; row < last; row = end[row] as number)
      names.set(this.#record.name(row).toString('latin1'), row)
    return names
  }
}

/** What a path is, links not followed; undefined if it isn't there. */
function statOf(root: Rooted, rawPath: Buffer): Stat | undefined {
  const { end, stat } = follow(root, rawPath)
  return end === rawPath.length ? stat : undefined
}

/** Goes down a path, links not followed, up to what isn't a directory or isn't there: where its name ends, and what it is. */
function follow(root: Rooted, rawPath: Buffer): { end: number; stat: Stat | undefined } {
  let { root: node } = root
  for (let from = 0; ;) {
    const next = rawPath.indexOf(slash, from)
    const end = next === -1 ? rawPath.length : next
    const name = plainName(rawPath, from, end)
    const child = end === rawPath.length ? undefined : openListed(root, node, name)
    if (!child) return { end, stat: statEntry(root.fdOf(node), name) }
    node = child
    from = end + 1
  }
}

function plainName(rawPath: Buffer, from: number, end: number): CString {
  const name = rawPath.subarray(from, end)
  const text = name.toString('latin1')
  if (text === '' || text === '.' || text === '..' || text.includes('\0'))
    throw createError('PATH_ESCAPE', { subject: rawPath, reason: 'not a plain path' })
  return cstring(name)
}

function join(parent: Buffer, name: Buffer): Buffer {
  return parent.length === 0
    ? Buffer.from(name)
    : Buffer.concat([parent, Buffer.from('/'), name])
}
