// Applies the entries of one layer to a tree, as the tar reader hands them out. Synchronous, and the inner loop of
// the product: the likely case is tried first, and looked at only when the kernel refuses it.
// Whatever exists under an entry's name is removed, never opened: inodes shared with other names are thereby left alone.
import { createError, wrapError, type KociError } from '../errors.ts'
import {
  check,
  cstring,
  errno,
  isMissing,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFMT,
  SystemCallError,
  timespecs,
  type CString,
} from '../fs/libc.ts'
import type { Privileges } from '../fs/privileges.ts'
import type { Location, Rooted } from '../fs/rooted.ts'
import { tryStat } from '../fs/stat.ts'
import * as sys from '../fs/syscall.ts'
import { xattrTarget } from '../fs/xattr.ts'
import { cleanPath } from './clean-path.ts'
import type { Directory, DirectoryState } from './directory-state.ts'
import type { FileHashes } from './file-hashes.ts'
import { FileWriter } from './file-writer.ts'
import type { StackingReport } from './layer.ts'
import { OverlayWhiteouts } from './overlay-whiteouts.ts'
import { PlainWhiteouts } from './plain-whiteouts.ts'
import type { TarHandler, TarHeader } from './tar-header.ts'
import type { Warnings } from './warnings.ts'
import { isWhiteout, parseWhiteout } from './whiteout-name.ts'
import type { Whiteouts } from './whiteouts.ts'
import { WorkingTree, type TreeOptions } from './working-tree.ts'

/** How a layer is applied. */
export interface ApplyOptions extends TreeOptions {
  /** A directory entry over a symlink to a directory keeps the link. */
  readonly keepDirlinks: boolean
  /** Names and hard link targets that climb above the root stop there, instead of being errors. */
  readonly clamp?: boolean
  /** Where the hashes of files go; without it none are made. */
  readonly hashes?: FileHashes | undefined
  /** Which files' hashes come with `endEntry`, made by somebody else. */
  readonly hasSums?: ((header: TarHeader) => boolean) | undefined
  /** Components of one path. */
  readonly maxDepth?: number | undefined
}

const slash = 0x2f
const linkMayStay = 'a symlink that a directory may replace leads'

/**
 * Applies one layer; whiteouts are carried out, or stored in an overlay dialect.
 *
 * Directories get their metadata in `finish()`, which must be called after the last entry; `close()` in any case.
 * Errors have the entry's name for their subject. After one, the tree holds part of the layer.
 * @throws {FormatError} ERR_KOCI_INVALID_ENTRY, ERR_KOCI_INVALID_WHITEOUT
 * @throws {BreakoutError} ERR_KOCI_PATH_ESCAPE
 * @throws {UsageError} ERR_KOCI_NEEDS_BELOW in an overlay dialect, where only the layers below decide what an entry means
 * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED for a path deeper than `maxDepth`
 * @throws {SystemError} ERR_KOCI_IO
 */
export class LayerApplier implements TarHandler {
  /** Entries that were begun. */
  entries = 0
  /** Logical bytes of files that were begun. */
  fileBytes = 0
  readonly #rooted: Rooted<DirectoryState>
  readonly #tree: WorkingTree
  readonly #files: FileWriter
  readonly #options: ApplyOptions
  readonly #privileges: Privileges
  readonly #warnings: Warnings
  readonly #whiteouts: Whiteouts
  /** The same, in an overlay dialect. */
  readonly #overlay: OverlayWhiteouts | undefined
  /** Of the entry at hand, clean. */
  #path: Buffer = Buffer.alloc(0)

  /** The tree stays the caller's to close; nothing else may change it meanwhile. */
  constructor(
    rooted: Rooted<DirectoryState>,
    options: ApplyOptions,
    privileges: Privileges,
    warnings: Warnings,
  ) {
    this.#rooted = rooted
    this.#tree = new WorkingTree(rooted, options, privileges, warnings)
    this.#files = new FileWriter(this.#tree, options, privileges)
    this.#options = options
    this.#privileges = privileges
    this.#warnings = warnings
    const { dialect = 'plain' } = options
    this.#overlay =
      dialect === 'plain' ? undefined : new OverlayWhiteouts(this.#tree, dialect, options)
    this.#whiteouts = this.#overlay ?? new PlainWhiteouts(this.#tree, options.first)
  }

  /** In an overlay dialect, and after `finish()`: what the layer takes for granted about those below it. */
  get stacking(): StackingReport | undefined {
    return this.#overlay?.report
  }

  entry(header: TarHeader): void {
    this.entries += 1
    this.#path = cleanPath(header.rawPath, this.#options.clamp)
    try {
      this.#tree.relieve()
      this.#apply(header)
    } catch (error) {
      throw this.#wrap(error)
    }
  }

  data(chunk: Buffer, offset: number): void {
    if (!this.#files.isOpen) return // a whiteout's body
    try {
      this.#files.data(chunk, offset)
    } catch (error) {
      throw this.#wrap(error)
    }
  }

  /** The body of the entry at hand, from a file that is open; `sum`: its hash, if it is known. `poll` may throw. */
  fill(source: number, sum: Uint8Array | undefined, poll: () => void): void {
    try {
      this.#files.fill(source, sum, poll)
    } catch (error) {
      throw this.#wrap(error)
    }
  }

  /** Makes a directory, if there is none, as for something in it. */
  imply(path: Buffer): void {
    this.#path = path
    try {
      this.#tree.parentOf(path, path.length + 1)
    } catch (error) {
      throw this.#wrap(error)
    }
  }

  /** Hides what lower layers have under a name in a directory, or, without a name, in the directory. */
  hide(parent: Buffer, rawName?: Buffer): void {
    this.#path = parent
    try {
      if (rawName === undefined) this.#whiteouts.hideContent(parent)
      else this.#whiteouts.hideName(parent, rawName)
    } catch (error) {
      throw this.#wrap(error)
    }
  }

  /** `sum`: of the body, if somebody else made it. */
  endEntry(sum?: Uint8Array): void {
    if (!this.#files.isOpen) return
    try {
      this.#files.finish(sum)
    } catch (error) {
      throw this.#wrap(error)
    }
  }

  warn(code: string, message: string, header?: TarHeader): void {
    this.#warnings.add(code, message, header?.rawPath)
  }

  /** Gives directories their metadata, and those that were there before their times. */
  finish(): void {
    this.#whiteouts.finish()
    this.#tree.finish()
  }

  /** Lets go of the file that was being written, if an error interrupted it. */
  close(): void {
    this.#files.close()
  }

  #wrap(error: unknown): KociError {
    return wrapError(error, this.#path)
  }

  #invalid(reason: string, cause?: unknown): KociError {
    return createError('INVALID_ENTRY', { subject: this.#path, reason }, cause)
  }

  #apply(header: TarHeader): void {
    const path = this.#path
    const { metadata } = this.#tree
    if (path.length === 0) {
      if (header.type !== 'directory')
        throw this.#invalid(`the root can only be a directory, not a ${header.type}`)
      metadata.setOwner(header.uid, header.gid, path)
      this.#tree.describe(this.#rooted.root, header)
      return
    }
    const start = path.lastIndexOf(slash) + 1
    this.#checkDepth(path)
    if (isWhiteout(path, start)) {
      this.#applyWhiteout(path, start)
      return
    }
    metadata.setOwner(header.uid, header.gid, path)
    const node = this.#tree.parentOf(path, start)
    const name = cstring(path.subarray(start))
    switch (header.type) {
      case 'file':
        this.#makeFile(header, node, name)
        break
      case 'directory':
        this.#makeDirectory(header, node, name)
        break
      case 'symlink':
        this.#makeSymlink(header, node, name)
        break
      case 'hardlink':
        this.#makeHardlink(header, node, name)
        break
      case 'char':
      case 'block':
      case 'fifo':
        this.#makeSpecial(header, node, name)
        break
    }
  }

  #checkDepth(path: Buffer): void {
    const { maxDepth } = this.#options
    if (maxDepth === undefined) return
    let depth = 1
    for (let at = path.indexOf(slash); at >= 0; at = path.indexOf(slash, at + 1)) depth += 1
    if (depth <= maxDepth) return
    const limit = 'number of components of a path'
    throw createError('LIMIT_EXCEEDED', {
      subject: path,
      limit,
      value: depth,
      maximum: maxDepth,
    })
  }

  #makeFile(header: TarHeader, node: Directory, name: CString): void {
    this.#files.start(header, node, name, this.#path)
    this.fileBytes += header.size
  }

  #makeDirectory(header: TarHeader, node: Directory, name: CString): void {
    const tree = this.#tree
    const early = tree.metadata.isOwn ? (header.mode & 0o777) | 0o700 : 0o700
    let code = sys.mkdirat(this.#rooted.fdOf(node), name, early)
    const occupied = code === -errno.EEXIST
    if (occupied) {
      const existing = tree.child(node, name)
      if (existing !== undefined) {
        tree.describe(existing, header)
        return
      }
      if (this.#options.keepDirlinks && this.#leadsToDirectory(this.#path)) {
        // as umoci does: owner and times become the link's own
        this.#finishByName(header, node, name, true)
        return
      }
      tree.remove(node, name)
      code = sys.mkdirat(this.#rooted.fdOf(node), name, early)
    }
    check(code, 'mkdirat', name)
    tree.describe(tree.adopt(node, name, occupied), header)
  }

  #leadsToDirectory(path: Buffer): boolean {
    try {
      const node = this.#rooted.directory(path)
      this.#overlay?.expectDirectory(node, path, linkMayStay)
      return true
    } catch (error) {
      this.#overlay?.expectDecided(error, path, linkMayStay)
      if (error instanceof SystemCallError) return false
      throw error
    }
  }

  #makeSymlink(header: TarHeader, node: Directory, name: CString): void {
    if (header.rawLinkname.length === 0) throw this.#invalid('the target is empty')
    const target = cstring(header.rawLinkname)
    let code = sys.symlinkat(target, this.#rooted.fdOf(node), name)
    if (code === -errno.EEXIST) {
      this.#tree.remove(node, name)
      code = sys.symlinkat(target, this.#rooted.fdOf(node), name)
    }
    check(code, 'symlinkat', name)
    this.#finishByName(header, node, name, true)
  }

  #makeSpecial(header: TarHeader, node: Directory, name: CString): void {
    const isDevice = header.type !== 'fifo'
    if (this.#overlay !== undefined && isDevice) this.#expectNoWhiteout(header)
    if (isDevice && (this.#options.rootless || this.#privileges.inUserNamespace)) {
      const message = 'devices cannot be made here; they become empty files'
      this.#warnings.add('DEVICE_AS_FILE', message, this.#path)
      this.#makeFile(header, node, name)
      return
    }
    const type = isDevice ? (header.type === 'char' ? S_IFCHR : S_IFBLK) : S_IFIFO
    const { devmajor, devminor } = header
    const mode = type | 0o600
    let code = sys.mknodat(this.#rooted.fdOf(node), name, mode, devmajor, devminor)
    if (code === -errno.EEXIST) {
      this.#tree.remove(node, name)
      code = sys.mknodat(this.#rooted.fdOf(node), name, mode, devmajor, devminor)
    }
    // overlayfs itself refuses it
    if (isDevice && code === -errno.EPERM) this.#expectNoWhiteout(header)
    check(code, 'mknodat', name)
    this.#finishByName(header, node, name, false)
  }

  #expectNoWhiteout({ type, devmajor, devminor }: TarHeader): void {
    if (type === 'char' && devmajor === 0 && devminor === 0)
      throw this.#invalid('overlayfs would take a character device 0:0 for a whiteout')
  }

  /** Metadata of what must not be opened, or can't be: symlinks, fifos, devices. */
  #finishByName(header: TarHeader, node: Directory, name: CString, isLink: boolean): void {
    const { metadata } = this.#tree
    const state = this.#tree.stateOf(node)
    this.#tree.noteWritten(node, state, name)
    const fd = this.#rooted.fdOf(node)
    const isOursAlready = metadata.isOwn && state.predictable && header.type !== 'directory'
    if (!isOursAlready && !this.#options.rootless)
      check(sys.fchownat(fd, name, metadata.uid, metadata.gid), 'fchownat', name)
    if (!isLink) check(sys.fchmodat(fd, name, header.mode), 'fchmodat', name)
    const xattrs = metadata.xattrsOf(header)
    const hasInherited = !isLink && state.inheritsAcl === true
    if (xattrs.length > 0 || hasInherited) {
      const target = xattrTarget(fd, name)
      if (hasInherited) metadata.clearXattrs(target, xattrs)
      metadata.setXattrs(target, xattrs, true, this.#path)
    }
    const times = timespecs(header.atime ?? header.mtime, header.mtime)
    check(sys.utimensat(fd, name, times), 'utimensat', name)
    metadata.storedTime(header.mtime, fd, name, () => this.#path)
  }

  /** Its own metadata is ignored: it would change the file under its other names, in lower layers, too. */
  #makeHardlink(header: TarHeader, node: Directory, name: CString): void {
    const target = this.#findLinkTarget(header)
    if (target.name === undefined) throw this.#invalid('the target is a directory')
    const from = target.name
    this.#overlay?.checkLinkTarget(target, this.#path, header.rawLinkname)
    if (target.node === node && from.equals(name)) throw this.#invalid('it links to itself')
    const link = (): number =>
      this.#rooted.pinned(target.node, fd =>
        sys.linkat(fd, from, this.#rooted.fdOf(node), name),
      )
    let code = link()
    if (code === -errno.EEXIST) {
      // nothing is removed for the sake of a link that can't be made
      this.#checkLinkTarget(target, node, name)
      this.#tree.remove(node, name)
      code = link()
    }
    if (code === -errno.ENOENT || code === -errno.EPERM)
      this.#checkLinkTarget(target, node, name)
    check(code, 'linkat', name)
    this.#tree.noteWritten(node, this.#tree.stateOf(node), name)
  }

  #findLinkTarget(header: TarHeader): Location<DirectoryState> {
    const path = cleanPath(header.rawLinkname, this.#options.clamp)
    try {
      return this.#rooted.locate(path)
    } catch (error) {
      this.#overlay?.expectDecided(error, header.rawLinkname, 'a hard link leads')
      if (isMissing(error)) throw this.#invalid('the target does not exist', error)
      throw error
    }
  }

  #checkLinkTarget(target: Location<DirectoryState>, node: Directory, name: CString): void {
    const stat = tryStat(this.#rooted.fdOf(target.node), target.name)
    if (stat === -errno.ENOENT) throw this.#invalid('the target does not exist')
    if (typeof stat === 'number') throw new SystemCallError(stat, 'statx', target.name)
    if ((stat.mode & S_IFMT) === S_IFDIR) throw this.#invalid('the target is a directory')
    for (let at = target.node; at.parent !== undefined; at = at.parent)
      if (at.parent === node && at.name.equals(name))
        throw this.#invalid('the target is in the directory that it would replace')
  }

  /** The type and body of a whiteout's entry mean nothing. */
  #applyWhiteout(path: Buffer, start: number): void {
    const whiteout = parseWhiteout(path, start)
    if (whiteout.kind === 'ignored') {
      this.#warnings.add('IGNORED_WHITEOUT', 'names with .wh..wh. are ignored', path)
      return
    }
    const parent = path.subarray(0, Math.max(0, start - 1))
    if (whiteout.kind === 'opaque') this.#whiteouts.hideContent(parent)
    else this.#whiteouts.hideName(parent, whiteout.name)
  }
}
