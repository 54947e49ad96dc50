// Reading what was just stat'ed in a rootfs: even files whose mode bars their owner, and though somebody may work in it.
import { createError, wrapError, type KociError } from '../errors.ts'
import {
  check,
  close,
  errno,
  O_CLOEXEC,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_RDONLY,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  statx,
  SystemCallError,
  type CString,
  type Stat,
} from './libc.ts'
import * as sys from './syscall.ts'

const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC

/**
 * Opens a file that was just stat'ed and found regular; the caller owns the descriptor and checks what it is.
 * Never follows a link, never waits for a fifo's other side, and reads what its owner may not (`withReadable`).
 * Throws a SystemCallError.
 */
export function openFile(
  dirfd: number,
  name: CString,
  stat: { readonly mode: number },
): number {
  return withReadable(dirfd, name, stat, () =>
    check(sys.openat(dirfd, name, flags, 0), 'openat', name),
  )
}

/**
 * Runs something that needs to read a regular file, or the attributes of a directory. Where that is refused because
 * the mode denies it to the owner (0000), and we may change the mode, it is run again with a wider one: the file's
 * mtime stays, its ctime doesn't.
 */
export function withReadable<Result>(
  dirfd: number,
  name: CString,
  stat: { readonly mode: number },
  run: () => Result,
): Result {
  try {
    return run()
  } catch (error) {
    const mode = stat.mode & 0o7777
    const isRefused = error instanceof SystemCallError && error.errno === -errno.EACCES
    const type = stat.mode & S_IFMT
    const isBarred = (mode & 0o400) === 0 && (type === S_IFREG || type === S_IFDIR)
    if (!isRefused || !isBarred) throw error
    if (sys.fchmodat(dirfd, name, mode | 0o400) < 0) throw error
    try {
      return run()
    } finally {
      check(sys.fchmodat(dirfd, name, mode), 'fchmodat', name)
    }
  }
}

/**
 * Runs what opens or reads an entry that was just listed, or stat'ed.
 * @throws {IntegrityError} ERR_KOCI_FILE_CHANGED where the entry is gone, or isn't of that type any more
 */
export function readStated<Result>(subject: Uint8Array, read: () => Result): Result {
  try {
    return read()
  } catch (error) {
    if (isReplaced(error)) throw createError('FILE_CHANGED', { subject }, error)
    throw error
  }
}

/**
 * Opens the very file that was just stat'ed; the caller owns the descriptor.
 * @throws {IntegrityError} ERR_KOCI_FILE_CHANGED as {@link readStated}, and where it isn't what was stat'ed any more
 */
export function openStated(
  dirfd: number,
  name: CString,
  stat: Stat,
  subject: Uint8Array,
): number {
  const fd = readStated(subject, () => openFile(dirfd, name, stat))
  try {
    assertUnchanged(fd, stat, subject)
    return fd
  } catch (error) {
    close(fd)
    throw error
  }
}

/**
 * That an open file is the regular one that was stat'ed: an inode's number is used again, and not only by files.
 * @throws {IntegrityError} ERR_KOCI_FILE_CHANGED
 */
export function assertUnchanged(fd: number, then: Stat, subject: Uint8Array): void {
  const now = statx(fd)
  const isSame =
    (now.mode & S_IFMT) === S_IFREG &&
    now.ino === then.ino &&
    now.dev === then.dev &&
    now.size === then.size &&
    now.mtime === then.mtime
  if (!isSame) throw createError('FILE_CHANGED', { subject })
}

/** What a scan of a tree failed with; where something was gone just as it was looked at, that somebody works in the tree. */
export function scanError(error: unknown, subject: string): KociError {
  return isReplaced(error)
    ? createError('FILE_CHANGED', { subject }, error)
    : wrapError(error, subject)
}

const replaced = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO', 'ESTALE'])

function isReplaced(error: unknown): boolean {
  if (!(error instanceof SystemCallError)) return false
  // what isn't a link can't be read as one
  return replaced.has(error.code) || (error.code === 'EINVAL' && error.syscall === 'readlinkat')
}
