// The system calls that mount, as syscall.ts has the others: arguments checked, result `>= 0` or `-errno`.
// glibc wraps most of them only since 2.36, so they go by number; these numbers are the same on every architecture we serve.
import koffi from 'koffi'
import { checkFd, checkName, type CString } from './call-arguments.ts'
import { emptyName } from './syscall.ts'

const SYS_open_tree = 428
const SYS_move_mount = 429
const SYS_fsopen = 430
const SYS_fsconfig = 431
const SYS_fsmount = 432

const FSOPEN_CLOEXEC = 1
const FSMOUNT_CLOEXEC = 1
const OPEN_TREE_CLONE = 1
const OPEN_TREE_CLOEXEC = 0o2000000
const MOVE_MOUNT_EMPTY_PATHS = 0x4 | 0x40
const AT_EMPTY_PATH = 0x1000
const UMOUNT_NOFOLLOW = 8

const CONFIG_FLAG = 0
const CONFIG_STRING = 1
const CONFIG_FD = 5
const CONFIG_CREATE = 6

type Call = (...args: unknown[]) => number
const libc = koffi.load(null)
const calls = {
  fsopen: libc.func('syscall', 'long', ['long', 'void *', 'uint']) as Call,
  fsconfig: libc.func('syscall', 'long', [
    'long',
    'int',
    'uint',
    'void *',
    'void *',
    'int',
  ]) as Call,
  fsmount: libc.func('syscall', 'long', ['long', 'int', 'uint', 'uint']) as Call,
  moveMount: libc.func('syscall', 'long', [
    'long',
    'int',
    'void *',
    'int',
    'void *',
    'uint',
  ]) as Call,
  openTree: libc.func('syscall', 'long', ['long', 'int', 'void *', 'uint']) as Call,
  mount: libc.func('mount', 'int', ['void *', 'void *', 'void *', 'ulong', 'void *']) as Call,
  umount: libc.func('umount2', 'int', ['void *', 'int']) as Call,
  read: libc.func('read', 'long', ['int', 'void *', 'size_t']) as Call,
} as const

/** A file system context; the caller owns it. */
export function fsopen(type: CString): number {
  checkName(type)
  return outcome(calls.fsopen(SYS_fsopen, type, FSOPEN_CLOEXEC))
}

export function setFlag(context: number, key: CString): number {
  return configure(context, CONFIG_FLAG, key, null, 0)
}

export function setString(context: number, key: CString, value: CString): number {
  checkName(value)
  return configure(context, CONFIG_STRING, key, value, 0)
}

export function setDescriptor(context: number, key: CString, fd: number): number {
  checkFd(fd)
  return configure(context, CONFIG_FD, key, null, fd)
}

/** Has the context make its file system. */
export function createFileSystem(context: number): number {
  return configure(context, CONFIG_CREATE, null, null, 0)
}

/** A detached mount of what the context made; the caller owns it. While it is open the mount is busy. */
export function fsmount(context: number): number {
  checkFd(context)
  return outcome(calls.fsmount(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0))
}

/** A detached copy of the mount at a descriptor; the caller owns it. */
export function cloneMount(fd: number): number {
  checkFd(fd)
  const flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH
  return outcome(calls.openTree(SYS_open_tree, fd, emptyName, flags))
}

/** Attaches a detached mount to an open directory. */
export function attachMount(mount: number, directory: number): number {
  checkFd(mount)
  checkFd(directory)
  const flags = MOVE_MOUNT_EMPTY_PATHS
  return outcome(calls.moveMount(SYS_move_mount, mount, emptyName, directory, emptyName, flags))
}

/** mount(2). Options that don't fit a page are cut by the kernel without a word: the caller measures them. */
export function classicMount(
  source: CString,
  target: CString,
  type: CString,
  options: CString,
): number {
  for (const text of [source, target, type, options]) checkName(text)
  return outcome(calls.mount(source, target, type, 0, options))
}

/** umount2(2), not lazily; a last component that is a symlink isn't followed. */
export function umount(target: CString): number {
  checkName(target)
  return outcome(calls.umount(target, UMOUNT_NOFOLLOW))
}

/** The next message of a context's log, at most the buffer's length of it; -ENODATA if there is none. */
export function readLog(context: number, buffer: Uint8Array): number {
  checkFd(context)
  return outcome(calls.read(context, buffer, buffer.length))
}

function configure(
  context: number,
  command: number,
  key: CString | null,
  value: CString | null,
  aux: number,
): number {
  checkFd(context)
  if (key) checkName(key)
  return outcome(calls.fsconfig(SYS_fsconfig, context, command, key, value, aux))
}

function outcome(result: number): number {
  return result < 0 ? -koffi.errno() : result
}
