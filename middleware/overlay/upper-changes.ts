// What changed, read off the upper directory: only what is in there is looked at, and compared with what the lower layers
// show under the same name. overlayfs copies up more than changes: whatever is opened for writing, every parent, the source of
// a new link. So each entry counts only if it differs, down to its bytes. The cost is that of what was touched.
import { joinPath } from '../../lib/bundle/record.ts'
import { Turns } from '../../lib/bundle/scan.ts'
import { change, leafChange, type Change } from '../../lib/change.ts'
import { ChangeSorter, type ChangeList } from '../../lib/change-list.ts'
import { createError, wrapError } from '../../lib/errors.ts'
import { readXattrs, XattrReader, type Xattr } from '../../lib/fs/entry-xattrs.ts'
import {
  close,
  cstring,
  DT_DIR,
  DT_UNKNOWN,
  read,
  readlinkat,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  statx,
  type CString,
  type Stat,
} from '../../lib/fs/libc.ts'
import { openFile, openStated, readStated } from '../../lib/fs/open-file.ts'
import { closeTree, openTree } from '../../lib/fs/open-tree.ts'
import type { DirNode, Rooted } from '../../lib/fs/rooted.ts'
import { readEntries } from '../../lib/fs/walk.ts'
import { xattrTarget } from '../../lib/fs/xattr.ts'
import type { Dialect } from '../../lib/layer/extraction.ts'
import {
  isWhiteoutDevice,
  openLowerStack,
  type LowerDirectory,
  type LowerEntry,
} from '../../lib/layer/lower-stack.ts'
import { overlayNamespace } from '../../lib/layer/metadata.ts'
import { countingXattrs, isSameLook, isSameXattrs, lookOf, type Look } from './look.ts'
import type { Stack } from './stack.ts'

/** What to compare. */
export interface UpperOptions {
  readonly upper: string
  /** What is below it. */
  readonly stack: Stack
  readonly dialect: Dialect
  readonly signal: AbortSignal
}

/**
 * The changes that an upper directory holds, sorted bytewise: what `compareTree` says of a rootfs in which the same was done,
 * but for links between names of lower layers, which copying up breaks.
 *
 * An opaque directory becomes a deletion of each name that it hides; whiteouts of what no lower layer has are nothing. Names
 * of one file are listed together, where one of them changed.
 * @throws {UnsupportedError} ERR_KOCI_UPPER_UNREADABLE for a directory that was moved, or a file without its content, as
 * `redirect_dir` and `metacopy` make them; {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED
 */
export async function listUpper(options: UpperOptions): Promise<ChangeList> {
  const { upper, stack, dialect, signal } = options
  const rooted = openTree(upper)
  try {
    using lowers = openLowerStack(stack.dirs, dialect)
    using walk = new UpperWalk(rooted, stack.root, dialect, new Turns(signal, upper))
    return await walk.run(lowers.root?.directory)
  } catch (error) {
    throw wrapError(error, upper)
  } finally {
    closeTree(rooted)
  }
}

/** A directory of the upper one, and what the lower layers show for it, if that is one, too. */
interface Visit {
  readonly node: DirNode
  readonly path: Buffer
  readonly below: LowerDirectory | undefined
  /** It, or one above it, is opaque: nothing of what is below shows through, whatever the directory's own marks say. */
  isOpaque: boolean
}

/** The names of one file that has several. */
interface Names {
  readonly changed: Buffer[]
  readonly same: { readonly path: Buffer; readonly below: string }[]
}

interface Marks {
  readonly isOpaque: boolean
  /** Its files without content may be whiteouts. */
  readonly hasXwhiteouts: boolean
}

class UpperWalk implements Disposable {
  readonly #upper: Rooted
  readonly #root: Look
  readonly #dialect: Dialect
  readonly #turns: Turns
  readonly #namespace: string
  readonly #xattrs = new XattrReader()
  readonly #comparer = new ContentComparer()
  readonly #changes = new ChangeSorter()
  /** By inode. */
  readonly #linked = new Map<bigint, Names>()

  constructor(upper: Rooted, root: Look, dialect: Dialect, turns: Turns) {
    this.#upper = upper
    this.#root = root
    this.#dialect = dialect
    this.#turns = turns
    this.#namespace = overlayNamespace(dialect) ?? ''
  }

  async run(lowers: LowerDirectory | undefined): Promise<ChangeList> {
    const upper = this.#upper
    const root = Buffer.alloc(0)
    if (!isSameLook(lookOf(upper.fdOf(upper.root), this.#dialect), this.#root))
      this.#changes.add(change('M', root))
    const rest: Visit[] = [{ node: upper.root, path: root, below: lowers, isOpaque: false }]
    for (let visit = rest.pop(); visit; visit = rest.pop()) {
      for (const name of this.#list(visit)) {
        const pending = this.#meet(visit, name, rest)
        if (pending) await pending
        if (this.#turns.isDue()) await this.#turns.take()
      }
    }
    this.#addLinked()
    return this.#changes.finish()
  }

  [Symbol.dispose](): void {
    this.#changes[Symbol.dispose]()
  }

  /** The names in a directory; what an opaque one hides is listed on the way. */
  *#list(visit: Visit): Generator<ListedName> {
    const { node, path, below } = visit
    // a directory that was removed since it was met can't be listed, or opened again
    const { xattrs, entries } = readStated(path, () => {
      const fd = this.#upper.fdOf(node)
      return { xattrs: readXattrs(fd), entries: readEntries(fd) }
    })
    const marks = this.#marksOf(xattrs, path)
    visit.isOpaque ||= marks.isOpaque
    if (visit.isOpaque && below) {
      const present = new Set(entries.map(({ name }) => name.toString('latin1')))
      for (const name of below.names())
        if (!present.has(name.toString('latin1'))) this.#add('D', joinPath(path, name))
    }
    for (const { name, type } of entries)
      yield { name, type, mayBeXwhiteout: marks.hasXwhiteouts }
  }

  #meet(visit: Visit, listed: ListedName, rest: Visit[]): Promise<void> | undefined {
    const { node, below } = visit
    const name = cstring(listed.name)
    const path = joinPath(visit.path, listed.name)
    if (listed.type === DT_DIR || listed.type === DT_UNKNOWN) {
      const key = listed.name.toString('latin1')
      const child = readStated(visit.path, () => this.#upper.child(node, name, key))
      if (child) {
        rest.push({
          node: child,
          path,
          below: this.#meetDirectory(child, path, below?.child(listed.name)),
          isOpaque: visit.isOpaque,
        })
        return
      }
    }
    const fd = readStated(visit.path, () => this.#upper.fdOf(node))
    const stat = readStated(path, () => statx(fd, name))
    // what is in it would be missing from the list
    if ((stat.mode & S_IFMT) === S_IFDIR) throw createError('FILE_CHANGED', { subject: path })
    if (isWhiteoutDevice(stat)) {
      if (below?.child(listed.name)) this.#add('D', path)
      return
    }
    const xattrs = this.#xattrs.of(fd, name)
    if (listed.mayBeXwhiteout && this.#has(xattrs, 'whiteout')) {
      if (below?.child(listed.name)) this.#add('D', path)
      return
    }
    this.#marksOf(xattrs, path)
    const lower = below?.child(listed.name)
    if (!lower) {
      this.#addFile('A', path, stat)
      return
    }
    if (!this.#isSameMetadata(fd, name, path, stat, xattrs, lower)) {
      this.#addFile('M', path, stat)
      return
    }
    if ((stat.mode & S_IFMT) !== S_IFREG || stat.size === 0) this.#noteSame(path, stat, lower)
    else return this.#compareContent(visit, name, path, stat, lower)
    return
  }

  /** Lists a directory, if it differs; gives what it merges with. */
  #meetDirectory(
    node: DirNode,
    path: Buffer,
    lower: LowerEntry | undefined,
  ): LowerDirectory | undefined {
    if (!lower) this.#add('A', path)
    else if (!lower.directory) this.#add('M', path)
    else {
      const { directory, layer } = lower
      const shown = { ...lookOf(this.#upper.fdOf(node), this.#dialect), mode: node.stat.mode }
      const look = directory.in(layer, fd => lookOf(fd, this.#dialect))
      if (!isSameLook(shown, look)) this.#add('M', path)
    }
    return lower?.directory
  }

  #isSameMetadata(
    fd: number,
    name: CString,
    path: Buffer,
    stat: Stat,
    xattrs: readonly Xattr[],
    lower: LowerEntry,
  ): boolean {
    const { stat: other } = lower
    const type = stat.mode & S_IFMT
    if (
      stat.mode !== other.mode ||
      stat.uid !== other.uid ||
      stat.gid !== other.gid ||
      stat.mtime !== other.mtime ||
      stat.size !== other.size
    )
      return false
    if (
      (type === S_IFCHR || type === S_IFBLK) &&
      (stat.rdevMajor !== other.rdevMajor || stat.rdevMinor !== other.rdevMinor)
    )
      return false
    return lower.at((dirfd, lowerName = cstring('.')) => {
      if (type === S_IFLNK) {
        const target = readStated(path, () => readlinkat(fd, name))
        if (!target.equals(readlinkat(dirfd, lowerName))) return false
      }
      const below = readXattrs(xattrTarget(dirfd, lowerName))
      return isSameXattrs(
        countingXattrs(xattrs, this.#dialect),
        countingXattrs(below, this.#dialect),
      )
    })
  }

  async #compareContent(
    visit: Visit,
    name: CString,
    path: Buffer,
    stat: Stat,
    lower: LowerEntry,
  ): Promise<void> {
    const directory = readStated(visit.path, () => this.#upper.fdOf(visit.node))
    const upperFile = openStated(directory, name, stat, path)
    try {
      const lowerFile = lower.at((dirfd, lowerName = cstring('.')) =>
        openFile(dirfd, lowerName, lower.stat),
      )
      try {
        const isSame = await this.#comparer.isSame(upperFile, lowerFile, this.#turns)
        if (isSame) this.#noteSame(path, stat, lower)
        else this.#addFile('M', path, stat)
      } finally {
        close(lowerFile)
      }
    } finally {
      close(upperFile)
    }
  }

  /** What overlayfs says of an entry; throws for what can't be read off the upper directory. */
  #marksOf(xattrs: readonly Xattr[], path: Buffer): Marks {
    if (xattrs.length === 0) return { isOpaque: false, hasXwhiteouts: false }
    for (const [mark, feature] of [
      ['redirect', 'redirect_dir'],
      ['metacopy', 'metacopy'],
    ] as const)
      if (this.#has(xattrs, mark))
        throw createError('UPPER_UNREADABLE', { subject: path, feature })
    const opaque = this.#value(xattrs, 'opaque')
    return { isOpaque: opaque === 'y', hasXwhiteouts: opaque === 'x' }
  }

  #has(xattrs: readonly Xattr[], mark: string): boolean {
    return this.#value(xattrs, mark) !== undefined
  }

  #value(xattrs: readonly Xattr[], mark: string): string | undefined {
    const wanted = `${this.#namespace}${mark}`
    return xattrs.find(([name]) => name.toString('latin1') === wanted)?.[1].toString('latin1')
  }

  #add(kind: Change['kind'], path: Buffer): void {
    this.#changes.add(change(kind, path))
  }

  #addFile(kind: 'A' | 'M', path: Buffer, stat: Stat): void {
    this.#changes.add(leafChange(kind, path))
    if (stat.nlink > 1) this.#namesOf(stat).changed.push(path)
  }

  #noteSame(path: Buffer, stat: Stat, lower: LowerEntry): void {
    if (stat.nlink < 2) return
    const below = `${lower.layer} ${lower.stat.dev} ${lower.stat.ino}`
    this.#namesOf(stat).same.push({ path, below })
  }

  #namesOf({ ino }: Stat): Names {
    let names = this.#linked.get(ino)
    if (!names) this.#linked.set(ino, (names = { changed: [], same: [] }))
    return names
  }

  #addLinked(): void {
    for (const { changed, same } of this.#linked.values()) {
      // files that were equal, and are one now
      const areJoined = new Set(same.map(({ below }) => below)).size > 1
      for (const { path } of same)
        if (changed.length > 0) this.#changes.add(leafChange('M', path, changed))
        else if (areJoined) this.#changes.add(leafChange('M', path))
    }
  }
}

interface ListedName {
  readonly name: Buffer
  readonly type: number
  readonly mayBeXwhiteout: boolean
}

/** Compares open files, giving the event loop a turn in large ones. */
class ContentComparer {
  readonly #one = Buffer.allocUnsafeSlow(256 * 1024)
  readonly #other = Buffer.allocUnsafeSlow(256 * 1024)

  async isSame(one: number, other: number, turns: Turns): Promise<boolean> {
    for (let offset = 0; ;) {
      const count = read(one, this.#one, offset)
      const otherCount = read(other, this.#other, offset)
      if (count !== otherCount) return false
      if (count === 0) return true
      if (this.#one.compare(this.#other, 0, count, 0, count) !== 0) return false
      offset += count
      if (turns.isDue(count >> 10)) await turns.take()
    }
  }
}
