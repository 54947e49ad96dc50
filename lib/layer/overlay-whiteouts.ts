// Whiteouts as overlayfs has them: a layer is extracted into a directory of its own, and the result has to be right on
// top of whatever other layers. So everything in the tree is this layer's, and what a whiteout hides isn't there: it is
// noted of directories that they hide it (`own`: overlayfs's "opaque"). What the order of entries must not decide is
// put right at the end.
import { createError, wrapError } from '../errors.ts'
import {
  check,
  cstring,
  DT_CHR,
  DT_UNKNOWN,
  errno,
  readDirectory,
  S_IFCHR,
  S_IFDIR,
  S_IFMT,
  SystemCallError,
  timespecs,
  unlinkat,
  type CString,
} from '../fs/libc.ts'
import type { Location, Rooted } from '../fs/rooted.ts'
import { tryStat } from '../fs/stat.ts'
import * as sys from '../fs/syscall.ts'
import { setxattr } from '../fs/xattr-calls.ts'
import { removeTree } from '../fs/walk.ts'
import { printable } from '../text.ts'
import type { Directory, DirectoryState } from './directory-state.ts'
import type { Dialect } from './extraction.ts'
import type { StackingReport } from './layer.ts'
import { overlayNamespace } from './metadata.ts'
import { leadsNowhere, type Whiteouts } from './whiteouts.ts'
import { keyOf, pathOf, type TreeObserver, type WorkingTree } from './working-tree.ts'

const yes = Buffer.from('y')
const nothing = Buffer.alloc(0)
/** Bytes of all paths that are listed: a single path of a megabyte implies gigabytes of them. */
const maxListed = 4 << 20

/**
 * Whiteouts in an overlay dialect, for a tree that was empty.
 *
 * Throws, beside SystemCallErrors, {UsageError} ERR_KOCI_NEEDS_BELOW; {UnsupportedError} ERR_KOCI_UNSUPPORTED_PLATFORM
 * where the file system or a lack of privilege keeps whiteouts from being stored.
 */
export class OverlayWhiteouts implements Whiteouts, TreeObserver {
  readonly #tree: WorkingTree
  readonly #rooted: Rooted<DirectoryState>
  readonly #opaque: CString
  readonly #origin: CString
  readonly #marks = new Map<Directory, CString>()
  readonly #implied: string[] = []
  readonly #missing: string[] = []
  readonly #hollow: string[] = []
  readonly #entries: string[] | undefined
  #listed = 0

  constructor(
    tree: WorkingTree,
    dialect: Dialect,
    { keepDirlinks }: { keepDirlinks: boolean },
  ) {
    this.#tree = tree
    this.#rooted = tree.rooted
    const namespace = overlayNamespace(dialect) ?? ''
    this.#opaque = cstring(`${namespace}opaque`)
    this.#origin = cstring(`${namespace}origin`)
    if (keepDirlinks) this.#entries = []
    tree.observer = this
  }

  /** Complete after `finish()`. */
  get report(): StackingReport {
    const { data } = this.#rooted.root
    return {
      root: data?.explicit === true,
      opaque: data?.own === true,
      implied: this.#implied,
      missing: this.#missing,
      hollow: this.#hollow,
      entries: this.#entries,
    }
  }

  hideName(parent: Buffer, rawName: Buffer): void {
    const node = this.#directory(parent)
    if (node === undefined || this.isHidden(node)) return
    const name = cstring(rawName)
    if (this.#makeWhiteout(node, name)) return
    const existing = this.#tree.child(node, name)
    if (existing === undefined) return // hidden already, by what has the name
    const state = this.#tree.stateOf(existing)
    state.own = true
    state.fresh = true
  }

  hideContent(path: Buffer): void {
    const node = this.#directory(path)
    if (node !== undefined) this.#tree.stateOf(node).own = true
  }

  isHidden(node: Directory): boolean {
    for (let at: Directory | undefined = node; at !== undefined; at = at.parent)
      if (at.data?.own === true) return true
    return false
  }

  made(node: Directory, implied: boolean): void {
    const list = implied ? this.#implied : this.#entries
    if (!list) return
    const path = pathOf(node)
    this.#listed += path.length
    if (this.#listed > maxListed)
      throw needsBelow(path, `directories like it, with their paths, fill ${maxListed} bytes`)
    list.push(path.toString('latin1'))
  }

  finished(node: Directory, fd: number): void {
    const mark = this.#marks.get(node)
    if (mark === undefined) return
    const code = setxattr(fd, mark, mark === this.#opaque ? yes : nothing)
    if (code === -errno.EPERM || code === -errno.ENOTSUP)
      throw createError(
        'UNSUPPORTED_PLATFORM',
        {
          subject: pathOf(node),
          reason: `overlay layers need the attribute ${keyOf(mark)}, which the file system or a lack of privilege rules out`,
        },
        new SystemCallError(code, 'setxattr', mark),
      )
    check(code, 'setxattr', mark)
  }

  finish(): void {
    for (const node of this.#tree.directories)
      this.#each(node, state => {
        this.#settle(node, state)
      })
    for (const node of this.#tree.directories)
      this.#each(node, state => {
        this.#mark(node, state)
      })
  }

  /**
   * Checks that a name in this layer can be linked to: it isn't a whiteout, and lower layers have no say in what it is.
   * @throws {UsageError} ERR_KOCI_NEEDS_BELOW; {FormatError} ERR_KOCI_INVALID_ENTRY
   */
  checkLinkTarget(
    { node, name }: Location<DirectoryState>,
    link: Buffer,
    target: Buffer,
  ): void {
    if (name === undefined) return
    const stat = tryStat(this.#rooted.fdOf(node), name)
    if (typeof stat === 'number') {
      if (stat !== -errno.ENOENT) throw new SystemCallError(stat, 'statx', name)
      throw needsBelow(
        link,
        `its hard link leads to ${printable(target)}, which it doesn't have`,
      )
    }
    if (isWhiteout(stat))
      throw createError('INVALID_ENTRY', { subject: link, reason: 'the target does not exist' })
    if ((stat.mode & S_IFMT) !== S_IFDIR) return
    // a link below, as which it would be linked to, might have led here
    const directory = this.#tree.child(node, name)
    if (directory === undefined || directory.data?.fresh === true || this.isHidden(node)) return
    if (directory.data?.explicit === true && this.#entries === undefined) return
    throw needsBelow(
      link,
      `a hard link leads to ${printable(target)}, which may be something else`,
    )
  }

  /** Throws if a path led nowhere only because nothing is known of the layers below. */
  expectDecided(error: unknown, path: Buffer, what: string): void {
    if (error instanceof SystemCallError && error.errno === -errno.ENOENT)
      throw needsBelow(path, `${what} to what it doesn't have`)
  }

  /** Throws if a directory may be there only for the sake of whiteouts. */
  expectDirectory(node: Directory, path: Buffer, what: string): void {
    if (node.parent === undefined || node.data?.touched === true) return
    throw needsBelow(path, `${what} to what it doesn't have`)
  }

  /** The directory that a whiteout is about; undefined if nothing of lower layers can be visible there. */
  #directory(path: Buffer): Directory | undefined {
    try {
      return this.#rooted.directory(path, this.#create)
    } catch (error) {
      if (leadsNowhere(error)) return undefined
      throw error
    }
  }

  readonly #create = (
    node: Directory,
    name: CString,
    _key: string,
    occupied: boolean,
  ): Directory => {
    if (occupied || this.isHidden(node))
      throw new SystemCallError(-errno.ENOENT, 'openat', name)
    return this.#tree.makeImplied(node, name, false)
  }

  /** False where this layer has something of that name. */
  #makeWhiteout(node: Directory, name: CString): boolean {
    const fd = this.#rooted.fdOf(node)
    const code = sys.mknodat(fd, name, S_IFCHR, 0, 0)
    if (code === -errno.EEXIST) return false
    if (code === -errno.EPERM)
      throw createError(
        'UNSUPPORTED_PLATFORM',
        {
          subject: name.subarray(0, -1),
          reason: 'overlay layers need whiteouts, which the kernel or the file system refuses',
        },
        new SystemCallError(code, 'mknodat', name),
      )
    check(code, 'mknodat', name)
    // so that a layer always comes out the same
    check(sys.utimensat(fd, name, timespecs(0n, 0n)), 'utimensat', name)
    const state = this.#tree.stateOf(node)
    state.changed = true
    state.hasWhiteouts = true
    return true
  }

  #each(node: Directory, run: (state: DirectoryState) => void): void {
    if (node.dropped || node.data === undefined) return
    try {
      run(node.data)
    } catch (error) {
      throw wrapError(error, pathOf(node))
    }
  }

  /** Removes a directory that is there for nothing but whiteouts, and was hidden itself. Parents come first. */
  #settle(node: Directory, state: DirectoryState): void {
    const { parent, name } = node
    const above = parent?.data
    if (parent === undefined || above === undefined) return
    if (above.own) {
      state.own = true
      state.fresh = true
    }
    if (state.touched || !state.fresh) return
    removeTree(this.#rooted.fdOf(parent), name)
    this.#rooted.forget(parent, keyOf(name))
    above.changed = true
    if (!above.own) this.#makeWhiteout(parent, name)
  }

  #mark(node: Directory, state: DirectoryState): void {
    const { parent } = node
    if (state.own) {
      if (state.hasWhiteouts) this.#removeWhiteouts(node)
      if (parent?.data?.own !== true) this.#marks.set(node, this.#opaque)
    } else if (state.hasWhiteouts && this.#holdsWhiteout(node))
      this.#marks.set(node, this.#origin)
    if (parent === undefined || state.explicit || state.fresh) return
    const path = pathOf(node).toString('latin1')
    this.#missing.push(path)
    if (!state.touched) this.#hollow.push(path)
  }

  #holdsWhiteout(node: Directory): boolean {
    return !this.#whiteoutsIn(node).next().done
  }

  #removeWhiteouts(node: Directory): void {
    for (const name of this.#whiteoutsIn(node)) unlinkat(this.#rooted.fdOf(node), name)
  }

  *#whiteoutsIn(node: Directory): Generator<CString, void, undefined> {
    const fd = this.#rooted.fdOf(node)
    for (const { name, type } of readDirectory(fd)) {
      if (type !== DT_CHR && type !== DT_UNKNOWN) continue
      const found = cstring(name)
      const stat = tryStat(fd, found)
      if (typeof stat !== 'number' && isWhiteout(stat)) yield found
    }
  }
}

function isWhiteout(stat: Exclude<ReturnType<typeof tryStat>, number>): boolean {
  return (stat.mode & S_IFMT) === S_IFCHR && stat.rdevMajor === 0 && stat.rdevMinor === 0
}

function needsBelow(subject: Buffer, reason: string): Error {
  return createError('NEEDS_BELOW', { subject, reason: `${printable(subject)}: ${reason}` })
}
