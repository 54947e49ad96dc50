// The places where two snapshots may differ, compared: the older one is recorded there, and only there, and the newer one is
// compared with that record by the rule for lists that may hold too much. It costs what the places cost, not what the
// trees do.
import { RecordBuilder } from '../../lib/bundle/record-builder.ts'
import type { TreeRecord } from '../../lib/bundle/record.ts'
import {
  extraOf,
  FileHasher,
  leaveDirectory,
  listDirectory,
  openListed,
  statEntry,
  statRoot,
  Turns,
} from '../../lib/bundle/scan.ts'
import { verifyListed } from '../../lib/bundle/verify-listed.ts'
import { change } from '../../lib/change.ts'
import type { ChangeList } from '../../lib/change-list.ts'
import { inodePaths } from '../../lib/fs/btrfs.ts'
import { readXattrs, XattrReader } from '../../lib/fs/entry-xattrs.ts'
import {
  cstring,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  type CString,
  type Stat,
} from '../../lib/fs/libc.ts'
import { withTree } from '../../lib/fs/open-tree.ts'
import type { DirNode, Rooted } from '../../lib/fs/rooted.ts'
import type { Places } from './replay.ts'

/** Two snapshots, by their paths. */
export interface SnapshotPair {
  readonly older: string
  readonly newer: string
}

/**
 * What of these places differs, as `compareTree` would list it for the whole tree; undefined where a file has more names than
 * the kernel tells of. Needs CAP_DAC_READ_SEARCH, both being on btrfs.
 * @throws {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED
 */
export async function comparePlaces(
  { older, newer }: SnapshotPair,
  places: Places,
  signal: AbortSignal,
): Promise<ChangeList | undefined> {
  return withTree(older, from =>
    withTree(newer, async to => {
      const names: Names = new Map()
      const isKnown = await new Finder(from, to, names, signal).find(places)
      if (!isKnown) return undefined
      const record = await new PartialRecorder(from, to, signal).record(names)
      const listed = allPaths(names).map(name => change('M', Buffer.from(name, 'latin1')))
      // no stat proves anything: that the kernel told of a path is reason to look
      return verifyListed(to, record, listed, { verifyContent: true, subject: newer, signal })
    }),
  )
}

/** Paths as a tree of names, latin1. */
interface Names extends Map<string, Names> {}

function addPath(names: Names, path: string): void {
  let at = names
  for (const name of path === '' ? [] : path.split('/')) {
    let child = at.get(name)
    if (!child) at.set(name, (child = new Map()))
    at = child
  }
}

/** Every path, the ones on the way to others included. */
function allPaths(names: Names): string[] {
  const found = ['']
  const pending: { path: string; at: Names }[] = [{ path: '', at: names }]
  for (let next = pending.pop(); next; next = pending.pop())
    for (const [name, at] of next.at) {
      const path = next.path === '' ? name : `${next.path}/${name}`
      found.push(path)
      pending.push({ path, at })
    }
  return found
}

/** Finds all names that have to be compared: what is in moved trees, and the other names of files that have several. */
class Finder {
  readonly #trees: readonly Rooted[]
  readonly #names: Names
  readonly #turns: Turns
  readonly #pending: string[] = []
  #near: string | undefined
  #nearNode: DirNode | undefined

  constructor(older: Rooted, newer: Rooted, names: Names, signal: AbortSignal) {
    this.#trees = [older, newer]
    this.#names = names
    this.#turns = new Turns(signal, 'snapshot')
  }

  /** False where not all names of a file can be known. */
  async find({ paths, trees, times }: Places): Promise<boolean> {
    for (const path of [...paths, ...trees]) this.#add(path)
    for (const [path, mtime] of times) {
      if (this.#mayDiffer(path, mtime)) this.#add(path)
      if (this.#turns.isDue()) await this.#turns.take()
    }
    for (const path of trees) await this.#addBeneath(path)
    const seen = new Set<string>()
    for (let path = this.#pending.pop(); path !== undefined; path = this.#pending.pop()) {
      if (this.#turns.isDue()) await this.#turns.take()
      for (const [index, tree] of this.#trees.entries()) {
        const stat = statAt(tree, path)
        if (!stat || stat.nlink < 2 || isDirectory(stat)) continue
        if (seen.has(`${index} ${stat.ino}`)) continue
        seen.add(`${index} ${stat.ino}`)
        const others = inodePaths(tree.fdOf(tree.root), stat.ino)
        if (!others) return false
        for (const other of others) this.#add(other.toString('latin1'))
      }
    }
    return true
  }

  /** What was under another name, or is the root, is looked at as what differs is. */
  #mayDiffer(path: string, mtime: bigint): boolean {
    const [older] = this.#trees
    const stat = older && this.#statNear(older, path)
    if (!stat || stat.mtime !== mtime) return true
    // another name may have been beneath a directory that is gone, of which nothing else tells
    return stat.nlink > 1 && !isDirectory(stat)
  }

  /** The kernel tells of what is in one directory in a row: the directory is looked for once. */
  #statNear(tree: Rooted, path: string): Stat | undefined {
    if (path === '') return undefined
    const end = parentEnd(path)
    if (this.#near?.length !== end || !path.startsWith(this.#near)) {
      this.#near = path.slice(0, end)
      this.#nearNode = directoryAt(tree, this.#near)
    }
    return this.#nearNode && statIn(tree, this.#nearNode, path)
  }

  #add(path: string): void {
    // an own name, or on the way to another: its links count either way
    addPath(this.#names, path)
    this.#pending.push(path)
  }

  /** Of what is a directory in the newer tree everything counts; of one that is gone, only that it is. */
  async #addBeneath(top: string): Promise<void> {
    const [older, newer] = this.#trees
    if (!newer || !older || !directoryAt(newer, top)) return
    for (const tree of [newer, older]) {
      const pending = [top]
      for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
        const node = directoryAt(tree, path)
        if (!node) continue
        for (const { name, isDirectory } of listDirectory(tree.fdOf(node))) {
          const text = name.toString('latin1', 0, name.length - 1)
          const child = path === '' ? text : `${path}/${text}`
          this.#add(child)
          if (isDirectory) pending.push(child)
          if (this.#turns.isDue()) await this.#turns.take()
        }
      }
    }
  }
}

interface Frame {
  readonly row: number
  readonly node: DirNode
  /** The same directory in the newer tree, if it is one there. */
  readonly other: DirNode | undefined
  /** Those that are still to be entered, in order. */
  readonly directories: (readonly [CString, Names])[]
}

/** Records some names of a tree. Files are read only if nothing but their contents can tell whether they changed. */
class PartialRecorder {
  readonly #older: Rooted
  readonly #newer: Rooted
  readonly #turns: Turns
  readonly #hasher: FileHasher
  readonly #xattrs = new XattrReader()
  readonly #builder = new RecordBuilder()

  constructor(older: Rooted, newer: Rooted, signal: AbortSignal) {
    this.#older = older
    this.#newer = newer
    this.#turns = new Turns(signal, 'snapshot')
    this.#hasher = new FileHasher(this.#turns)
  }

  async record(names: Names): Promise<TreeRecord> {
    const { root } = this.#older
    const frames = [await this.#enter(root, statRoot(this.#older), this.#newer.root, names)]
    for (let frame = frames.at(-1); frame; frame = frames.at(-1)) {
      const next = frame.directories.shift()
      if (!next) {
        this.#builder.leave(frame.row)
        frames.pop()
        leaveDirectory(this.#older, frame.node)
        if (frame.other) leaveDirectory(this.#newer, frame.other)
        continue
      }
      const [name, inside] = next
      const node = openListed(this.#older, frame.node, name)
      const other = frame.other && openListed(this.#newer, frame.other, name)
      if (node) frames.push(await this.#enter(node, node.stat, other, inside))
    }
    return this.#builder.finish(-(2n ** 63n))
  }

  /** Adds a directory, and those of its names that aren't directories. */
  async #enter(
    node: DirNode,
    stat: Stat,
    other: DirNode | undefined,
    names: Names,
  ): Promise<Frame> {
    const row = this.#builder.add(stat, node.name, 0, node.name.length - 1)
    const xattrs = readXattrs(this.#older.fdOf(node))
    if (xattrs.length > 0) this.#builder.setExtra(row, { xattrs })
    const directories: [CString, Names][] = []
    for (const [text, inside] of [...names].sort(byBytes)) {
      const name = cstring(Buffer.from(text, 'latin1'))
      const found = statEntry(this.#older.fdOf(node), name)
      if (!found) continue
      if (isDirectory(found)) directories.push([name, inside])
      else await this.#add(node, other, name, found)
      if (this.#turns.isDue()) await this.#turns.take()
    }
    return { row, node, other, directories }
  }

  async #add(
    node: DirNode,
    other: DirNode | undefined,
    name: CString,
    stat: Stat,
  ): Promise<void> {
    const fd = this.#older.fdOf(node)
    const row = this.#builder.add(stat, name, 0, name.length - 1)
    const extra = extraOf(fd, name, stat, this.#xattrs)
    if (extra) this.#builder.setExtra(row, extra)
    const now = other && statEntry(this.#newer.fdOf(other), name)
    const isRead = (stat.mode & S_IFMT) === S_IFREG && now && isAlike(stat, now)
    if (isRead) this.#builder.setHash(row, await this.#hasher.hash(fd, name, stat))
  }
}

/** In all that a record compares before it comes to contents. */
function isAlike(one: Stat, other: Stat): boolean {
  return (
    one.mode === other.mode &&
    one.uid === other.uid &&
    one.gid === other.gid &&
    one.size === other.size &&
    one.mtime === other.mtime &&
    one.nlink === other.nlink
  )
}

function isDirectory({ mode }: Stat): boolean {
  return (mode & S_IFMT) === S_IFDIR
}

/** Latin1 text sorts as its bytes do. */
function byBytes([a]: readonly [string, Names], [b]: readonly [string, Names]): number {
  return a < b ? -1 : 1
}

/** A directory of a tree by its path, no links followed; undefined if it isn't one. */
function directoryAt(tree: Rooted, path: string): DirNode | undefined {
  let node: DirNode | undefined = tree.root
  for (const name of path === '' ? [] : path.split('/'))
    node = node && openListed(tree, node, cstring(Buffer.from(name, 'latin1')))
  return node
}

function statAt(tree: Rooted, path: string): Stat | undefined {
  const parent = path === '' ? undefined : directoryAt(tree, path.slice(0, parentEnd(path)))
  return parent && statIn(tree, parent, path)
}

/** Of a path, its last component's. */
function statIn(tree: Rooted, parent: DirNode, path: string): Stat | undefined {
  const name = Buffer.from(path.slice(path.lastIndexOf('/') + 1), 'latin1')
  return statEntry(tree.fdOf(parent), cstring(name))
}

function parentEnd(path: string): number {
  return Math.max(path.lastIndexOf('/'), 0)
}
