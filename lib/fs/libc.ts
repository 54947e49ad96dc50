// System calls that throw: what everybody outside the inner loop uses. Linux only, synchronous.
// Names are NUL-terminated Buffers made by `cstring()`; what these calls opened, only `close()` here closes.
import { constants as fsConstants } from 'node:fs'
import { getSystemErrorMap } from 'node:util'
import { printable } from '../text.ts'
import { tryStat, type Stat } from './stat.ts'
import { emptyName, errno, type CString } from './syscall.ts'
import * as sys from './syscall.ts'

export { AT_FDCWD, AT_REMOVEDIR, cstring, errno, type CString } from './syscall.ts'
export type { Stat } from './stat.ts'

// Some of these differ between architectures, so Node's are taken.
export const O_RDONLY: number = fsConstants.O_RDONLY
export const O_WRONLY: number = fsConstants.O_WRONLY
export const O_RDWR: number = fsConstants.O_RDWR
export const O_CREAT: number = fsConstants.O_CREAT
export const O_EXCL: number = fsConstants.O_EXCL
export const O_TRUNC: number = fsConstants.O_TRUNC
export const O_APPEND: number = fsConstants.O_APPEND
export const O_NOFOLLOW: number = fsConstants.O_NOFOLLOW
export const O_DIRECTORY: number = fsConstants.O_DIRECTORY
export const O_NONBLOCK: number = fsConstants.O_NONBLOCK
export const S_IFMT: number = fsConstants.S_IFMT
export const S_IFREG: number = fsConstants.S_IFREG
export const S_IFDIR: number = fsConstants.S_IFDIR
export const S_IFLNK: number = fsConstants.S_IFLNK
export const S_IFCHR: number = fsConstants.S_IFCHR
export const S_IFBLK: number = fsConstants.S_IFBLK
export const S_IFIFO: number = fsConstants.S_IFIFO
export const S_IFSOCK: number = fsConstants.S_IFSOCK
export const O_CLOEXEC = 0o2000000
export const O_PATH = 0o10000000

export const LOCK_SH = 1
export const LOCK_EX = 2
export const LOCK_NB = 4
export const LOCK_UN = 8

export const RENAME_NOREPLACE = 1
export const RENAME_EXCHANGE = 2

/** A refused system call, shaped like Node's own errors. */
export class SystemCallError extends Error {
  readonly errno: number
  readonly code: string
  readonly syscall: string

  constructor(result: number, syscall: string, name?: Uint8Array | string) {
    const [code, text] = getSystemErrorMap().get(result) ?? describeErrno(-result)
    const shown = name === undefined ? '' : ` '${printable(unterminated(name))}'`
    super(`${code}: ${text}, ${syscall}${shown}`)
    this.errno = result
    this.code = code
    this.syscall = syscall
  }
}

/** Passes a result that is no refusal; throws a SystemCallError for a negated errno. */
export function check(result: number, syscall: string, name?: Uint8Array | string): number {
  if (result < 0) throw new SystemCallError(result, syscall, name)
  return result
}

/** Whether an error says that a path leads nowhere: ENOENT or ENOTDIR. */
export function isMissing(error: unknown): boolean {
  return (
    error instanceof SystemCallError &&
    (error.errno === -errno.ENOENT || error.errno === -errno.ENOTDIR)
  )
}

/** The caller owns the descriptor. O_CLOEXEC is always added. */
export function openat(dirfd: number, name: CString, flags: number, mode = 0): number {
  return check(sys.openat(dirfd, name, flags | O_CLOEXEC, mode), 'openat', name)
}

/** Closes; EINTR and EIO of close(2) are not reported, because the descriptor is gone in any case. */
export function close(fd: number): void {
  const code = sys.close(fd)
  if (code === -errno.EBADF) check(code, 'close')
}

/** Reads up to the buffer's length at an offset; fewer bytes than asked for only at the end of the file. */
export function read(fd: number, buffer: Uint8Array, offset: number): number {
  let done = 0
  while (done < buffer.length) {
    const rest = done === 0 ? buffer : buffer.subarray(done)
    const count = check(sys.pread(fd, rest, rest.length, offset + done), 'pread')
    if (count === 0) break
    done += count
  }
  return done
}

/** One pread(2): may give fewer bytes than asked for. */
export function pread(fd: number, buffer: Uint8Array, length: number, offset: number): number {
  return check(sys.pread(fd, buffer, length, offset), 'pread')
}

/** Writes everything at the descriptor's own offset. */
export function write(fd: number, bytes: Uint8Array): void {
  let rest = bytes
  while (rest.length > 0) rest = rest.subarray(check(sys.write(fd, rest), 'write'))
}

/** Writes everything at an offset. */
export function pwrite(fd: number, bytes: Uint8Array, offset: number): void {
  let done = 0
  while (done < bytes.length) {
    const rest = done === 0 ? bytes : bytes.subarray(done)
    done += check(sys.pwrite(fd, rest, offset + done), 'pwrite')
  }
}

export function ftruncate(fd: number, length: number): void {
  check(sys.ftruncate(fd, length), 'ftruncate')
}

/** Stats a name without following it, or the descriptor itself where the name is left out. */
export function statx(fd: number, name?: CString): Stat {
  const stat = tryStat(fd, name)
  if (typeof stat === 'number') throw new SystemCallError(stat, 'statx', name)
  return stat
}

/** The bytes of a symlink's target, of any length. */
export function readlinkat(dirfd: number, name: CString): Buffer {
  return readLink(dirfd, name) as Buffer
}

/** As `readlinkat`, but undefined where the name isn't a symlink or isn't there. */
export function tryReadlinkat(dirfd: number, name: CString): Buffer | undefined {
  return readLink(dirfd, name, true)
}

const linkBuffer = Buffer.allocUnsafe(4097)

function readLink(dirfd: number, name: CString, lenient = false): Buffer | undefined {
  for (let buffer = linkBuffer; ; buffer = Buffer.allocUnsafe(buffer.length * 2)) {
    const length = sys.readlinkat(dirfd, name, buffer)
    if (lenient && (length === -errno.EINVAL || length === -errno.ENOENT)) return undefined
    check(length, 'readlinkat', name)
    if (length < buffer.length) return Buffer.from(buffer.subarray(0, length))
  }
}

export function mkdirat(dirfd: number, name: CString, mode: number): void {
  check(sys.mkdirat(dirfd, name, mode), 'mkdirat', name)
}

/** `mode` with the type bits. Major and minor numbers that don't fit 12 and 20 bits are refused. */
export function mknodat(
  dirfd: number,
  name: CString,
  mode: number,
  major = 0,
  minor = 0,
): void {
  check(sys.mknodat(dirfd, name, mode, major, minor), 'mknodat', name)
}

export function symlinkat(target: CString, dirfd: number, name: CString): void {
  check(sys.symlinkat(target, dirfd, name), 'symlinkat', name)
}

/** A hard link; symlinks are linked themselves, never followed. */
export function linkat(fromFd: number, from: CString, toFd: number, to: CString): void {
  check(sys.linkat(fromFd, from, toFd, to), 'linkat', to)
}

/** `flags`: AT_REMOVEDIR for a directory. */
export function unlinkat(dirfd: number, name: CString, flags = 0): void {
  check(sys.unlinkat(dirfd, name, flags), 'unlinkat', name)
}

export function renameat2(
  fromFd: number,
  from: CString,
  toFd: number,
  to: CString,
  flags = 0,
): void {
  check(sys.renameat2(fromFd, from, toFd, to, flags), 'renameat2', from)
}

/** Doesn't follow symlinks. */
export function fchownat(dirfd: number, name: CString, uid: number, gid: number): void {
  check(sys.fchownat(dirfd, name, uid, gid), 'fchownat', name)
}

export function fchown(fd: number, uid: number, gid: number): void {
  check(sys.fchown(fd, uid, gid), 'fchown')
}

export function fchmod(fd: number, mode: number): void {
  check(sys.fchmod(fd, mode), 'fchmod')
}

/** Doesn't follow symlinks: ENOTSUP on one. */
export function fchmodat(dirfd: number, name: CString, mode: number): void {
  check(sys.fchmodat(dirfd, name, mode), 'fchmodat', name)
}

const UTIME_OMIT = 0x3ffffffen
const BILLION = 1_000_000_000n
const MAX_SECONDS = 2n ** 63n - 1n
const times = new BigInt64Array(4)
let lastTime = 0n
let lastSeconds = 0n
let lastRest = 0n

/** Fills in one of the two `struct timespec`; seconds beyond 64 bits are clamped, as the kernel clamps to the file system's range. */
function setTime(at: 0 | 2, time: bigint | undefined): void {
  if (time === undefined) {
    times[at + 1] = UTIME_OMIT
    return
  }
  if (time !== lastTime) {
    let rest = time % BILLION
    if (rest < 0n) rest += BILLION
    const seconds = (time - rest) / BILLION
    const tooLarge = seconds > MAX_SECONDS || seconds < -MAX_SECONDS
    lastSeconds = tooLarge ? (seconds > 0n ? MAX_SECONDS : -MAX_SECONDS) : seconds
    lastRest = rest
    lastTime = time
  }
  times[at] = lastSeconds
  times[at + 1] = lastRest
}

/** The two `struct timespec` of utimensat(2) for these nanoseconds (undefined: leave); valid until the next call. */
export function timespecs(atime: bigint | undefined, mtime: bigint | undefined): BigInt64Array {
  setTime(0, atime)
  setTime(2, mtime)
  return times
}

/** Sets times in nanoseconds, undefined meaning "leave"; the kernel clamps to what the file system holds. */
export function futimens(
  fd: number,
  atime: bigint | undefined,
  mtime: bigint | undefined,
): void {
  check(sys.futimens(fd, timespecs(atime, mtime)), 'futimens')
}

/** As `futimens`, on a name that is not followed. */
export function utimensat(
  dirfd: number,
  name: CString,
  atime: bigint | undefined,
  mtime: bigint | undefined,
): void {
  check(sys.utimensat(dirfd, name, timespecs(atime, mtime)), 'utimensat', name)
}

/** flock(2). With LOCK_NB: whether the lock was got. */
export function flock(fd: number, operation: number): boolean {
  const code = sys.flock(fd, operation)
  if (code === -errno.EAGAIN) return false
  check(code, 'flock')
  return true
}

/** Writes out the whole file system that holds the descriptor; reports its write errors since the descriptor was opened. */
export function syncfs(fd: number): void {
  check(sys.syncfs(fd), 'syncfs')
}

/** As `syncfs`, without blocking the event loop; the descriptor must stay open until then. */
export async function syncfsLater(fd: number): Promise<void> {
  check(await sys.syncfsLater(fd), 'syncfs')
}

/** Copies up to `length` bytes between the descriptors' own offsets, by reflink where the file system can; 0 at the end. */
export function copyFileRange(from: number, to: number, length: number): number {
  return check(sys.copyFileRange(from, to, length), 'copy_file_range')
}

/** An entry of a directory. `type` is DT_*: 0 where the file system doesn't say. */
export interface DirectoryEntry {
  readonly name: Buffer
  readonly type: number
}

export const DT_UNKNOWN = 0
export const DT_CHR = 2
export const DT_DIR = 4
export const DT_REG = 8
export const DT_LNK = 10

const directoryBuffer = Buffer.allocUnsafeSlow(256 * 1024)

/** Everything in an open directory but `.` and `..`, in the file system's order, from the start whatever was read before. */
export function readDirectory(fd: number): DirectoryEntry[] {
  check(sys.rewind(fd), 'lseek')
  const entries: DirectoryEntry[] = []
  for (;;) {
    const length = check(sys.getdents(fd, directoryBuffer), 'getdents64')
    if (length === 0) return entries
    // one copy per batch, of which the names are slices
    const batch = Buffer.from(directoryBuffer.subarray(0, length))
    for (let at = 0; at < length; at += batch.readUInt16LE(at + 16)) {
      const start = at + 19
      const name = batch.subarray(start, batch.indexOf(0, start))
      if (name[0] === 0x2e && (name.length === 1 || (name.length === 2 && name[1] === 0x2e)))
        continue
      entries.push({ name, type: batch[at + 18] as number })
    }
  }
}

/** Opens a path outside of any rootfs as it is, links followed. The caller owns the descriptor. */
export function open(path: string | Uint8Array, flags: number, mode = 0): number {
  return openat(sys.AT_FDCWD, sys.cstring(path), flags, mode)
}

/** For those that Node knows by number only. */
function describeErrno(number: number): readonly [code: string, text: string] {
  for (const [code, value] of Object.entries(errno))
    if (value === number) return [code, errnoTexts[code] ?? `error ${number}`]
  return [`E${number}`, `error ${number}`]
}

const errnoTexts: Record<string, string> = {
  EDQUOT: 'disk quota exceeded',
  ESTALE: 'stale file handle',
}

function unterminated(name: Uint8Array | string): Uint8Array | string {
  if (typeof name === 'string' || name.at(-1) !== 0) return name
  return name === emptyName ? '' : name.subarray(0, -1)
}
