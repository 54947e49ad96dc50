// The system calls themselves, over koffi: arguments checked, EINTR and stray EAGAIN retried, result `>= 0` or `-errno`.
// Nothing is thrown for a refusal, because the inner loop expects some (EEXIST, ENOENT) and an Error costs
// more than the call. koffi.errno() is read at once: any allocation in between may change it.
import koffi from 'koffi'
import { constants } from 'node:os'
import {
  checkCount,
  checkDirfd,
  checkFd,
  checkID,
  checkName,
  checkRange,
  checkUint,
  refuse,
  type CString,
} from './call-arguments.ts'

export { AT_FDCWD, cstring, type CString } from './call-arguments.ts'

export const AT_SYMLINK_NOFOLLOW = 0x100
export const AT_REMOVEDIR = 0x200
export const AT_EMPTY_PATH = 0x1000

/** Numbers of errors (positive), as the calls here return them negated. */
export const errno: typeof constants.errno = constants.errno

/** The empty name: with AT_EMPTY_PATH, the descriptor itself. */
export const emptyName: CString = Buffer.from([0]) as CString

const numbers: Record<string, { getdents64: number; renameat2: number }> = {
  x64: { getdents64: 217, renameat2: 316 },
  arm64: { getdents64: 61, renameat2: 276 },
  riscv64: { getdents64: 61, renameat2: 276 },
}

const { EAGAIN, EINTR } = constants.errno
const maxRepeats = 3
const libc = koffi.load(null)
type Call = (...args: unknown[]) => number

function declare(name: string, result: string, ...args: string[]): Call {
  return libc.func(name, result, args)
}

const calls = {
  openat: declare('openat', 'int', 'int', 'void *', 'int', 'uint'),
  close: declare('close', 'int', 'int'),
  pread: declare('pread64', 'long', 'int', 'void *', 'size_t', 'int64'),
  write: declare('write', 'long', 'int', 'void *', 'size_t'),
  pwrite: declare('pwrite64', 'long', 'int', 'void *', 'size_t', 'int64'),
  ftruncate: declare('ftruncate64', 'int', 'int', 'int64'),
  lseek: declare('lseek64', 'int64', 'int', 'int64', 'int'),
  statx: declare('statx', 'int', 'int', 'void *', 'int', 'uint', 'void *'),
  readlinkat: declare('readlinkat', 'long', 'int', 'void *', 'void *', 'size_t'),
  mkdirat: declare('mkdirat', 'int', 'int', 'void *', 'uint'),
  mknodat: declare('mknodat', 'int', 'int', 'void *', 'uint', 'uint64'),
  symlinkat: declare('symlinkat', 'int', 'void *', 'int', 'void *'),
  linkat: declare('linkat', 'int', 'int', 'void *', 'int', 'void *', 'int'),
  unlinkat: declare('unlinkat', 'int', 'int', 'void *', 'int'),
  fchown: declare('fchown', 'int', 'int', 'uint', 'uint'),
  fchownat: declare('fchownat', 'int', 'int', 'void *', 'uint', 'uint', 'int'),
  fchmod: declare('fchmod', 'int', 'int', 'uint'),
  fchmodat: declare('fchmodat', 'int', 'int', 'void *', 'uint', 'int'),
  futimens: declare('futimens', 'int', 'int', 'void *'),
  utimensat: declare('utimensat', 'int', 'int', 'void *', 'void *', 'int'),
  ioctl: declare('ioctl', 'int', 'int', 'ulong', 'int'),
  flock: declare('flock', 'int', 'int', 'int'),
  syncfs: declare('syncfs', 'int', 'int'),
  copyFileRange: declare(
    'copy_file_range',
    'long',
    'int',
    'void *',
    'int',
    'void *',
    'size_t',
    'uint',
  ),
  fcntl: declare('fcntl', 'int', 'int', 'int', 'int'),
  syscall3: declare('syscall', 'long', 'long', 'long', 'void *', 'size_t'),
  syscall5: declare('syscall', 'long', 'long', 'long', 'void *', 'long', 'void *', 'uint'),
} as const

/**
 * Result of a call that failed: 0 if it is to be repeated, else the negated errno. Given the number of tries so far, it takes
 * EAGAIN for an answer only when it keeps coming: openat(2) on XFS was seen to end in it where nothing is to be waited for.
 */
function failed(tries = maxRepeats): number {
  const code = koffi.errno()
  return code === EINTR || (code === EAGAIN && tries < maxRepeats) ? 0 : -code
}

export function openat(dirfd: number, name: CString, flags: number, mode: number): number {
  checkDirfd(dirfd)
  checkName(name)
  checkUint('flags', flags)
  checkUint('mode', mode)
  for (let tries = 0; ; tries++) {
    const fd = calls.openat(dirfd, name, flags, mode)
    if (fd >= 0) return fd
    const code = failed(tries)
    if (code < 0) return code
  }
}

/** Never retried: on Linux the descriptor is gone whatever close(2) says. */
export function close(fd: number): number {
  checkFd(fd)
  return calls.close(fd) < 0 ? -koffi.errno() : 0
}

export function pread(fd: number, buffer: Uint8Array, length: number, offset: number): number {
  checkFd(fd)
  checkRange(buffer, length)
  checkCount('offset', offset)
  for (let tries = 0; ; tries++) {
    const count = calls.pread(fd, buffer, length, offset)
    if (count >= 0) return count
    const code = failed(tries)
    if (code < 0) return code
  }
}

export function write(fd: number, buffer: Uint8Array): number {
  checkFd(fd)
  for (let tries = 0; ; tries++) {
    const count = calls.write(fd, buffer, buffer.length)
    if (count >= 0) return count
    const code = failed(tries)
    if (code < 0) return code
  }
}

export function pwrite(fd: number, buffer: Uint8Array, offset: number): number {
  checkFd(fd)
  checkCount('offset', offset)
  for (let tries = 0; ; tries++) {
    const count = calls.pwrite(fd, buffer, buffer.length, offset)
    if (count >= 0) return count
    const code = failed(tries)
    if (code < 0) return code
  }
}

export function ftruncate(fd: number, length: number): number {
  checkFd(fd)
  checkCount('length', length)
  for (let tries = 0; ; tries++) {
    if (calls.ftruncate(fd, length) === 0) return 0
    const code = failed(tries)
    if (code < 0) return code
  }
}

export function rewind(fd: number): number {
  checkFd(fd)
  return calls.lseek(fd, 0, 0) < 0 ? -koffi.errno() : 0
}

/** The new offset. `whence`: 0 from the start, 3 to the next data, 4 to the next hole. */
export function lseek(fd: number, offset: number, whence: 0 | 3 | 4): number {
  checkFd(fd)
  checkCount('offset', offset)
  const at = calls.lseek(fd, offset, whence)
  return at < 0 ? -koffi.errno() : at
}

/** Makes a file share the blocks of another one (FICLONE). */
export function shareBlocks(from: number, to: number): number {
  checkFd(from)
  checkFd(to)
  return calls.ioctl(to, 0x4004_9409, from) < 0 ? -koffi.errno() : 0
}

export function statx(
  dirfd: number,
  name: CString,
  flags: number,
  mask: number,
  result: Uint8Array,
): number {
  checkDirfd(dirfd)
  checkName(name)
  if (result.length < 256) refuse('statx buffer', result.length)
  return calls.statx(dirfd, name, flags, mask, result) < 0 ? -koffi.errno() : 0
}

export function readlinkat(dirfd: number, name: CString, buffer: Uint8Array): number {
  checkDirfd(dirfd)
  checkName(name)
  const count = calls.readlinkat(dirfd, name, buffer, buffer.length)
  return count < 0 ? -koffi.errno() : count
}

/** Raw directory entries (struct linux_dirent64); 0 at the end. */
export function getdents(fd: number, buffer: Uint8Array): number {
  checkFd(fd)
  const number = numbers[process.arch]?.getdents64
  if (number === undefined) return -constants.errno.ENOSYS
  const count = calls.syscall3(number, fd, buffer, buffer.length)
  return count < 0 ? -koffi.errno() : count
}

export function mkdirat(dirfd: number, name: CString, mode: number): number {
  checkDirfd(dirfd)
  checkName(name)
  checkUint('mode', mode)
  return calls.mkdirat(dirfd, name, mode) < 0 ? -koffi.errno() : 0
}

/** `major` has 12 bits and `minor` 20, as in the kernel; anything else is refused and not cut. */
export function mknodat(
  dirfd: number,
  name: CString,
  mode: number,
  major: number,
  minor: number,
): number {
  checkDirfd(dirfd)
  checkName(name)
  checkUint('mode', mode)
  if (!(major >= 0 && major < 2 ** 12 && Number.isInteger(major))) refuse('device major', major)
  if (!(minor >= 0 && minor < 2 ** 20 && Number.isInteger(minor))) refuse('device minor', minor)
  const low = (minor & 0xff) | (major << 8)
  const device = low + (minor & 0xfff00) * 2 ** 12
  return calls.mknodat(dirfd, name, mode, device) < 0 ? -koffi.errno() : 0
}

export function symlinkat(target: CString, dirfd: number, name: CString): number {
  checkName(target)
  checkDirfd(dirfd)
  checkName(name)
  return calls.symlinkat(target, dirfd, name) < 0 ? -koffi.errno() : 0
}

/** Never follows: a hard link to a symlink is one to the symlink itself. */
export function linkat(fromFd: number, from: CString, toFd: number, to: CString): number {
  checkDirfd(fromFd)
  checkName(from)
  checkDirfd(toFd)
  checkName(to)
  return calls.linkat(fromFd, from, toFd, to, 0) < 0 ? -koffi.errno() : 0
}

export function unlinkat(dirfd: number, name: CString, flags: number): number {
  checkDirfd(dirfd)
  checkName(name)
  return calls.unlinkat(dirfd, name, flags) < 0 ? -koffi.errno() : 0
}

export function renameat2(
  fromFd: number,
  from: CString,
  toFd: number,
  to: CString,
  flags: number,
): number {
  checkDirfd(fromFd)
  checkName(from)
  checkDirfd(toFd)
  checkName(to)
  const number = numbers[process.arch]?.renameat2
  if (number === undefined) return -constants.errno.ENOSYS
  return calls.syscall5(number, fromFd, from, toFd, to, flags) < 0 ? -koffi.errno() : 0
}

export function fchown(fd: number, uid: number, gid: number): number {
  checkFd(fd)
  checkID('uid', uid)
  checkID('gid', gid)
  return calls.fchown(fd, uid, gid) < 0 ? -koffi.errno() : 0
}

export function fchownat(dirfd: number, name: CString, uid: number, gid: number): number {
  checkDirfd(dirfd)
  checkName(name)
  checkID('uid', uid)
  checkID('gid', gid)
  return calls.fchownat(dirfd, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0 ? -koffi.errno() : 0
}

export function fchmod(fd: number, mode: number): number {
  checkFd(fd)
  checkUint('mode', mode)
  return calls.fchmod(fd, mode) < 0 ? -koffi.errno() : 0
}

/** Without following: ENOTSUP on a symlink. */
export function fchmodat(dirfd: number, name: CString, mode: number): number {
  checkDirfd(dirfd)
  checkName(name)
  checkUint('mode', mode)
  return calls.fchmodat(dirfd, name, mode, AT_SYMLINK_NOFOLLOW) < 0 ? -koffi.errno() : 0
}

/** `times`: two `struct timespec`, access before modification. */
export function futimens(fd: number, times: BigInt64Array): number {
  checkFd(fd)
  return calls.futimens(fd, times) < 0 ? -koffi.errno() : 0
}

export function utimensat(dirfd: number, name: CString, times: BigInt64Array): number {
  checkDirfd(dirfd)
  checkName(name)
  return calls.utimensat(dirfd, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -koffi.errno() : 0
}

export function flock(fd: number, operation: number): number {
  checkFd(fd)
  checkUint('operation', operation)
  for (;;) {
    if (calls.flock(fd, operation) === 0) return 0
    const code = failed()
    if (code < 0) return code
  }
}

export function syncfs(fd: number): number {
  checkFd(fd)
  return calls.syncfs(fd) < 0 ? -koffi.errno() : 0
}

/** As `syncfs`, in a thread of libuv's pool: it may take seconds. The descriptor must stay open until then. */
export function syncfsLater(fd: number): Promise<number> {
  checkFd(fd)
  // what koffi makes of a declaration can be called in a thread as well
  const { async: call } = calls.syncfs as unknown as {
    async: (fd: number, done: (error: Error | null, code: number) => void) => void
  }
  return new Promise((resolve, reject) => {
    call(fd, (error, code) => {
      if (error) reject(error)
      else resolve(code < 0 ? -koffi.errno() : 0)
    })
  })
}

/** Copies at both descriptors' own offsets. */
export function copyFileRange(from: number, to: number, length: number): number {
  checkFd(from)
  checkFd(to)
  checkCount('length', length)
  for (let tries = 0; ; tries++) {
    const count = calls.copyFileRange(from, null, to, null, length, 0)
    if (count >= 0) return count
    const code = failed(tries)
    if (code < 0) return code
  }
}

const F_GETFD = 1
const F_SETFD = 2
const FD_CLOEXEC = 1

/** Has the descriptor closed by execve(2); one that isn't open (any more) is no error. */
export function setCloseOnExec(fd: number): void {
  checkFd(fd)
  const flags = calls.fcntl(fd, F_GETFD, 0)
  if (flags >= 0 && (flags & FD_CLOEXEC) === 0) calls.fcntl(fd, F_SETFD, flags | FD_CLOEXEC)
}
