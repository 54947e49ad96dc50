// Compares a tree on disk with its record. An entry whose inode, size and times are those recorded is unchanged,
// metadata and content, because every change moves the ctime; only what isn't so is looked at and read. A directory
// that is unchanged in that sense still has the recorded names, so it isn't even listed.
import { change, leafChange, type Change } from '../change.ts'
import { ChangeSorter, type ChangeList } from '../change-list.ts'
import { createError, isError } from '../errors.ts'
import { readXattrs, XattrReader } from '../fs/entry-xattrs.ts'
import { S_IFDIR, S_IFMT, S_IFREG, type CString, type Stat } from '../fs/libc.ts'
import { scanError } from '../fs/open-file.ts'
import type { DirNode, Rooted } from '../fs/rooted.ts'
import { EntryComparison, type Verdict } from './compare-entry.ts'
import type { Extra } from './extra.ts'
import type { Listing } from './listing.ts'
import { clampTime, flagRough, joinPath, type TreeRecord } from './record.ts'
import {
  bytesOf,
  extraOf,
  FileHasher,
  freshTime,
  isMountPoint,
  leaveDirectory,
  listDirectory,
  openListed,
  statEntry,
  statRoot,
  Turns,
} from './scan.ts'

/** What counts as a change. */
export interface CompareOptions {
  /** Read every file, whatever its size and times say. @default false */
  readonly verifyContent?: boolean | undefined
  /** Names of extended attributes that don't count; a name that ends in a dot stands for all that begin with it. */
  readonly ignoreXattrs?: readonly string[] | undefined
  /** For messages. */
  readonly subject?: string | undefined
  readonly signal?: AbortSignal | undefined
}

/** What never enters a layer, and so is no change: labels and lists that belong to the machine. */
export const machineXattrs: readonly string[] = ['security.selinux', 'system.nfs4_acl']

/**
 * What differs between a tree and its record, sorted bytewise by `rawPath`.
 *
 * `M`: type, mode, owner, size and number of links (both not of directories), content, link target, device numbers,
 * mtime, or an extended attribute differs. Nothing is listed beneath a deleted path, nor beneath what isn't a
 * directory any more. Times are compared in nanoseconds, or in seconds if the record was made from text.
 *
 * Where a file that has several names got one of them now, those that it had before are listed, too, as `M` with
 * `aliasOf`: a layer can say that names are one file only of names that are in it.
 *
 * Brings the record's stats up to date for what turned out to be unchanged, so that the next comparison needn't look
 * at it again, and what came from text becomes exact. `record.isRenewed` tells that it is worth storing.
 *
 * Other file systems mounted inside aren't entered: what is recorded there counts as unchanged; a mount point that
 * isn't recorded is listed if it is a directory. Names that vanish meanwhile count as deleted.
 *
 * Does not notice: content that was changed without the kernel moving the ctime, as writes through mmap(2) on tmpfs
 * and to a raw device do. `verifyContent` does.
 * @throws {IntegrityError} ERR_KOCI_FILE_CHANGED; {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED
 */
export async function compareTree(
  root: Rooted,
  record: TreeRecord,
  options: CompareOptions = {},
): Promise<ChangeList> {
  const { subject = 'rootfs' } = options
  try {
    using comparison = new Comparison(root, record, options, subject)
    return await comparison.run()
  } catch (error) {
    throw scanError(error, subject)
  }
}

/** A subdirectory still to be entered. */
interface Visit {
  readonly name: CString
  /** -1 where it isn't recorded as a directory. */
  readonly row: number
  /** What it is listed as itself in that case. */
  readonly kind: 'A' | 'M'
}

/** A directory that was entered. */
interface Frame {
  readonly node: DirNode
  readonly path: Buffer
  /** Set where the directory was listed. */
  listing: Listing | undefined
  /** Subdirectories still to be entered: the row of one that is recorded, else what `visitOf` makes of its place. */
  readonly visits: number[]
  next: number
}

/** The names of one file that has several. */
interface Names {
  readonly changed: Buffer[]
  readonly same: Array<{ readonly parent: Buffer; readonly name: CString }>
}

/** A listed directory that isn't recorded as one, as a negative number. */
function visitOf(place: number, kind: Visit['kind']): number {
  return -1 - place * 2 - (kind === 'A' ? 0 : 1)
}

/** The rows of what is recorded in a directory, sorted by name; in the record it is two sorted runs. */
function mergedRows(record: TreeRecord, parent: number): Uint32Array {
  const { end } = record.columns
  const last = end[parent] as number
  let directory = parent + 1
  while (directory < last && !record.isDirectory(directory)) directory++
  let count = directory - parent - 1
  for (let row = directory; row < last; row = end[row] as number) count++
  const rows = new Uint32Array(count)
  const files = directory
  let file = parent + 1
  for (let at = 0; at < count; at++) {
    const isFile =
      file < files &&
      (directory >= last || compareName(record, file, record.cname(directory)) < 0)
    rows[at] = isFile ? file++ : directory
    if (!isFile) directory = end[directory] as number
  }
  // what another tool or an editor wrote may be in any order
  for (let at = 1; at < count; at++) {
    const row = rows[at] as number
    if (compareName(record, rows[at - 1] as number, record.cname(row)) > 0)
      return rows.sort((one, other) => compareName(record, one, record.cname(other)))
  }
  return rows
}

/** How the name in a row is to another one. */
function compareName(record: TreeRecord, row: number, name: CString): number {
  const { nameEnd } = record.columns
  return -name.compare(record.names, record.nameStart(row), nameEnd[row])
}

class Comparison implements Disposable {
  readonly #root: Rooted
  readonly #record: TreeRecord
  readonly #verifyContent: boolean
  readonly #entries: EntryComparison
  readonly #turns: Turns
  readonly #hasher: FileHasher
  readonly #xattrs = new XattrReader()
  readonly #mountID: number
  readonly #changes = new ChangeSorter()
  /** By inode. */
  readonly #linked = new Map<bigint, Names>()
  /** Rows that were found unchanged. */
  readonly #settled: Uint8Array
  /** What text couldn't say of unchanged rows. */
  readonly #extras = new Map<number, Extra>()

  constructor(root: Rooted, record: TreeRecord, options: CompareOptions, subject: string) {
    this.#root = root
    this.#record = record
    this.#verifyContent = options.verifyContent ?? false
    this.#entries = new EntryComparison(record, options.ignoreXattrs ?? machineXattrs)
    this.#turns = new Turns(options.signal, subject)
    this.#hasher = new FileHasher(this.#turns)
    this.#mountID = root.root.stat.mountID
    this.#settled = new Uint8Array(record.count)
  }

  async run(): Promise<ChangeList> {
    const root = this.#root
    const time = freshTime(root)
    this.#turns.check()
    const frames = [await this.#enter(root.root, statRoot(root), Buffer.alloc(0), 0)]
    for (let frame = frames.at(-1); frame; frame = frames.at(-1)) {
      const visit = this.#nextVisit(frame)
      if (!visit) {
        frames.pop()
        leaveDirectory(root, frame.node)
        continue
      }
      frame.next++
      const entered = await this.#visit(frame, visit)
      if (entered) frames.push(entered)
    }
    this.#record.settle(this.#settled, this.#extras, time)
    this.#addAliases()
    return this.#changes.finish()
  }

  [Symbol.dispose](): void {
    this.#changes[Symbol.dispose]()
  }

  #nextVisit({ listing, visits, next }: Frame): Visit | undefined {
    const visit = visits[next]
    if (visit === undefined) return undefined
    if (visit >= 0) return { name: this.#record.cname(visit), row: visit, kind: 'M' }
    const place = (-1 - visit) >> 1
    const kind = (-1 - visit) & 1 ? 'M' : 'A'
    return { name: (listing as Listing).name(place), row: -1, kind }
  }

  /** Enters a subdirectory; what was one when it was listed may be something else, or gone. */
  async #visit(frame: Frame, { name, row, kind }: Visit): Promise<Frame | undefined> {
    const root = this.#root
    const node = openListed(root, frame.node, name)
    if (node) {
      if (row === -1) this.#add(kind, frame.path, name)
      if (!isMountPoint(root, node))
        return this.#enter(node, node.stat, joinPath(frame.path, bytesOf(name)), row)
      leaveDirectory(root, node)
      return
    }
    const stat = statEntry(root.fdOf(frame.node), name)
    if (!stat) {
      if (row !== -1 || kind === 'M') this.#add('D', frame.path, name)
    } else if ((stat.mode & S_IFMT) === S_IFDIR) throw changed(frame, name)
    else {
      const path = joinPath(frame.path, bytesOf(name))
      this.#changes.add(leafChange(row === -1 ? kind : 'M', path))
    }
    return
  }

  /** Compares a directory's own metadata, and its entries that aren't directories. */
  async #enter(node: DirNode, stat: Stat, path: Buffer, row: number): Promise<Frame> {
    const frame: Frame = { node, path, listing: undefined, visits: [], next: 0 }
    const fd = this.#root.fdOf(node)
    if (row === -1) {
      await this.#addAll(frame)
      return frame
    }
    if (this.#entries.isSettled(row, stat)) {
      this.#settled[row] = 1
      await this.#compareRecorded(frame, row)
    } else {
      const xattrs = readXattrs(fd)
      const extra = xattrs.length > 0 ? { xattrs } : undefined
      const verdict = this.#entries.compareMetadata(row, stat, extra)
      if (verdict === 'different') this.#changes.add(change('M', path))
      const hasSameNames = await this.#compareListed(frame, row)
      if (hasSameNames) this.#settle(row, stat, extra, verdict)
    }
    return frame
  }

  /** The directory is unchanged, so the recorded names are those that are there. */
  async #compareRecorded(frame: Frame, parent: number): Promise<void> {
    const record = this.#record
    const { end } = record.columns
    const last = end[parent] as number
    let fd = this.#root.fdOf(frame.node)
    for (let row = parent + 1; row < last; row = end[row] as number) {
      if (record.isDirectory(row)) frame.visits.push(row)
      else {
        const pending = this.#compare(frame, fd, record.cname(row), row)
        if (pending || this.#turns.isDue()) fd = await this.#wait(frame.node, pending)
      }
    }
  }

  /**
   * Merges the names that are there with those recorded: both are sorted, the latter in two runs. Tells whether they
   * are the same, and the same ones directories: only then may the recorded names stand for a listing another time.
   */
  async #compareListed(frame: Frame, parent: number): Promise<boolean> {
    const record = this.#record
    const rows = mergedRows(record, parent)

    let fd = this.#root.fdOf(frame.node)
    let at = 0
    let same = 0
    const listing = listDirectory(fd)
    frame.listing = listing
    for (let place = 0; place < listing.length; place++) {
      const name = listing.name(place)
      const isDirectory = listing.isDirectory(place)
      let order = 1
      while (at < rows.length && (order = compareName(record, rows[at] as number, name)) < 0)
        this.#add('D', frame.path, record.cname(rows[at++] as number))
      const row = order === 0 ? (rows[at++] as number) : -1
      if (row !== -1 && record.isDirectory(row) === isDirectory) same++
      const pending = this.#meet(frame, fd, place, name, row)
      if (pending || this.#turns.isDue()) fd = await this.#wait(frame.node, pending)
    }
    while (at < rows.length) this.#add('D', frame.path, record.cname(rows[at++] as number))
    return same === rows.length && same === listing.length
  }

  /** A listed name, recorded or not (-1). Returns a promise only where a file has to be read. */
  #meet(
    frame: Frame,
    fd: number,
    place: number,
    name: CString,
    row: number,
  ): Promise<void> | undefined {
    if (frame.listing?.isDirectory(place)) {
      const wasDirectory = row !== -1 && this.#record.isDirectory(row)
      frame.visits.push(wasDirectory ? row : visitOf(place, row === -1 ? 'A' : 'M'))
      return
    }
    if (row !== -1) return this.#compare(frame, fd, name, row)
    const stat = statEntry(fd, name)
    if (!stat || stat.mountID !== this.#mountID) return
    // what is in it would be missing from the list
    if ((stat.mode & S_IFMT) === S_IFDIR) throw changed(frame, name)
    this.#addLinked('A', frame.path, name, stat)
    return
  }

  /** Everything in a directory that isn't recorded, or not as one. */
  async #addAll(frame: Frame): Promise<void> {
    let fd = this.#root.fdOf(frame.node)
    const listing = listDirectory(fd)
    frame.listing = listing
    for (let place = 0; place < listing.length; place++) {
      const pending = this.#meet(frame, fd, place, listing.name(place), -1)
      if (pending || this.#turns.isDue()) fd = await this.#wait(frame.node, pending)
    }
  }

  /** Compares something that is recorded and isn't a directory now, unless it was replaced meanwhile. */
  #compare(frame: Frame, fd: number, name: CString, row: number): Promise<void> | undefined {
    const stat = statEntry(fd, name)
    if (!stat) {
      this.#add('D', frame.path, name)
      return
    }
    if (this.#entries.isSettled(row, stat) && !this.#mustRead(row)) {
      this.#settled[row] = 1
      this.#noteSame(frame, name, stat)
      return
    }
    if (stat.mountID !== this.#mountID) return
    if ((stat.mode & S_IFMT) === S_IFDIR) throw changed(frame, name)
    const extra = extraOf(fd, name, stat, this.#xattrs)
    const verdict = this.#entries.compareMetadata(row, stat, extra)
    if (verdict === 'different') this.#addLinked('M', frame.path, name, stat)
    else if ((stat.mode & S_IFMT) !== S_IFREG) {
      this.#settle(row, stat, extra, verdict)
      this.#noteSame(frame, name, stat)
    } else return this.#compareContent(frame, fd, name, row, stat, extra, verdict)
    return
  }

  async #compareContent(
    frame: Frame,
    fd: number,
    name: CString,
    row: number,
    stat: Stat,
    extra: Extra | undefined,
    verdict: Verdict,
  ): Promise<void> {
    const recorded = this.#record.hash(row)
    const found = recorded && (await this.#tryHash(fd, name, stat))
    if (found && recorded.equals(found)) {
      this.#settle(row, stat, extra, verdict)
      this.#noteSame(frame, name, stat)
    } else this.#addLinked('M', frame.path, name, stat)
  }

  /** The sum of a file, or undefined if it is changed this very moment. */
  async #tryHash(fd: number, name: CString, stat: Stat): Promise<Buffer | undefined> {
    try {
      return await this.#hasher.hash(fd, name, stat)
    } catch (error) {
      if (isError(error, 'FILE_CHANGED')) return undefined
      throw error
    }
  }

  #mustRead(row: number): boolean {
    return (
      this.#verifyContent && ((this.#record.columns.mode[row] as number) & S_IFMT) === S_IFREG
    )
  }

  /** Notes that an entry that had to be looked at is unchanged, and how it can be told next time. */
  #settle(row: number, stat: Stat, extra: Extra | undefined, verdict: Verdict): void {
    if (verdict !== 'same') return
    const { columns } = this.#record
    this.#settled[row] = 2
    columns.ino[row] = stat.ino
    columns.ctime[row] = clampTime(stat.ctime)
    columns.mtime[row] = clampTime(stat.mtime)
    columns.size[row] = stat.size
    if (extra && (columns.flags[row] as number) & flagRough) this.#extras.set(row, extra)
  }

  #add(kind: Change['kind'], parent: Buffer, name: CString): void {
    this.#changes.add(change(kind, joinPath(parent, bytesOf(name))))
  }

  #addLinked(kind: 'A' | 'M', parent: Buffer, name: CString, stat: Stat): void {
    const added = leafChange(kind, joinPath(parent, bytesOf(name)))
    this.#changes.add(added)
    if (stat.nlink > 1) this.#namesOf(stat).changed.push(added.rawPath)
  }

  #noteSame({ path }: Frame, name: CString, stat: Stat): void {
    if (stat.nlink > 1) this.#namesOf(stat).same.push({ parent: path, name })
  }

  #namesOf({ ino }: Stat): Names {
    let names = this.#linked.get(ino)
    if (!names) this.#linked.set(ino, (names = { changed: [], same: [] }))
    return names
  }

  #addAliases(): void {
    for (const { changed, same } of this.#linked.values()) {
      if (changed.length === 0) continue
      for (const { parent, name } of same)
        this.#changes.add(leafChange('M', joinPath(parent, bytesOf(name)), changed))
    }
  }

  /** After a wait the directory may have been closed to save descriptors: returns one that is open. */
  async #wait(node: DirNode, pending: Promise<void> | undefined): Promise<number> {
    if (pending) await pending
    else await this.#turns.take()
    return this.#root.fdOf(node)
  }
}

function changed(frame: Frame, name: CString): Error {
  return createError('FILE_CHANGED', { subject: joinPath(frame.path, bytesOf(name)) })
}
