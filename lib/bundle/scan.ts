// What recording and comparing share: listing a directory in order, stat'ing and reading its entries through the
// directory's descriptor, and giving the event loop a turn. Synchronous and without path strings: an unchanged
// tree of 100,000 entries costs little more than its system calls.
import { createHash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { createError } from '../errors.ts'
import {
  close,
  cstring,
  DT_DIR,
  fchmod,
  O_CLOEXEC,
  O_DIRECTORY,
  O_RDWR,
  pread,
  readlinkat,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  statx,
  SystemCallError,
  type CString,
  type Stat,
} from '../fs/libc.ts'
import type { XattrReader } from '../fs/entry-xattrs.ts'
import { assertUnchanged, openStated, readStated, withReadable } from '../fs/open-file.ts'
import type { DirNode, Rooted } from '../fs/rooted.ts'
import { tryStat } from '../fs/stat.ts'
import { errno } from '../fs/syscall.ts'
import * as sys from '../fs/syscall.ts'
import { type Extra } from './extra.ts'
import { Listing } from './listing.ts'

const listBuffer = Buffer.allocUnsafeSlow(256 * 1024)

/**
 * Everything in an open directory but `.` and `..`, sorted bytewise. `isDirectory` is what the file system says in
 * passing; where it says nothing the name is stat'ed. Throws a SystemCallError.
 */
export function listDirectory(fd: number): Listing {
  fail(sys.rewind(fd), 'lseek')
  const list = new Listing()
  for (;;) {
    const length = fail(sys.getdents(fd, listBuffer), 'getdents64')
    if (length === 0) return list.sort()
    for (let at = 0; at < length; at += listBuffer.readUInt16LE(at + 16)) {
      const start = at + 19
      let end = start
      while (listBuffer[end] !== 0) end++
      if (listBuffer[start] === 0x2e && (end - start === 1 || isDotDot(listBuffer, start, end)))
        continue
      const type = listBuffer[at + 18] as number
      const isDirectory =
        type === 0
          ? isDirectoryByStat(fd, listBuffer.subarray(start, end + 1) as CString)
          : type === DT_DIR
      list.add(listBuffer, start, end, isDirectory)
    }
  }
}

function isDotDot(batch: Buffer, start: number, end: number): boolean {
  return end - start === 2 && batch[start + 1] === 0x2e
}

function isDirectoryByStat(fd: number, name: CString): boolean {
  const stat = tryStat(fd, name)
  return typeof stat !== 'number' && (stat.mode & S_IFMT) === S_IFDIR
}

/** Stats a name without following it; undefined if it is gone. Throws a SystemCallError. */
export function statEntry(fd: number, name: CString): Stat | undefined {
  const stat = tryStat(fd, name)
  if (typeof stat !== 'number') return stat
  if (stat === -errno.ENOENT) return undefined
  throw new SystemCallError(stat, 'statx', name)
}

/**
 * What an entry has beside its columns. `fd` is its directory's. Throws a SystemCallError. `subject` is what an error names,
 * by default the entry without its directory.
 * @throws {IntegrityError} ERR_KOCI_FILE_CHANGED if it isn't the link that was stat'ed any more
 */
export function extraOf(
  fd: number,
  name: CString,
  stat: Stat,
  reader: XattrReader,
  subject?: Uint8Array,
): Extra | undefined {
  // user.* attributes need the permission to read
  const xattrs = withReadable(fd, name, stat, () => reader.of(fd, name))
  const type = stat.mode & S_IFMT
  if (type === S_IFLNK) {
    const rawLinkname = readStated(subject ?? bytesOf(name), () => readlinkat(fd, name))
    return { rawLinkname, xattrs }
  }
  if (type === S_IFCHR || type === S_IFBLK)
    return { device: [stat.rdevMajor, stat.rdevMinor], xattrs }
  return xattrs.length > 0 ? { xattrs } : undefined
}

/** Hashes files, giving the event loop a turn in large ones. */
export class FileHasher {
  readonly #turns: Turns
  readonly #buffer = Buffer.allocUnsafeSlow(1024 * 1024)
  /** Files with several names: hashed once. */
  readonly #linked = new Map<string, Buffer>()

  constructor(turns: Turns) {
    this.#turns = turns
  }

  /**
   * The SHA-256 sum of a regular file that was just stat'ed.
   * @throws {IntegrityError} ERR_KOCI_FILE_CHANGED if it isn't what was stat'ed any more
   */
  async hash(fd: number, name: CString, stat: Stat): Promise<Buffer> {
    const key = stat.nlink > 1 ? `${stat.dev} ${stat.ino} ${stat.size} ${stat.mtime}` : ''
    const known = key === '' ? undefined : this.#linked.get(key)
    if (known) return known
    const file = openStated(fd, name, stat, bytesOf(name))
    try {
      const hash = createHash('sha256')
      const buffer = this.#buffer
      for (let offset = 0; ;) {
        const count = pread(file, buffer, buffer.length, offset)
        if (count === 0) break
        hash.update(count === buffer.length ? buffer : buffer.subarray(0, count))
        offset += count
        if (this.#turns.isDue(count >> 10)) await this.#turns.take()
      }
      assertUnchanged(file, stat, bytesOf(name))
      const sum = hash.digest()
      if (key !== '') this.#linked.set(key, sum)
      return sum
    } finally {
      close(file)
    }
  }
}

/** A name without its NUL; the same memory. */
export function bytesOf(name: CString): Buffer {
  return name.subarray(0, -1)
}

/** What may say that something is to stop: an AbortSignal, or what a worker has instead. */
export type Interruptible = Pick<AbortSignal, 'aborted'> & { readonly reason?: unknown }

/** Lets others run now and then, and notices an abort. */
export class Turns {
  readonly #signal: Interruptible | undefined
  readonly #subject: string
  #work = 0

  constructor(signal: Interruptible | undefined, subject: string) {
    this.#signal = signal
    this.#subject = subject
  }

  /** Counts work, in entries or their equivalent; true when it is time to `take` a turn. */
  isDue(work = 1): boolean {
    this.#work += work
    return this.#work >= 4096
  }

  /** @throws {SystemError} ERR_KOCI_ABORTED */
  async take(): Promise<void> {
    this.#work = 0
    await nextTurn()
    this.check()
  }

  /** @throws {SystemError} ERR_KOCI_ABORTED */
  check(): void {
    if (this.#signal?.aborted)
      throw createError('ABORTED', { subject: this.#subject }, this.#signal.reason)
  }
}

const O_TMPFILE = 0o20000000 | O_DIRECTORY
const here = cstring('.')

/**
 * What the file system of a tree says the time is: the ctime of a file made now (unnamed, so that nothing in the tree
 * changes). 0 where it can't make such files; then no recorded stat is ever trusted.
 */
export function freshTime(root: Rooted): bigint {
  const fd = sys.openat(root.fdOf(root.root), here, O_TMPFILE | O_RDWR | O_CLOEXEC, 0o600)
  if (fd < 0) return 0n
  try {
    return statx(fd).ctime
  } finally {
    close(fd)
  }
}

/** The root's metadata as it is now. */
export function statRoot(root: Rooted): Stat {
  const stat = statx(root.fdOf(root.root))
  if (root.root.widened) stat.mode = root.root.stat.mode
  return stat
}

/** Opens a listed subdirectory; undefined if it is gone or isn't a directory any more. Throws a SystemCallError. */
export function openListed(root: Rooted, parent: DirNode, name: CString): DirNode | undefined {
  return root.child(parent, name, name.toString('latin1', 0, name.length - 1))
}

/** Closes a directory that is done with, and puts its mode back if it was widened; the root stays as it is. */
export function leaveDirectory(root: Rooted, node: DirNode): void {
  if (!node.parent) return
  if (node.widened) {
    fchmod(root.fdOf(node), node.stat.mode & 0o7777)
    root.keepMode(node)
  }
  root.forget(node.parent, node.name.toString('latin1', 0, node.name.length - 1))
}

/** Whether something else is mounted on a directory of the tree. */
export function isMountPoint(root: Rooted, node: DirNode): boolean {
  return node.stat.mountID !== root.root.stat.mountID
}

function fail(result: number, syscall: string): number {
  if (result < 0) throw new SystemCallError(result, syscall)
  return result
}
