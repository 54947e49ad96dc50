// Advisory locks between processes: flock(2) on a file or directory that has a name.
// After locking, the name is looked up again, because a lock on a file that was removed or replaced excludes nobody.
import { setTimeout as sleep } from 'node:timers/promises'
import { createError, wrapError } from '../errors.ts'
import {
  AT_FDCWD,
  close,
  cstring,
  errno,
  flock,
  LOCK_EX,
  LOCK_NB,
  LOCK_SH,
  O_CLOEXEC,
  O_CREAT,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  SystemCallError,
  type CString,
} from './libc.ts'
import { tryStat } from './stat.ts'
import * as sys from './syscall.ts'

export interface LockOptions {
  /** Many shared holders, or one exclusive one. Default: exclusive. */
  readonly shared?: boolean
  /** Creates an empty file where there is nothing. Default: true. */
  readonly create?: boolean
}

/** A lock that is held until `release()`, or until the process ends. */
export interface Lock {
  readonly path: string
  /**
   * Makes an exclusive lock a shared one. Not atomic: false if somebody else got an exclusive one in between, and the lock is
   * lost; what was seen under it may not be so any more in any case.
   */
  share(): boolean
  /** Gives the lock back; again is no error. The file stays: removing it would race with others. */
  release(): void
  [Symbol.dispose](): void
}

/**
 * Takes the lock if it is free, else gives undefined at once. Works on files and directories.
 * Two locks of one process on the same path exclude each other, too. NFS and other shared file systems may not honour it.
 */
export function tryLock(path: string, options: LockOptions = {}): Lock | undefined {
  const { shared = false, create = true } = options
  const name = cstring(path)
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const fd = openLock(name, path, create)
    let keep = false
    try {
      if (!flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB)) return undefined
      keep = isStillNamed(fd, name)
      if (keep) return new FileLock(path, fd)
    } catch (error) {
      throw wrapError(error, path)
    } finally {
      if (!keep) close(fd)
    }
  }
  return undefined
}

/**
 * Waits for the lock without blocking the event loop. ERR_KOCI_LOCKED after `timeoutMs` (default: no waiting
 * at all when 0, forever when undefined); ERR_KOCI_ABORTED when the signal fires. Not fair: no order among those who wait.
 */
export async function acquireLock(
  path: string,
  options: LockOptions & {
    readonly timeoutMs?: number | undefined
    readonly signal?: AbortSignal | undefined
  } = {},
): Promise<Lock> {
  const { timeoutMs = Infinity, signal } = options
  const deadline = performance.now() + timeoutMs
  for (let pauseMs = 2; ; pauseMs = Math.min(pauseMs * 2, 100)) {
    if (signal?.aborted === true) throw createError('ABORTED', { subject: path }, signal.reason)
    const lock = tryLock(path, options)
    if (lock !== undefined) return lock
    const leftMs = deadline - performance.now()
    if (leftMs <= 0) throw createError('LOCKED', { subject: path })
    await sleep(Math.min(pauseMs, leftMs), undefined, signal && { signal }).catch(() => {
      // aborted: told at the top of the loop
    })
  }
}

class FileLock implements Lock {
  readonly path: string
  #fd: number

  constructor(path: string, fd: number) {
    this.path = path
    this.#fd = fd
  }

  share(): boolean {
    if (this.#fd >= 0 && flock(this.#fd, LOCK_SH | LOCK_NB)) return true
    this.release()
    return false
  }

  release(): void {
    if (this.#fd < 0) return
    close(this.#fd)
    this.#fd = -1
  }

  [Symbol.dispose](): void {
    this.release()
  }
}

/** For writing where possible, as NFS wants it for exclusive locks; O_NONBLOCK so that a fifo can't hang us. */
function openLock(name: CString, path: string, create: boolean): number {
  const common = O_CLOEXEC | O_NONBLOCK
  let fd = sys.openat(AT_FDCWD, name, O_RDWR | common | (create ? O_CREAT : 0), 0o666)
  if (fd === -errno.EISDIR || fd === -errno.EACCES || fd === -errno.EROFS)
    fd = sys.openat(AT_FDCWD, name, O_RDONLY | common, 0)
  if (fd < 0) throw wrapError(new SystemCallError(fd, 'openat', name), path)
  return fd
}

function isStillNamed(fd: number, name: CString): boolean {
  const held = tryStat(fd)
  // links in the path are followed as in openat above
  const again = sys.openat(AT_FDCWD, name, O_PATH_CLOEXEC, 0)
  if (gone.has(again)) return false
  // what can't be told mustn't look like a lock that somebody holds: it would be waited for
  if (again < 0) throw new SystemCallError(again, 'openat', name)
  const named = tryStat(again)
  close(again)
  if (typeof held === 'number' || typeof named === 'number') return false
  return held.ino === named.ino && held.dev === named.dev
}

const gone = new Set([-errno.ENOENT, -errno.ENOTDIR, -errno.ELOOP])
const O_PATH_CLOEXEC = 0o12000000
