// Listing and deleting trees by descriptors: one component at a time, links never followed, mounts never crossed.
// Iterative, with a bounded number of descriptors however deep the tree is.
import {
  AT_REMOVEDIR,
  check,
  close,
  cstring,
  DT_DIR,
  errno,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  readDirectory,
  RENAME_NOREPLACE,
  statx,
  SystemCallError,
  type CString,
  type DirectoryEntry,
} from './libc.ts'
import * as sys from './syscall.ts'

const MAX_DEPTH = 64
const slash = 0x2f

/** Everything in a directory but `.` and `..`, sorted by the bytes of the names. */
export function readEntries(dirfd: number): DirectoryEntry[] {
  return readDirectory(dirfd).sort((one, other) => Buffer.compare(one.name, other.name))
}

/** Opens a subdirectory for reading; ELOOP or ENOTDIR for everything else. The caller owns the descriptor. */
export function openDirectory(dirfd: number, name: CString): number {
  return check(tryOpenDirectory(dirfd, name), 'openat', name)
}

/**
 * Removes a name and all beneath it; a name that isn't there is no error, at any depth: others may be removing the
 * same tree. EBUSY, before anything beneath it is touched, for a directory on which something is mounted. Directories of
 * ours that we can't read or write are made accessible. Not atomic: after an error part of the tree may be gone. EINVAL for
 * anything but one plain component: a path could lead anywhere.
 */
export function removeTree(dirfd: number, name: CString): void {
  if (name.includes(slash) || isDots(name))
    throw new SystemCallError(-errno.EINVAL, 'unlinkat', name)
  if (removeFile(dirfd, name)) return
  const top = openFrame(dirfd, name, statx(dirfd).mountID)
  if (!top) return
  const frames = [top]
  let renamed = 0
  try {
    for (let frame = frames.at(-1); frame !== undefined; frame = frames.at(-1)) {
      const next = frame.directories.pop()
      if (next === undefined) {
        close(frame.fd)
        frames.pop()
        const above = frames.at(-1)
        removeDirectory(above?.fd ?? dirfd, frame.name, above !== undefined)
      } else if (frames.length < MAX_DEPTH) {
        enter(frames, frame, next)
      } else {
        // deeper than our descriptors reach: continue with it from the top
        const moved = moveUp(frame.fd, next, top.fd, renamed)
        renamed = moved.count
        if (moved.name === undefined) enter(frames, frame, next)
        else top.directories.push(moved.name)
      }
    }
  } finally {
    for (const frame of frames) close(frame.fd)
  }
}

/** Removes everything in a directory but not the directory; as `removeTree` otherwise. */
export function emptyDirectory(dirfd: number): void {
  for (const { name } of readDirectory(dirfd)) removeTree(dirfd, cstring(name))
}

interface Frame {
  readonly fd: number
  readonly name: CString
  readonly mountID: number
  /** Those still to be removed. */
  readonly directories: CString[]
}

/** Goes on in a subdirectory, if it is still there. */
function enter(frames: Frame[], above: Frame, name: CString): void {
  const frame = openFrame(above.fd, name, above.mountID)
  if (frame) frames.push(frame)
}

/** Opens a directory and removes everything in it that isn't a directory; undefined if it is gone. */
function openFrame(dirfd: number, name: CString, mountID: number): Frame | undefined {
  const fd = openForRemoval(dirfd, name)
  if (fd === -errno.ENOENT) return undefined
  check(fd, 'openat', name)
  try {
    if (statx(fd).mountID !== mountID) throw new SystemCallError(-errno.EBUSY, 'unlinkat', name)
    const directories: CString[] = []
    for (const entry of readDirectory(fd)) {
      const child = cstring(entry.name)
      if (entry.type === DT_DIR || !removeFile(fd, child, true)) directories.push(child)
    }
    return { fd, name, mountID, directories }
  } catch (error) {
    close(fd)
    // even an open directory can't be listed once it was removed
    if (error instanceof SystemCallError && error.errno === -errno.ENOENT) return undefined
    throw error
  }
}

/** Whether it is nothing, `.` or `..`. */
function isDots(name: CString): boolean {
  return name.length <= 3 && /^\.{0,2}\0$/.test(name.toString('latin1'))
}

/** Whether the name is gone; false for a directory. With `widen`, `dirfd` is to be removed, too, and may be made writable. */
function removeFile(dirfd: number, name: CString, widen = false): boolean {
  let code = sys.unlinkat(dirfd, name, 0)
  if (code === -errno.EACCES && widen && sys.fchmod(dirfd, 0o700) === 0)
    code = sys.unlinkat(dirfd, name, 0)
  if (code === -errno.EISDIR) return false
  if (code !== -errno.ENOENT) check(code, 'unlinkat', name)
  return true
}

function removeDirectory(dirfd: number, name: CString, widen: boolean): void {
  let code = sys.unlinkat(dirfd, name, AT_REMOVEDIR)
  if (code === -errno.EACCES && widen && sys.fchmod(dirfd, 0o700) === 0)
    code = sys.unlinkat(dirfd, name, AT_REMOVEDIR)
  if (code !== -errno.ENOENT) check(code, 'unlinkat', name)
}

function openForRemoval(dirfd: number, name: CString): number {
  let fd = tryOpenDirectory(dirfd, name)
  if (fd === -errno.EACCES && sys.fchmodat(dirfd, name, 0o700) === 0)
    fd = tryOpenDirectory(dirfd, name)
  return fd
}

function tryOpenDirectory(dirfd: number, name: CString): number {
  return sys.openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)
}

/** Moves a directory to the top under a name that is free there; no name where the file system can't. */
function moveUp(
  fd: number,
  name: CString,
  topFd: number,
  count: number,
): { name: CString | undefined; count: number } {
  for (let next = count; ; next += 1) {
    const free = cstring(`.${next}`)
    const code = sys.renameat2(fd, name, topFd, free, RENAME_NOREPLACE)
    if (code === 0) return { name: free, count: next + 1 }
    if (code !== -errno.EEXIST) return { name: undefined, count: next }
  }
}
