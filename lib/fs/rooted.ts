// A directory tree held by descriptors. Paths are resolved by us, component by component, as if the tree were
// the whole file system (chroot(2) without its privilege). The kernel only ever gets one component, never `..`,
// and never follows a link. Known directories are kept as nodes of the REAL tree; a path through a symlink is
// expanded each time and no node stands for it. That, and forget(), is what CVE-2025-47290 teaches.
import {
  check,
  close,
  cstring,
  errno,
  fchmod,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  open,
  S_IFDIR,
  S_IFMT,
  SystemCallError,
  tryReadlinkat,
  type CString,
  type Stat,
} from './libc.ts'
import { tryStat } from './stat.ts'
import * as sys from './syscall.ts'

const OPEN_DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
const MAX_LINKS = 255 // as securejoin and thus umoci; the kernel's own limit is 40
const MAX_OPEN = 64 // with threads, a process sleeps whenever its table of descriptors outgrows 256 or 512
const slash = 0x2f
const dot = 0x2e

/** Most directories have no subdirectories, and a Map is large. */
const none: ReadonlyMap<string, DirNode<never>> = new Map<string, DirNode<never>>()

/** A directory of the real tree. `Data` is for whoever works on the tree. */
export class DirNode<Data = unknown> {
  /** Undefined for the root. */
  readonly parent: DirNode<Data> | undefined
  readonly name: CString
  /** 0 for the root. */
  readonly depth: number
  /** As it was when the directory was first seen. */
  readonly stat: Stat
  /** -1 while closed; ask `Rooted.fdOf()`. */
  fd: number
  /** By the name's bytes, as latin1. Only those that were opened so far. */
  children: ReadonlyMap<string, DirNode<Data>> = none
  data: Data | undefined = undefined
  /** Removed or replaced: nothing may be done with it any more. */
  dropped = false
  /** Whether its mode was widened so that we can work in it; `stat` has the former one. */
  widened = false
  pins = 0
  used = 0

  constructor(parent: DirNode<Data> | undefined, name: CString, fd: number, stat: Stat) {
    this.parent = parent
    this.name = name
    this.depth = parent === undefined ? 0 : parent.depth + 1
    this.fd = fd
    this.stat = stat
  }

  /** For Rooted alone. */
  setChild(key: string, child: DirNode<Data> | undefined): void {
    if (this.children === none) this.children = new Map<string, DirNode<Data>>()
    const children = this.children as Map<string, DirNode<Data>>
    if (child === undefined) children.delete(key)
    else children.set(key, child)
  }
}

/** A name in a directory; without `name` the directory itself. The name is one component, not `.` or `..`. */
export interface Location<Data = unknown> {
  readonly node: DirNode<Data>
  readonly name: CString | undefined
}

/** Makes a directory where a path goes through something missing, or (`occupied`) something that is neither directory nor link. */
export type CreateDirectory<Data> = (
  node: DirNode<Data>,
  name: CString,
  key: string,
  occupied: boolean,
) => DirNode<Data>

export interface RootedOptions {
  /** Widens the modes of directories that their owner (we, not root) can't use; `restoreModes()` puts them back. */
  readonly widen?: boolean
}

/** Opens a tree; the path itself may go through links, its last component may not be one. Throws a SystemCallError. */
export function openRooted<Data = unknown>(
  path: string,
  options: RootedOptions = {},
): Rooted<Data> {
  return new Rooted(open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW), options)
}

/**
 * A tree and what is known of it.
 *
 * **Guarantees** that no path, whatever symlinks the tree holds, leads out of it.
 * **Does not protect against** other processes that move directories of the tree to the outside meanwhile.
 * Whoever removes, replaces or renames a name in it must call `forget()`.
 * Everything here throws SystemCallErrors; the caller knows the subject to wrap them with.
 */
export class Rooted<Data = unknown> {
  readonly root: DirNode<Data>
  readonly #widen: boolean
  // the modes that directories are to have in the end
  readonly #modes = new Map<DirNode<Data>, number>()
  readonly #open = new Set<DirNode<Data>>()
  #clock = 0
  #nodes = 1
  // the last directory that was looked up by path: neighbours come in runs
  #memoPath = Buffer.alloc(0)
  #memoNode: DirNode<Data> | undefined

  /** Owns the descriptor from here on. */
  constructor(fd: number, options: RootedOptions = {}) {
    const stat = tryStat(fd)
    if (typeof stat === 'number') {
      close(fd)
      throw new SystemCallError(stat, 'statx')
    }
    this.#widen = options.widen ?? false
    this.root = new DirNode<Data>(undefined, cstring(''), fd, stat)
    this.#widenOpen(this.root)
  }

  /** Closes every descriptor. Modes that were widened stay so unless `restoreModes()` was called. */
  close(): void {
    for (const node of this.#open) this.#closeNode(node)
    if (this.root.fd >= 0) close(this.root.fd)
    this.root.fd = -1
    this.root.dropped = true
  }

  [Symbol.dispose](): void {
    this.close()
  }

  /** How many descriptors are open: for tests. */
  get openDescriptors(): number {
    return this.#open.size + 1
  }

  /**
   * The directory that a path leads to, links followed. With `create`, missing directories on the way are made.
   * Without: ENOENT or ENOTDIR. ELOOP after 255 links.
   */
  directory(
    path: Buffer,
    create?: CreateDirectory<Data>,
    length: number = path.length,
  ): DirNode<Data> {
    const memo = this.#memoNode
    const known = this.#memoPath
    if (memo !== undefined && isPrefix(known, path, length)) return memo
    const prefix = path.subarray(0, length)
    const { node } = this.#walk(this.root, prefix, 'directory', create)
    this.#memoPath = Buffer.from(prefix)
    this.#memoNode = node
    return node
  }

  /** Where a path's last component is, which isn't followed; everything before it is. */
  locate(path: Buffer, create?: CreateDirectory<Data>): Location<Data> {
    return this.#walk(this.root, path, 'parent', create)
  }

  /** As `locate`, but the last component is followed, too; what it ends at need not exist. */
  resolve(path: Buffer): Location<Data> {
    return this.#walk(this.root, path, 'follow')
  }

  /**
   * The subdirectory of this name, not following links. Undefined if there is nothing, or something else.
   * `key` is the name as latin1, without the NUL.
   */
  child(node: DirNode<Data>, name: CString, key: string): DirNode<Data> | undefined {
    const result = this.tryChild(node, name, key)
    return typeof result === 'number' ? undefined : result
  }

  /** As `child`, saying why there is none: -ENOENT, -ENOTDIR, or for a symlink perhaps -ELOOP. */
  tryChild(node: DirNode<Data>, name: CString, key: string): DirNode<Data> | number {
    const result = node.children.get(key) ?? this.#openChild(node, name, key)
    if (typeof result !== 'number') return result
    if (result === -errno.ENOENT || result === -errno.ENOTDIR || result === -errno.ELOOP)
      return result
    throw new SystemCallError(result, 'openat', name)
  }

  /** The directory's descriptor. Valid until the next call of a method here, unless the node is pinned. */
  fdOf(node: DirNode<Data>): number {
    node.used = ++this.#clock
    return node.fd >= 0 ? node.fd : this.#reopen(node)
  }

  /** Runs with the directory's descriptor kept open, whatever else is opened meanwhile. */
  pinned<Result>(node: DirNode<Data>, run: (fd: number) => Result): Result {
    const fd = this.fdOf(node)
    node.pins += 1
    try {
      return run(fd)
    } finally {
      node.pins -= 1
    }
  }

  /** To be called before or after a name is removed, replaced or renamed: drops what is known about it and all beneath it. */
  forget(node: DirNode<Data>, key: string): void {
    this.#memoNode = undefined
    const child = node.children.get(key)
    if (child === undefined) return
    node.setChild(key, undefined)
    const rest = [child]
    for (let next = rest.pop(); next !== undefined; next = rest.pop()) {
      next.dropped = true
      this.#nodes -= 1
      this.#closeNode(next)
      this.#modes.delete(next)
      for (const below of next.children.values()) rest.push(below)
    }
  }

  /** How many directories are known, the root included. */
  get size(): number {
    return this.#nodes
  }

  /** Restores modes, then forgets every directory but the root, which stays as it is; others are opened anew when needed. */
  forgetAll(): void {
    const mode = this.#modes.get(this.root)
    this.#modes.delete(this.root)
    this.restoreModes()
    if (mode !== undefined) this.#modes.set(this.root, mode)
    for (const key of this.root.children.keys()) this.forget(this.root, key)
  }

  /** Notes the mode that a directory is to have after `restoreModes()`, instead of the one it had. */
  deferMode(node: DirNode<Data>, mode: number): void {
    this.#modes.set(node, mode)
  }

  /** Nothing is left for `restoreModes()` to do here. */
  keepMode(node: DirNode<Data>): void {
    this.#modes.delete(node)
  }

  /** Sets the modes that were widened or deferred; deepest first, because a directory's mode may bar the way to those beneath. */
  restoreModes(): void {
    const deepestFirst = [...this.#modes].sort(([one], [other]) => other.depth - one.depth)
    for (const [node, mode] of deepestFirst) fchmod(this.fdOf(node), mode)
    this.#modes.clear()
  }

  #walk(
    start: DirNode<Data>,
    path: Buffer,
    last: 'directory' | 'parent' | 'follow',
    create?: CreateDirectory<Data>,
  ): Location<Data> {
    let node = start
    let rest = path
    let links = 0
    for (let at = 0; ;) {
      while (rest[at] === slash) at += 1
      if (at >= rest.length) return { node, name: undefined }
      let end = rest.indexOf(slash, at)
      if (end < 0) end = rest.length
      const begin = at
      at = end
      if (isDot(rest, begin, end)) continue
      if (isDotDot(rest, begin, end)) {
        node = node.parent ?? node
        continue
      }
      const key = rest.toString('latin1', begin, end)
      const isLast = last !== 'directory' && isEnd(rest, end)
      if (!isLast) {
        const known = node.children.get(key)
        if (known !== undefined) {
          node = known
          continue
        }
      }
      const name = cstring(rest.subarray(begin, end))
      if (isLast && last === 'parent') return { node, name }
      const next = isLast ? -errno.ENOTDIR : this.#openChild(node, name, key)
      if (typeof next !== 'number') {
        node = next
        continue
      }
      if (next === -errno.ENOENT && create !== undefined) {
        node = create(node, name, key, false)
        continue
      }
      if (next !== -errno.ENOTDIR && next !== -errno.ELOOP)
        throw new SystemCallError(next, 'openat', name)
      const target = tryReadlinkat(this.fdOf(node), name)
      if (target === undefined) {
        if (isLast) return { node, name }
        if (create === undefined) throw new SystemCallError(-errno.ENOTDIR, 'openat', name)
        node = create(node, name, key, true)
        continue
      }
      links += 1
      if (links > MAX_LINKS) throw new SystemCallError(-errno.ELOOP, 'openat', name)
      if (target[0] === slash) node = this.root
      rest = Buffer.concat([target, rest.subarray(end)])
      at = 0
    }
  }

  #openChild(node: DirNode<Data>, name: CString, key: string): DirNode<Data> | number {
    const fd = this.#openDirectory(this.fdOf(node), name)
    if (fd < 0) return fd
    const stat = tryStat(fd)
    if (typeof stat === 'number') {
      close(fd)
      return stat
    }
    const child = new DirNode<Data>(node, name, fd, stat)
    node.setChild(key, child)
    this.#nodes += 1
    this.#keep(child)
    this.#widenOpen(child)
    return child
  }

  #openDirectory(dirfd: number, name: CString): number {
    const fd = sys.openat(dirfd, name, OPEN_DIRECTORY, 0)
    if (fd !== -errno.EACCES) return fd
    if (!this.#widen) return sys.openat(dirfd, name, OPEN_DIRECTORY | O_PATH, 0)
    // readable for a moment; #widenOpen() notes the mode it had
    const stat = tryStat(dirfd, name)
    if (typeof stat === 'number' || (stat.mode & S_IFMT) !== S_IFDIR) return fd
    const code = sys.fchmodat(dirfd, name, (stat.mode & 0o7777) | 0o700)
    if (code < 0) return code
    const again = sys.openat(dirfd, name, OPEN_DIRECTORY, 0)
    if (again >= 0) this.#formerMode = stat.mode
    return again
  }

  #formerMode: number | undefined

  #widenOpen(node: DirNode<Data>): void {
    if (!this.#widen) return
    if (this.#formerMode !== undefined) {
      node.stat.mode = this.#formerMode
      this.#formerMode = undefined
    } else if ((node.stat.mode & 0o700) === 0o700) return
    else if (sys.fchmod(node.fd, (node.stat.mode & 0o7777) | 0o700) < 0) return // not ours
    node.widened = true
    this.#modes.set(node, node.stat.mode & 0o7777)
  }

  /** Opens the nearest open ancestor's descendants again, one by one, checking that each is still the same directory. */
  #reopen(node: DirNode<Data>): number {
    const closed: Array<DirNode<Data>> = []
    let above: DirNode<Data> | undefined = node
    for (; above !== undefined && above.fd < 0; above = above.parent) closed.push(above)
    for (const next of closed.reverse()) {
      if (next.dropped || next.parent === undefined)
        throw new SystemCallError(-errno.ESTALE, 'openat', next.name)
      let fd = sys.openat(next.parent.fd, next.name, OPEN_DIRECTORY, 0)
      if (fd === -errno.EACCES)
        fd = sys.openat(next.parent.fd, next.name, OPEN_DIRECTORY | O_PATH, 0)
      check(fd, 'openat', next.name)
      const stat = tryStat(fd)
      if (typeof stat === 'number' || !isSame(stat, next.stat)) {
        close(fd)
        throw new SystemCallError(-errno.ESTALE, 'openat', next.name)
      }
      next.fd = fd
      next.used = ++this.#clock
      this.#keep(next)
    }
    return node.fd
  }

  /** Notes an open descriptor; if there are too many, the longer unused half is closed. */
  #keep(node: DirNode<Data>): void {
    this.#open.add(node)
    node.used = ++this.#clock
    if (this.#open.size <= MAX_OPEN) return
    const oldest = [...this.#open]
      .filter(open => open.pins === 0 && open !== node)
      .sort((one, other) => one.used - other.used)
    for (const open of oldest.slice(0, MAX_OPEN / 2)) this.#closeNode(open)
  }

  #closeNode(node: DirNode<Data>): void {
    if (node.fd < 0) return
    close(node.fd)
    node.fd = -1
    this.#open.delete(node)
  }
}

function isSame(one: Stat, other: Stat): boolean {
  return one.ino === other.ino && one.dev === other.dev
}

function isDot(path: Buffer, begin: number, end: number): boolean {
  return end - begin === 1 && path[begin] === dot
}

function isDotDot(path: Buffer, begin: number, end: number): boolean {
  return end - begin === 2 && path[begin] === dot && path[begin + 1] === dot
}

/** Whether only slashes follow. */
function isEnd(path: Buffer, at: number): boolean {
  for (let next = at; next < path.length; next += 1) if (path[next] !== slash) return false
  return true
}

function isPrefix(known: Buffer, path: Buffer, length: number): boolean {
  return known.length === length && known.compare(path, 0, length) === 0
}
