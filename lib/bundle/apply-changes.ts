// The record after a repack: the old one with the packed changes applied, as they were when they were packed. Nothing else is
// looked at, so that changes which were not (masked, filtered) are found again next time, and so is what changed since;
// everything else is copied in whole blocks.
import type { Change } from '../change.ts'
import { createError } from '../errors.ts'
import { readXattrs, XattrReader } from '../fs/entry-xattrs.ts'
import { cstring, S_IFDIR, S_IFMT, S_IFREG, type CString, type Stat } from '../fs/libc.ts'
import { scanError } from '../fs/open-file.ts'
import type { DirNode, Rooted } from '../fs/rooted.ts'
import { RecordBuilder } from './record-builder.ts'
import type { KnownHashes } from './record-tree.ts'
import type { TreeRecord } from './record.ts'
import {
  extraOf,
  FileHasher,
  freshTime,
  leaveDirectory,
  openListed,
  statEntry,
  statRoot,
  Turns,
} from './scan.ts'

/** How packed changes are taken over. */
export interface ApplyOptions {
  /**
   * Sums of the files as they were packed. A file that isn't in them with its size and mtime has changed since, and
   * is recorded so that it counts as changed; the next comparison reads the others once. Without it files are read
   * now, and taken as packed.
   */
  readonly packed?: KnownHashes | undefined
  /**
   * With `packed`: a row for each change, in their order, with what was packed. It is recorded instead of what is on disk
   * now, so that what was changed since counts as changed. Of a row whose mode is 0, or that is missing, nothing is known.
   */
  readonly packedRecord?: TreeRecord | undefined
  /** For messages. */
  readonly subject?: string | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * A new record: the old one, with `A` and `M` as they were packed or, where that isn't known, as they are on disk now, and `D`
 * gone with everything beneath. What should be on disk and has vanished is recorded as something that is missing. The old
 * record isn't changed.
 * @throws {IntegrityError} ERR_KOCI_FILE_CHANGED; {BreakoutError} ERR_KOCI_PATH_ESCAPE a path with `..`, `.` or
 * empty components; {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED
 */
export async function applyChanges(
  root: Rooted,
  record: TreeRecord,
  changes: Iterable<Change>,
  options: ApplyOptions = {},
): Promise<TreeRecord> {
  const { subject = 'rootfs' } = options
  try {
    return await new Application(root, record, options, subject).run(changeTree(changes))
  } catch (error) {
    throw scanError(error, subject)
  }
}

/** The changes as a tree of names, latin1. */
interface ChangeNode {
  kind: Change['kind'] | undefined
  /** Its place in the list of changes, or -1. */
  place: number
  readonly children: Map<string, ChangeNode>
}

function changeTree(changes: Iterable<Change>): ChangeNode {
  const top = newNode()
  let place = 0
  for (const { kind, rawPath } of changes) {
    let node = top
    if (rawPath.length > 0)
      for (const name of rawPath.toString('latin1').split('/')) {
        if (name === '' || name === '.' || name === '..')
          throw createError('PATH_ESCAPE', { subject: rawPath, reason: 'not a plain path' })
        let child = node.children.get(name)
        if (!child) node.children.set(name, (child = newNode()))
        node = child
      }
    node.kind = kind
    node.place = place++
  }
  return top
}

function newNode(): ChangeNode {
  return { kind: undefined, place: -1, children: new Map() }
}

/** An entry of the new record. */
interface Item {
  readonly key: string
  readonly name: CString
  /** In the old record, or -1. */
  readonly oldRow: number
  readonly changes: ChangeNode | undefined
  /** In the record of what was packed, or -1. */
  readonly packedRow: number
  /** Set where it was looked at; otherwise the entry is copied from the record that has it. */
  readonly stat: Stat | undefined
}

interface Frame {
  readonly row: number
  readonly node: DirNode | undefined
  readonly directories: Item[]
  next: number
}

class Application {
  readonly #root: Rooted
  readonly #record: TreeRecord
  readonly #packed: KnownHashes | undefined
  readonly #packedRecord: TreeRecord | undefined
  readonly #turns: Turns
  readonly #hasher: FileHasher
  readonly #xattrs = new XattrReader()
  readonly #builder: RecordBuilder

  constructor(root: Rooted, record: TreeRecord, options: ApplyOptions, subject: string) {
    this.#root = root
    this.#record = record
    this.#packed = options.packed
    this.#packedRecord = options.packedRecord
    this.#turns = new Turns(options.signal, subject)
    this.#hasher = new FileHasher(this.#turns)
    this.#builder = new RecordBuilder(record.count + 64)
  }

  async run(top: ChangeNode): Promise<TreeRecord> {
    const root = this.#root
    const time = freshTime(root)
    this.#turns.check()
    const packedRow = this.#packedRow(top)
    const rootItem: Item = {
      key: '',
      name: root.root.name,
      oldRow: 0,
      changes: top,
      packedRow,
      stat: top.kind === undefined || packedRow !== -1 ? undefined : statRoot(root),
    }
    const frames = [await this.#enter(rootItem, root.root)]
    for (let frame = frames.at(-1); frame; frame = frames.at(-1)) {
      const item = frame.directories[frame.next++]
      if (!item) {
        this.#builder.leave(frame.row)
        frames.pop()
        if (frame.node) leaveDirectory(root, frame.node)
      } else if (item.oldRow !== -1 && !item.changes) this.#copyTree(item.oldRow)
      else {
        const node = frame.node && openListed(root, frame.node, item.name)
        frames.push(await this.#enter(item, node))
      }
    }
    return this.#builder.finish(time)
  }

  /** Adds a directory and its entries that aren't directories. */
  async #enter(item: Item, node: DirNode | undefined): Promise<Frame> {
    const row = this.#addDirectory(item, node)
    const directories: Item[] = []
    for (const child of this.#itemsOf(item, node)) {
      if (this.#isDirectory(child)) directories.push(child)
      else await this.#addFile(child, node)
      if (this.#turns.isDue()) await this.#turns.take()
    }
    return { row, node, directories, next: 0 }
  }

  #addDirectory(item: Item, node: DirNode | undefined): number {
    const { name, oldRow, packedRow, stat } = item
    const builder = this.#builder
    if (packedRow !== -1) return this.#addPacked(packedRow)
    if (!stat) return builder.copy(this.#record, oldRow, oldRow + 1)
    const row = builder.add(stat, name, 0, name.length - 1)
    // it may hold names that weren't packed: it has to be listed again
    builder.distrust(row)
    if (node) builder.setExtra(row, { xattrs: readXattrs(this.#root.fdOf(node)) })
    return row
  }

  /** It is looked at again next time: since it was packed it may have changed. */
  #addPacked(packedRow: number): number {
    const row = this.#builder.copy(this.#packedRecord as TreeRecord, packedRow, packedRow + 1)
    this.#builder.distrust(row)
    return row
  }

  #isDirectory({ oldRow, packedRow, stat }: Item): boolean {
    if (packedRow !== -1) return (this.#packedRecord as TreeRecord).isDirectory(packedRow)
    if (stat) return (stat.mode & S_IFMT) === S_IFDIR
    return oldRow !== -1 && this.#record.isDirectory(oldRow)
  }

  /** What a directory holds in the new record, sorted. */
  #itemsOf(parent: Item, node: DirNode | undefined): Item[] {
    const record = this.#record
    const { end } = record.columns
    const items: Item[] = []
    const added = new Map(parent.changes?.children)
    if (parent.oldRow !== -1 && record.isDirectory(parent.oldRow)) {
      const last = end[parent.oldRow] as number
      for (let row = parent.oldRow + 1; row < last; row = end[row] as number) {
        const key = record.name(row).toString('latin1')
        const changes = added.get(key)
        added.delete(key)
        if (changes?.kind === 'D') continue
        items.push(this.#item(key, record.cname(row), row, changes, node))
      }
    }
    for (const [key, changes] of added)
      if (changes.kind === 'A' || changes.kind === 'M')
        items.push(this.#item(key, cstring(Buffer.from(key, 'latin1')), -1, changes, node))
    return items.sort((a, b) => (a.key < b.key ? -1 : 1))
  }

  #item(
    key: string,
    name: CString,
    row: number,
    changes: ChangeNode | undefined,
    node: DirNode | undefined,
  ): Item {
    if (changes?.kind === undefined)
      return { key, name, oldRow: row, changes, packedRow: -1, stat: undefined }
    const packedRow = this.#packedRow(changes)
    const stat = packedRow === -1 && node ? statEntry(this.#root.fdOf(node), name) : undefined
    const found: Item = { key, name, oldRow: -1, changes, packedRow, stat }
    if (row === -1 || (packedRow === -1 && !stat)) return found
    // beneath what wasn't a directory, or isn't one any more, nothing recorded counts
    const isSameKind = this.#record.isDirectory(row) === this.#isDirectory(found)
    return isSameKind ? { ...found, oldRow: row } : found
  }

  #packedRow({ place }: ChangeNode): number {
    const mode = this.#packedRecord?.columns.mode[place]
    return mode === undefined || mode === 0 ? -1 : place
  }

  async #addFile(item: Item, node: DirNode | undefined): Promise<void> {
    const { name, oldRow, packedRow, stat } = item
    const builder = this.#builder
    if (packedRow !== -1) this.#addPackedFile(packedRow)
    else if (stat && node) {
      const fd = this.#root.fdOf(node)
      const row = builder.add(stat, name, 0, name.length - 1)
      const extra = extraOf(fd, name, stat, this.#xattrs)
      if (extra) builder.setExtra(row, extra)
      if ((stat.mode & S_IFMT) === S_IFREG) await this.#setHash(row, fd, name, stat)
    } else if (oldRow !== -1) builder.copy(this.#record, oldRow, oldRow + 1)
    else builder.add(missing, name, 0, name.length - 1)
  }

  #addPackedFile(packedRow: number): void {
    const row = this.#addPacked(packedRow)
    const { mode, ino, size, mtime } = (this.#packedRecord as TreeRecord).columns
    if (((mode[packedRow] as number) & S_IFMT) !== S_IFREG) return
    const hash = this.#asPacked({
      ino: ino[packedRow] as bigint,
      size: size[packedRow] as number,
      mtime: mtime[packedRow] as bigint,
    })
    if (hash) this.#builder.setHash(row, hash.sha256)
  }

  async #setHash(row: number, fd: number, name: CString, stat: Stat): Promise<void> {
    const { sha256 } = this.#packed
      ? (this.#asPacked(stat) ?? {})
      : { sha256: await this.#hasher.hash(fd, name, stat) }
    if (sha256) this.#builder.setHash(row, sha256)
    // whether this is still the content that was packed only reading it again can tell
    if (this.#packed) this.#builder.distrust(row)
  }

  #asPacked(
    stat: Pick<Stat, 'ino' | 'size' | 'mtime'>,
  ): { readonly sha256: Uint8Array } | undefined {
    const packed = this.#packed?.get(stat.ino)
    return packed?.size === stat.size && packed.mtime === stat.mtime ? packed : undefined
  }

  #copyTree(oldRow: number): void {
    this.#builder.copy(this.#record, oldRow, this.#record.columns.end[oldRow] as number)
  }
}

/** A file that was packed and is gone: the next comparison finds it deleted. */
const missing = {
  mode: S_IFREG,
  uid: 0,
  gid: 0,
  nlink: 0,
  size: 0,
  mtime: 0n,
  ctime: 0n,
  ino: 0n,
}
