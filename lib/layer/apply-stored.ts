// Applies a layer that is stored in a directory of its own to a tree, as if it were extracted there: what the tar said
// becomes entries again. The stored tree is only read, by descriptors, and never changed: others may be using it.
import { wrapError } from '../errors.ts'
import { readXattrs, XattrReader, type Xattr } from '../fs/entry-xattrs.ts'
import { openFile } from '../fs/open-file.ts'
import {
  close,
  cstring,
  readlinkat,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  SystemCallError,
  type CString,
  type Stat,
} from '../fs/libc.ts'
import { readPrivileges } from '../fs/privileges.ts'
import { openRooted, type DirNode, type Rooted } from '../fs/rooted.ts'
import { tryStat } from '../fs/stat.ts'
import { readEntries } from '../fs/walk.ts'
import type { Digest } from '../oci/digest.ts'
import type { IdMap } from '../oci/idmap.ts'
import { LayerApplier } from './apply.ts'
import type { Control } from './control.ts'
import { openTarget, SupervisedApplier } from './extract.ts'
import type { Dialect } from './extraction.ts'
import { FileHashes, keptHashes, type TransferredHashes } from './file-hashes.ts'
import type { StackingReport } from './layer.ts'
import type { Limits } from './limits.ts'
import { isWhiteoutDevice, opaqueXattr } from './lower-stack.ts'
import { overlayNamespace } from './metadata.ts'
import type { EntryType, TarHeader } from './tar-header.ts'
import { Warnings, type ApplyWarning } from './warnings.ts'
import { isWhiteout } from './whiteout-name.ts'

/** A stored layer to be applied; plain data, so that it can cross to a worker. */
export interface StoredJob {
  readonly digest: Digest
  readonly dir: string
  readonly dialect: Dialect
  /** As extraction reported it; without it every directory counts as the layer's own, but for the root. */
  readonly stacking?: StackingReport | undefined
  readonly target: string
  /** For directories that the layer only implies. What is stored has its ids already. */
  readonly uidMap?: readonly IdMap[] | undefined
  readonly gidMap?: readonly IdMap[] | undefined
  readonly rootless?: boolean
  readonly keepDirlinks?: boolean
  /** The target is empty. */
  readonly first?: boolean
  /** Of the blob: what ratios are measured by. */
  readonly size: number
  readonly limits?: Limits
  /** Of the stored files, by their inodes; those that aren't in it are hashed by nobody. */
  readonly known?: TransferredHashes | undefined
}

/** What came of it. */
export interface StoredResult {
  /** Nothing was done: an ordinary user can't read all that is stored without changing its modes. */
  readonly barred?: true
  readonly warnings: readonly ApplyWarning[]
  /** By inode of the target's file system, if any were known. */
  readonly hashes?: FileHashes | undefined
}

/**
 * Applies a stored layer. All descriptors are closed afterwards, also after an error; then part of it is in the target.
 * @throws {KociError} what `LayerApplier` throws; ERR_KOCI_LIMIT_EXCEEDED, ERR_KOCI_ABORTED; ERR_KOCI_IO
 */
export function applyStored(job: StoredJob, control: Control): StoredResult {
  const privileges = readPrivileges()
  const warnings = new Warnings()
  const known = job.known && FileHashes.fromTransferable(job.known)
  const hashes = known && new FileHashes(keptHashes)
  const { limits = {} } = job
  const subject = `layer ${job.digest}`
  using stored = open(job.dir)
  const poll = (): void => control.throwIfAborted(subject)
  if (!privileges.overridesModes && isBarred(stored, poll, job.dir))
    return { barred: true, warnings: [] }
  const rooted = openTarget(job.target, !privileges.overridesModes)
  const { uidMap, gidMap, rootless = false, keepDirlinks = false, first = false } = job
  const applier = new LayerApplier(
    rooted,
    {
      uidMap,
      gidMap,
      rootless,
      keepDirlinks,
      first,
      hashes,
      maxDepth: limits.maxDepth,
      stored: true,
    },
    privileges,
    warnings,
  )
  try {
    const supervised = new SupervisedApplier(applier, control, limits, job.size, subject)
    new StoredLayer(stored, job, applier, supervised, known, poll).apply()
    applier.finish()
    return { warnings: warnings.list(), hashes }
  } finally {
    applier.close()
    rooted.close()
  }
}

interface Frame {
  readonly node: DirNode
  readonly path: Buffer
  /** Still to be met, the next one last. */
  readonly names: CString[]
}

/** Attributes that belong to the machine. */
const masked = new Set(['security.selinux', 'system.nfs4_acl'])
const nothing = Buffer.alloc(0)

const types: Readonly<Record<number, EntryType>> = {
  [S_IFREG]: 'file',
  [S_IFDIR]: 'directory',
  [S_IFLNK]: 'symlink',
  [S_IFCHR]: 'char',
  [S_IFBLK]: 'block',
  [S_IFIFO]: 'fifo',
}

class StoredLayer {
  readonly #stored: Rooted
  readonly #job: StoredJob
  readonly #applier: LayerApplier
  readonly #supervised: SupervisedApplier
  readonly #known: FileHashes | undefined
  readonly #poll: () => void
  readonly #missing: ReadonlySet<string>
  readonly #hollow: ReadonlySet<string>
  readonly #opaque: Buffer | undefined
  readonly #reserved: string | undefined
  readonly #xattrs = new XattrReader()
  /** By inode, the first name of what has several. */
  readonly #links = new Map<bigint, Buffer>()

  constructor(
    stored: Rooted,
    job: StoredJob,
    applier: LayerApplier,
    supervised: SupervisedApplier,
    known: FileHashes | undefined,
    poll: () => void,
  ) {
    this.#stored = stored
    this.#job = job
    this.#applier = applier
    this.#supervised = supervised
    this.#known = known
    this.#poll = poll
    this.#missing = new Set(job.stacking?.missing)
    this.#hollow = new Set(job.stacking?.hollow)
    this.#opaque = opaqueXattr(job.dialect)
    this.#reserved = overlayNamespace(job.dialect)
  }

  apply(): void {
    const stored = this.#stored
    const { root } = stored
    const { stacking } = this.#job
    if (stacking?.root) this.#addEntry(root, nothing, readXattrs(stored.fdOf(root)))
    if (stacking?.opaque) this.#applier.hide(nothing)
    const frames = [this.#enter(root, nothing)]
    for (let frame = frames.at(-1); frame; frame = frames.at(-1)) {
      const name = frame.names.pop()
      if (name) {
        const entered = this.#meet(frame, name)
        if (entered) frames.push(entered)
        continue
      }
      frames.pop()
      const { parent, name: own } = frame.node
      if (parent) stored.forget(parent, own.toString('latin1', 0, own.length - 1))
    }
  }

  #enter(node: DirNode, path: Buffer): Frame {
    const names = readEntries(this.#stored.fdOf(node)).map(({ name }) => cstring(name))
    return { node, path, names: names.reverse() }
  }

  #meet({ node, path: parent }: Frame, name: CString): Frame | undefined {
    const stored = this.#stored
    const rawName = name.subarray(0, -1)
    const path = parent.length === 0 ? rawName : Buffer.concat([parent, slash, rawName])
    const child = stored.child(node, name, rawName.toString('latin1'))
    if (child) {
      this.#addDirectory(child, path)
      return this.#enter(child, path)
    }
    const fd = stored.fdOf(node)
    const stat = tryStat(fd, name)
    if (typeof stat === 'number') throw this.#gone(stat, path)
    if (this.#opaque && isWhiteoutDevice(stat)) this.#applier.hide(parent, rawName)
    else this.#addOther(fd, name, stat, path)
    return undefined
  }

  #addDirectory(node: DirNode, path: Buffer): void {
    const xattrs = readXattrs(this.#stored.fdOf(node))
    const start = path.lastIndexOf(0x2f) + 1
    // whiteouts alone can be called so: what has such a name is only there for what is in it
    const isImplied = this.#missing.has(path.toString('latin1')) || isWhiteout(path, start)
    const isOpaque = xattrs.some(([key]) => this.#opaque?.equals(key))
    if (!isImplied) {
      // a link below would be kept, with `keepDirlinks`, and filled
      if (isOpaque)
        this.#applier.hide(path.subarray(0, Math.max(0, start - 1)), path.subarray(start))
      this.#addEntry(node, path, xattrs)
    } else {
      if (!this.#hollow.has(path.toString('latin1'))) this.#applier.imply(path)
      if (isOpaque) this.#applier.hide(path)
    }
  }

  #addEntry({ stat }: DirNode, path: Buffer, xattrs: readonly Xattr[]): void {
    this.#entry('directory', path, stat, this.#visible(xattrs))
    this.#supervised.endEntry()
  }

  #addOther(fd: number, name: CString, stat: Stat, path: Buffer): void {
    const type = types[stat.mode & S_IFMT]
    // nothing that a layer holds
    if (type === undefined) return
    const first = stat.nlink > 1 ? this.#links.get(stat.ino) : undefined
    if (first) {
      this.#entry('hardlink', path, stat, [], first)
      this.#supervised.endEntry()
      return
    }
    if (stat.nlink > 1) this.#links.set(stat.ino, path)
    const xattrs = this.#visible(this.#xattrs.of(fd, name))
    if (type === 'symlink') this.#entry(type, path, stat, xattrs, readlinkat(fd, name))
    else this.#entry(type, path, stat, xattrs)
    if (type === 'file' && stat.size > 0) this.#fill(fd, name, stat)
    this.#supervised.endEntry()
  }

  #fill(dirfd: number, name: CString, stat: Stat): void {
    const known = this.#known?.get(stat.ino)
    const isSame = known?.size === stat.size && known.mtime === stat.mtime
    const fd = openFile(dirfd, name, stat)
    try {
      this.#applier.fill(fd, isSame ? known.sha256 : undefined, this.#poll)
    } finally {
      close(fd)
    }
  }

  #entry(
    type: EntryType,
    rawPath: Buffer,
    stat: Stat,
    xattrs: readonly Xattr[],
    rawLinkname: Buffer = nothing,
  ): void {
    const header: TarHeader = {
      type,
      rawPath,
      rawLinkname,
      mode: stat.mode & 0o7777,
      uid: stat.uid,
      gid: stat.gid,
      size: type === 'file' ? stat.size : 0,
      mtime: stat.mtime,
      atime: undefined,
      devmajor: stat.rdevMajor,
      devminor: stat.rdevMinor,
      xattrs,
      typeflag: 0,
      sparse: false,
    }
    this.#supervised.entry(header)
  }

  /** The attributes of the layer: overlayfs's own are left out, and those that were stored escaped are themselves again. */
  #visible(xattrs: readonly Xattr[]): readonly Xattr[] {
    const reserved = this.#reserved
    return xattrs.flatMap(([name, value]): Xattr[] => {
      const text = name.toString('latin1')
      if (masked.has(text)) return []
      if (reserved === undefined || !text.startsWith(reserved)) return [[name, value]]
      const escape = `${reserved}overlay.`
      if (!text.startsWith(escape)) return []
      return [[Buffer.from(`${reserved}${text.slice(escape.length)}`, 'latin1'), value]]
    })
  }

  #gone(code: number, path: Buffer): Error {
    return wrapError(new SystemCallError(code, 'statx'), path)
  }
}

const slash = Buffer.from('/')

function open(dir: string): Rooted {
  try {
    return openRooted(dir)
  } catch (error) {
    throw wrapError(error, dir)
  }
}

/** Whether there is something that its owner may not read or enter. */
function isBarred(stored: Rooted, poll: () => void, subject: string): boolean {
  const rest: DirNode[] = [stored.root]
  try {
    for (let node = rest.pop(); node; node = rest.pop()) {
      poll()
      if ((node.stat.mode & 0o500) !== 0o500) return true
      for (const { name } of readEntries(stored.fdOf(node))) {
        const own = cstring(name)
        const stat = tryStat(stored.fdOf(node), own)
        if (typeof stat === 'number') throw new SystemCallError(stat, 'statx', own)
        const type = stat.mode & S_IFMT
        if (type === S_IFREG && (stat.mode & 0o400) === 0) return true
        if (type !== S_IFDIR) continue
        if ((stat.mode & 0o500) !== 0o500) return true
        const child = stored.child(node, own, name.toString('latin1'))
        if (child) rest.push(child)
      }
    }
    return false
  } catch (error) {
    throw wrapError(error, subject)
  }
}
