// Changes become the entries of a new layer: what is there is read through descriptors, what is gone becomes a whiteout.
// Everything is opened relative to its directory, one component at a time: the rootfs may belong to somebody else.
import { createHash } from 'node:crypto'
import type { Extra } from '../bundle/extra.ts'
import type { RecordBuilder, Row } from '../bundle/record-builder.ts'
import { extraOf } from '../bundle/scan.ts'
import type { Change } from '../change.ts'
import { createError, KociError, wrapError } from '../errors.ts'
import type { Warning } from '../events.ts'
import { XattrReader, type Xattr } from '../fs/entry-xattrs.ts'
import { close, cstring, pread, S_IFMT, statx, type CString, type Stat } from '../fs/libc.ts'
import { openStated, readStated } from '../fs/open-file.ts'
import { closeTree, openTree } from '../fs/open-tree.ts'
import type { DirNode, Rooted } from '../fs/rooted.ts'
import { toContainer } from '../oci/idmap.ts'
import { printable } from '../text.ts'
import type { Extraction } from './extraction.ts'
import type { FileHashes } from './file-hashes.ts'
import type { LayerEntry } from './layer-writer.ts'
import { decodeRootlessOwner, rootlessXattr } from './rootless-owner.ts'

const pieceSize = 1 << 20
const emptySum = createHash('sha256').digest()
const slash = 0x2f

/** What never enters a layer: labels and lists that belong to the machine. */
const machineXattrs = new Set(['security.selinux', 'system.nfs4_acl'])

const entryTypes: Record<number, LayerEntry['type']> = {
  0o100000: 'file',
  0o040000: 'directory',
  0o120000: 'symlink',
  0o020000: 'char',
  0o060000: 'block',
  0o010000: 'fifo',
}

/** What entries are made from: the context of `pack` is one. */
export interface PackSource {
  /** The tree that the changes are in. */
  readonly rootfs: string
  readonly changes: Iterable<Change>
  /** Whose ids the files have. */
  readonly extraction: Pick<Extraction, 'uidMap' | 'gidMap' | 'rootless'>
  /** Gets the hash of every file, as it is read. */
  readonly hashes?: FileHashes | undefined
  readonly signal: AbortSignal
  readonly warn: (warning: Warning) => void
}

/**
 * The end of the chain of `pack`: yields the entries of `ctx.changes`, in their order.
 * The first name of an inode is the file, further ones are hard links to it. Sockets are left out with a warning.
 *
 * `packed` gets a row for each change, in their order: what the entry was made from, without the content's sum. That of
 * something that is gone is empty: its mode is 0.
 * @throws {IntegrityError} ERR_KOCI_FILE_CHANGED if something changes while it is read; {LimitError}
 * ERR_KOCI_LIMIT_EXCEEDED with `packed`, for more link targets and extended attributes than a record can have
 */
export async function* packEntries(
  context: PackSource,
  packed?: RecordBuilder,
): AsyncGenerator<LayerEntry, void, undefined> {
  const packer = new Packer(context, packed)
  try {
    for (const change of context.changes) {
      assertNotAborted(context.signal, context.rootfs)
      const entry = change.kind === 'D' ? packer.whiteout(change) : packer.describe(change)
      if (entry) yield entry
      if (change.opaque && entry?.type === 'directory')
        yield { ...whiteout(change), type: 'opaqueWhiteout' }
    }
  } finally {
    packer.close()
  }
}

/** The reason may be anything: it is the caller's signal. */
function assertNotAborted({ aborted, reason }: AbortSignal, subject: string | Buffer): void {
  if (aborted)
    throw reason instanceof KociError ? reason : createError('ABORTED', { subject }, reason)
}

function whiteout({ rawPath }: Change): LayerEntry {
  return { rawPath, type: 'whiteout', mode: 0, uid: 0, gid: 0, size: 0, mtime: 0n }
}

class Packer {
  readonly #context: PackSource
  readonly #root: Rooted
  /** The directory of the latest entry: the next one is most likely in it, too. */
  #last: { readonly rawPath: Buffer; readonly node: DirNode }
  /** By device and inode, the first name of each file that has several. */
  readonly #links = new Map<string, Buffer>()
  readonly #packed: RecordBuilder | undefined
  readonly #xattrs = new XattrReader()

  constructor(context: PackSource, packed: RecordBuilder | undefined) {
    this.#context = context
    this.#packed = packed
    this.#root = openTree(context.rootfs)
    this.#last = { rawPath: Buffer.alloc(0), node: this.#root.root }
  }

  whiteout(change: Change): LayerEntry {
    this.#note(change.rawPath, gone, {})
    return whiteout(change)
  }

  /** The entry for something that is there; undefined for what can't be in a layer. */
  describe({ rawPath, leaf = false }: Change): LayerEntry | undefined {
    return this.#at(rawPath, (dirfd, name) => {
      const stat = statx(dirfd, name)
      const { root } = this.#root
      if (rawPath.length === 0 && root.widened) stat.mode = root.stat.mode
      const type = entryTypes[stat.mode & S_IFMT]
      if (leaf && type === 'directory') throw createError('FILE_CHANGED', { subject: rawPath })
      const first = type === 'directory' ? undefined : this.#firstName(rawPath, stat)
      const isNoted = !first || this.#packed !== undefined
      const extra = (isNoted && extraOf(dirfd, name, stat, this.#xattrs, rawPath)) || {}
      this.#note(rawPath, stat, extra)
      if (type === undefined) {
        const message = `${printable(rawPath)}: a socket can't be in a layer`
        this.#context.warn({ code: 'SOCKET_SKIPPED', message })
        return undefined
      }
      const xattrs = first ? [] : (extra.xattrs ?? []).filter(isPacked)
      const entry: LayerEntry = {
        rawPath,
        type: first ? 'hardlink' : type,
        mode: stat.mode & 0o7777,
        ...this.#owner(rawPath, stat, xattrs),
        size: type === 'file' && !first ? stat.size : 0,
        mtime: stat.mtime,
      }
      if (first) return { ...entry, rawLinkname: first }
      if (extra.rawLinkname) return { ...entry, rawLinkname: extra.rawLinkname, xattrs }
      if (type === 'file') {
        // nobody asks for a body of no bytes
        if (stat.size === 0) this.#context.hashes?.add(stat.ino, emptySum, 0, stat.mtime)
        return { ...entry, xattrs, body: () => this.#body(rawPath, stat) }
      }
      return { ...entry, xattrs, devmajor: stat.rdevMajor, devminor: stat.rdevMinor }
    })
  }

  /** Gives back what was opened, and the modes of directories that had to be made readable. */
  close(): void {
    closeTree(this.#root)
  }

  #note(rawPath: Buffer, values: Row, extra: Extra): void {
    const name = rawPath.lastIndexOf(slash) + 1
    const row = this.#packed?.add(values, rawPath, name, rawPath.length)
    if (row !== undefined) this.#packed?.setExtra(row, extra)
  }

  #firstName(rawPath: Buffer, stat: Stat): Buffer | undefined {
    if (stat.nlink < 2) return undefined
    const inode = `${stat.dev}:${stat.ino}`
    const first = this.#links.get(inode)
    if (!first) this.#links.set(inode, rawPath)
    return first
  }

  /** The container's ids. A rootless file's are in its xattr, which is taken out of the list. */
  #owner(rawPath: Buffer, stat: Stat, xattrs: Xattr[]): { uid: number; gid: number } {
    const { uidMap, gidMap, rootless } = this.#context.extraction
    if (!rootless)
      try {
        return { uid: toContainer(uidMap, stat.uid), gid: toContainer(gidMap, stat.gid) }
      } catch (error) {
        const reason = `its owner ${stat.uid}:${stat.gid} is in no id map`
        throw createError('INVALID_ENTRY', { subject: rawPath, reason }, error)
      }
    const at = xattrs.findIndex(([name]) => name.equals(rootlessXattr))
    const [recorded] = at < 0 ? [] : xattrs.splice(at, 1)
    return (recorded && decodeRootlessOwner(recorded[1])) ?? { uid: 0, gid: 0 }
  }

  /** Exactly the bytes that were there when the entry was described, or an error. */
  *#body(rawPath: Buffer, described: Stat): Generator<Buffer, void, undefined> {
    const fd = this.#at(rawPath, (dirfd, name) => openStated(dirfd, name, described, rawPath))
    const hash = createHash('sha256')
    try {
      for (let at = 0; at < described.size;) {
        assertNotAborted(this.#context.signal, rawPath)
        const piece = Buffer.allocUnsafe(Math.min(pieceSize, described.size - at))
        const length = pread(fd, piece, piece.length, at)
        if (length === 0) break
        at += length
        hash.update(piece.subarray(0, length))
        yield piece.subarray(0, length)
      }
      const after = statx(fd)
      if (after.size !== described.size || after.mtime !== described.mtime)
        throw createError('FILE_CHANGED', { subject: rawPath })
      this.#context.hashes?.add(after.ino, hash.digest(), after.size, after.mtime)
    } catch (error) {
      throw wrapError(error, rawPath)
    } finally {
      close(fd)
    }
  }

  #at<T>(rawPath: Buffer, use: (dirfd: number, name: CString) => T): T {
    try {
      return readStated(rawPath, () => {
        const end = rawPath.lastIndexOf(slash)
        const name = cstring(rawPath.length === 0 ? '.' : rawPath.subarray(end + 1))
        const node = this.#directory(rawPath.subarray(0, Math.max(end, 0)))
        return this.#root.pinned(node, dirfd => use(dirfd, name))
      })
    } catch (error) {
      throw wrapError(error, rawPath)
    }
  }

  /** Links aren't followed: what was listed beneath a directory isn't beneath what took its place. */
  #directory(rawPath: Buffer): DirNode {
    if (this.#last.rawPath.equals(rawPath)) return this.#last.node
    let { root: node } = this.#root
    for (const key of rawPath.length === 0 ? [] : rawPath.toString('latin1').split('/')) {
      if (key === '' || key === '.' || key === '..')
        throw createError('PATH_ESCAPE', { subject: rawPath, reason: 'not a plain path' })
      const child = this.#root.child(node, cstring(Buffer.from(key, 'latin1')), key)
      if (!child) throw createError('FILE_CHANGED', { subject: rawPath })
      node = child
    }
    this.#last = { rawPath, node }
    return node
  }
}

function isPacked([attribute]: Xattr): boolean {
  return !machineXattrs.has(attribute.toString('latin1'))
}

/** The row of something that is gone. */
const gone = { mode: 0, uid: 0, gid: 0, nlink: 0, size: 0, mtime: 0n, ctime: 0n, ino: 0n }
