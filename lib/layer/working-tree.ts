// The tree that a layer is applied to, with what is noted about its directories until the layer is complete.
// Whatever makes or removes a name in it goes through here, or says so here.
import { createError, wrapError } from '../errors.ts'
import { check, errno, futimens, SystemCallError, type CString } from '../fs/libc.ts'
import type { Privileges } from '../fs/privileges.ts'
import type { Rooted } from '../fs/rooted.ts'
import * as sys from '../fs/syscall.ts'
import { removeTree } from '../fs/walk.ts'
import { DirectoryState, type Directory, type DirectoryMetadata } from './directory-state.ts'
import type { Dialect } from './extraction.ts'
import { Metadata, type MetadataOptions } from './metadata.ts'
import type { TarHeader } from './tar-header.ts'
import type { Warnings } from './warnings.ts'

const slash = 0x2f
/** How many directories are kept in memory where they can be finished before the layer is; changed by tests. */
export const treeBounds: { directories: number } = { directories: 8192 }

/** How a tree is worked on. */
export interface TreeOptions extends MetadataOptions {
  /** The tree is empty: there is nothing that whiteouts could delete, so nothing is noted for their sake. */
  readonly first: boolean
  /** How whiteouts are stored. @default 'plain' */
  readonly dialect?: Dialect | undefined
  /** How deep a directory may be: links lead deeper than paths do. */
  readonly maxDepth?: number | undefined
}

/** Whoever stores whiteouts has to know which directories this layer made, and what they became. */
export interface TreeObserver {
  /** Whether whatever lower layers have in a directory is hidden. */
  isHidden(node: Directory): boolean
  /** A directory was made, for its entry or (`implied`) for what is in it, where a lower layer might have something. */
  made(node: Directory, implied: boolean): void
  /** A directory has its metadata. */
  finished(node: Directory, fd: number): void
}

/** A tree during one layer. */
export class WorkingTree {
  readonly rooted: Rooted<DirectoryState>
  readonly metadata: Metadata
  readonly #options: TreeOptions
  readonly #privileges: Privileges
  readonly #warnings: Warnings
  /** Directories that were worked in, in that order. */
  #directories: Directory[] = []
  /** What is noted for the sake of whiteouts: names, or only in which directories something was written. */
  readonly #notes: 'nothing' | 'names' | 'directories'
  /** Set for an overlay dialect. */
  observer: TreeObserver | undefined
  #implicit: DirectoryMetadata | undefined

  /** The tree stays the caller's to close; nothing else may change it meanwhile. */
  constructor(
    rooted: Rooted<DirectoryState>,
    options: TreeOptions,
    privileges: Privileges,
    warnings: Warnings,
  ) {
    this.rooted = rooted
    this.metadata = new Metadata(options, privileges, warnings)
    this.#options = options
    this.#privileges = privileges
    this.#warnings = warnings
    const { first, dialect = 'plain' } = options
    this.#notes = dialect !== 'plain' ? 'directories' : first ? 'nothing' : 'names'
  }

  /** Directories that were worked in, parents first; some may be dropped. */
  get directories(): readonly Directory[] {
    return this.#directories
  }

  /** The directory that holds a path's last component, which begins at `start`; made if it isn't there. */
  parentOf(path: Buffer, start: number): Directory {
    if (start === 0) return this.rooted.root
    return this.rooted.directory(path, this.#createParent, start - 1)
  }

  stateOf(node: Directory): DirectoryState {
    if (node.data !== undefined) return node.data
    const state = new DirectoryState(false)
    node.data = state
    this.#directories.push(node)
    return state
  }

  /** Notes that this layer made a name that isn't a directory. */
  noteWritten(node: Directory, state: DirectoryState, name: CString): void {
    state.changed = true
    this.#inheritsAcl(node, state)
    if (this.#notes === 'nothing') return
    if (this.#notes === 'names') {
      state.written ??= new Set()
      state.written.add(keyOf(name))
    }
    this.#touch(node)
  }

  /** Removes a name with all beneath it. */
  remove(node: Directory, name: CString): void {
    this.stateOf(node).changed = true
    removeTree(this.rooted.fdOf(node), name)
    this.rooted.forget(node, keyOf(name))
  }

  /** The subdirectory of this name, if it is one; symlinks aren't followed. */
  child(node: Directory, name: CString): Directory | undefined {
    return this.rooted.child(node, name, keyOf(name))
  }

  /** Takes a directory that was just made into the tree; `replaced`: something else of this tree. */
  adopt(node: Directory, name: CString, replaced: boolean, implied = false): Directory {
    const parent = this.stateOf(node)
    parent.changed = true
    const child = this.child(node, name)
    if (child === undefined) throw new SystemCallError(-errno.ESTALE, 'openat', name)
    const { maxDepth = Infinity } = this.#options
    if (child.depth > maxDepth)
      throw createError('LIMIT_EXCEEDED', {
        subject: pathOf(child),
        limit: 'depth of a directory',
        value: child.depth,
        maximum: maxDepth,
      })
    const { observer } = this
    const state = new DirectoryState(
      observer === undefined || replaced || observer.isHidden(node),
    )
    state.hasXattrs = this.#inheritsAcl(node, parent)
    child.data = state
    this.#directories.push(child)
    if (!state.own) observer?.made(child, implied)
    return child
  }

  /** Has a directory get the metadata of its entry in the end; owned as `metadata` says now. */
  describe(node: Directory, header: TarHeader): void {
    const state = this.stateOf(node)
    state.explicit = true
    state.metadata = {
      mode: header.mode,
      uid: this.metadata.uid,
      gid: this.metadata.gid,
      mtime: header.mtime,
      atime: header.atime ?? header.mtime,
      xattrs: this.metadata.xattrsOf(header),
    }
    this.#touch(node)
  }

  /** Has a directory become what it would be, had it been made for the sake of those beneath it. */
  readonly makeImplicit = (node: Directory): void => {
    const state = this.stateOf(node)
    state.fresh = true
    state.metadata = this.#implicitMetadata()
  }

  /** Makes a directory that has no entry (yet); always the same, whatever the time and umask. */
  makeImplied(node: Directory, name: CString, replaced: boolean): Directory {
    check(sys.mkdirat(this.rooted.fdOf(node), name, 0o755), 'mkdirat', name)
    const child = this.adopt(node, name, replaced, true)
    this.stateOf(child).metadata = this.#implicitMetadata()
    if (keyOf(name).startsWith('.wh.')) {
      const message = 'a directory has a name that only whiteouts can have'
      this.#warnings.add('WHITEOUT_DIRECTORY', message, pathOf(child))
    }
    return child
  }

  /** Gives directories their metadata, and those that were there before their times. To be called once, at the end. */
  finish(): void {
    for (const node of this.#directories) this.#finishNode(node)
    this.#settleModes(() => {
      this.rooted.restoreModes()
    })
  }

  /**
   * To be called between entries: where there are too many directories in memory, all are finished and forgotten, which
   * makes every node invalid. One that is met again is taken for one that was there before, and gets its times back in
   * the end. What else is noted of directories serves whiteouts, which a first layer has none of.
   */
  relieve(): void {
    if (this.#notes !== 'nothing' || this.rooted.size <= treeBounds.directories) return
    const { root } = this.rooted
    for (const node of this.#directories) if (node !== root) this.#finishNode(node)
    this.#settleModes(() => {
      this.rooted.forgetAll()
    })
    this.#directories = root.data === undefined ? [] : [root]
  }

  #finishNode(node: Directory): void {
    const state = node.data
    if (node.dropped || state === undefined) return
    try {
      this.#finishDirectory(node, state)
      this.observer?.finished(node, this.rooted.fdOf(node))
    } catch (error) {
      throw wrapError(error, pathOf(node))
    }
  }

  #settleModes(settle: () => void): void {
    try {
      settle()
    } catch (error) {
      throw wrapError(error, 'modes of directories')
    }
  }

  /** Makes a directory on the way to an entry. */
  readonly #createParent = (
    node: Directory,
    name: CString,
    _key: string,
    occupied: boolean,
  ): Directory => {
    if (occupied) this.remove(node, name)
    const child = this.makeImplied(node, name, occupied)
    this.#touch(child)
    return child
  }

  #implicitMetadata(): DirectoryMetadata {
    if (this.#implicit !== undefined) return this.#implicit
    // not the one of the entry at hand, whose owner it must keep
    const options = { ...this.#options, stored: false }
    const owner = new Metadata(options, this.#privileges, this.#warnings)
    owner.setOwner(0, 0, Buffer.from('a directory without an entry'))
    const { uid, gid } = owner
    this.#implicit = { mode: 0o755, uid, gid, mtime: 0n, atime: 0n, xattrs: [] }
    return this.#implicit
  }

  #finishDirectory(node: Directory, state: DirectoryState): void {
    const { metadata } = state
    if (metadata === undefined) {
      if (state.changed) futimens(this.rooted.fdOf(node), node.stat.atime, node.stat.mtime)
      return
    }
    const fd = this.rooted.fdOf(node)
    const { uid, gid, mode, xattrs } = metadata
    if (!this.#options.rootless && (node.stat.uid !== uid || node.stat.gid !== gid))
      check(sys.fchown(fd, uid, gid), 'fchown')
    this.#setMode(node, fd, mode)
    if (state.hasXattrs) this.metadata.clearXattrs(fd, xattrs)
    if (xattrs.length > 0) this.metadata.setXattrs(fd, xattrs, false, pathOf(node))
    futimens(fd, metadata.atime, metadata.mtime)
    this.metadata.storedTime(metadata.mtime, fd, undefined, () => pathOf(node))
  }

  /** Where modes apply to us, one that bars the way comes last of all. */
  #setMode(node: Directory, fd: number, mode: number): void {
    const former = node.stat.mode & 0o7777
    const current = node.widened ? former | 0o700 : former
    const access = this.#privileges.overridesModes ? 0 : 0o700
    if (current !== (mode | access)) check(sys.fchmod(fd, mode | access), 'fchmod')
    if (mode === (mode | access)) this.rooted.keepMode(node)
    else this.rooted.deferMode(node, mode)
  }

  #inheritsAcl(node: Directory, state: DirectoryState): boolean {
    state.inheritsAcl ??= this.metadata.inheritsAcl(this.rooted.fdOf(node))
    return state.inheritsAcl
  }

  /** Notes that there is something of this layer in a directory and those above. */
  #touch(node: Directory): void {
    if (this.#notes === 'nothing') return
    for (let at: Directory | undefined = node; at !== undefined; at = at.parent) {
      const state = this.stateOf(at)
      if (state.touched) return
      state.touched = true
    }
  }
}

/** The form in which nodes and states know a name. */
export function keyOf(name: CString): string {
  return name.toString('latin1', 0, name.length - 1)
}

/** The path of a directory, without a leading slash. */
export function pathOf(node: Directory): Buffer {
  const parts: Buffer[] = []
  for (let at = node; at.parent !== undefined; at = at.parent)
    parts.push(at.name.subarray(0, -1))
  const path = Buffer.concat(parts.reverse().flatMap(part => [Buffer.from([slash]), part]))
  return path.subarray(1)
}
