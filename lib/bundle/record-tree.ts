// Records a tree as it is on disk. Files that were hashed while they were written aren't read again.
import { createHash } from 'node:crypto'
import { createError } from '../errors.ts'
import { readXattrs, XattrReader } from '../fs/entry-xattrs.ts'
import { S_IFMT, S_IFREG, type CString, type Stat } from '../fs/libc.ts'
import { scanError } from '../fs/open-file.ts'
import type { DirNode, Rooted } from '../fs/rooted.ts'
import { Listing } from './listing.ts'
import { RecordBuilder } from './record-builder.ts'
import type { TreeRecord } from './record.ts'
import {
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
  type Interruptible,
} from './scan.ts'

/** Sums that somebody computed while writing the files, by inode. */
export interface KnownHashes {
  get(
    ino: bigint,
  ): { readonly sha256: Uint8Array; readonly size: number; readonly mtime: bigint } | undefined
}

/** What is known already. */
export interface RecordOptions {
  /** A file found here with its size and mtime isn't read. */
  readonly hashes?: KnownHashes | undefined
  /** For messages. */
  readonly subject?: string | undefined
  readonly signal?: Interruptible | undefined
}

/** A directory that is being recorded. */
interface Frame {
  readonly row: number
  readonly node: DirNode
  readonly listing: Listing
  /** The place in the listing from which on to look for the next subdirectory. */
  next: number
}

/**
 * Records everything beneath a root: the record is exact, its rows in mtree order.
 *
 * What vanishes meanwhile is left out; a file that changes while it is read is an error. Other file systems mounted
 * inside are recorded as an empty directory or an unread file. Needs no path but the root's descriptor.
 * @throws {IntegrityError} ERR_KOCI_FILE_CHANGED; {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED
 */
export async function recordTree(
  root: Rooted,
  options: RecordOptions = {},
): Promise<TreeRecord> {
  const { subject = 'rootfs' } = options
  try {
    return await new Recorder(root, options, subject).record()
  } catch (error) {
    throw scanError(error, subject)
  }
}

/** Of no bytes. */
const emptySum = createHash('sha256').digest()

class Recorder {
  readonly #root: Rooted
  readonly #hashes: KnownHashes | undefined
  readonly #turns: Turns
  readonly #hasher: FileHasher
  readonly #xattrs = new XattrReader()
  readonly #builder = new RecordBuilder()
  readonly #mountID: number

  constructor(root: Rooted, options: RecordOptions, subject: string) {
    this.#root = root
    this.#mountID = root.root.stat.mountID
    this.#hashes = options.hashes
    this.#turns = new Turns(options.signal, subject)
    this.#hasher = new FileHasher(this.#turns)
  }

  async record(): Promise<TreeRecord> {
    const root = this.#root
    const time = freshTime(root)
    this.#turns.check()
    const frames = [await this.#enter(root.root, statRoot(root))]
    for (let frame = frames.at(-1); frame; frame = frames.at(-1)) {
      const name = nextDirectory(frame)
      if (name === undefined) {
        this.#builder.leave(frame.row)
        frames.pop()
        leaveDirectory(root, frame.node)
        continue
      }
      const node = openListed(root, frame.node, name)
      if (node) frames.push(await this.#enter(node, node.stat))
      else if (statEntry(root.fdOf(frame.node), name))
        throw createError('FILE_CHANGED', { subject: name.subarray(0, -1) })
    }
    return this.#builder.finish(time)
  }

  /** Adds a directory and its entries that aren't directories. */
  async #enter(node: DirNode, stat: Stat): Promise<Frame> {
    const root = this.#root
    let fd = root.fdOf(node)
    const { name } = node
    const row = this.#builder.add(stat, name, 0, name.length - 1)
    const xattrs = readXattrs(fd)
    if (xattrs.length > 0) this.#builder.setExtra(row, { xattrs })

    if (node.parent && isMountPoint(root, node))
      return { row, node, listing: new Listing(), next: 0 }
    const listing = listDirectory(fd)
    for (const { name, isDirectory } of listing) {
      if (this.#turns.isDue()) {
        await this.#turns.take()
        fd = root.fdOf(node)
      }
      if (!isDirectory) {
        const stat = statEntry(fd, name)
        const reading = stat && this.#add(fd, name, stat)
        if (reading) {
          await reading
          fd = root.fdOf(node)
        }
      }
    }
    return { row, node, listing, next: 0 }
  }

  // Returns a promise only where a file has to be read.
  #add(fd: number, name: CString, stat: Stat): Promise<void> | undefined {
    const row = this.#builder.add(stat, name, 0, name.length - 1)
    const extra = extraOf(fd, name, stat, this.#xattrs)
    if (extra) this.#builder.setExtra(row, extra)
    const isRead = (stat.mode & S_IFMT) === S_IFREG && stat.mountID === this.#mountID
    if (!isRead) return
    if (stat.size === 0) {
      this.#builder.setHash(row, emptySum)
      return
    }
    const known = this.#hashes?.get(stat.ino)
    if (known && known.size === stat.size && known.mtime === stat.mtime)
      this.#builder.setHash(row, known.sha256)
    else return this.#hash(row, fd, name, stat)
    return
  }

  async #hash(row: number, fd: number, name: CString, stat: Stat): Promise<void> {
    this.#builder.setHash(row, await this.#hasher.hash(fd, name, stat))
  }
}

function nextDirectory(frame: Frame): CString | undefined {
  const { listing } = frame
  while (frame.next < listing.length) {
    const place = frame.next++
    if (listing.isDirectory(place)) return listing.name(place)
  }
  return undefined
}
