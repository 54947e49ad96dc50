// The ioctls of btrfs, as syscall.ts has the system calls: arguments checked, result `>= 0` or `-errno`. Where a file system
// isn't btrfs they fail with ENOTTY. Numbers and structures are those of 64-bit machines that encode ioctls as x86 does.
import koffi from 'koffi'
import { createError } from '../errors.ts'
import { checkFd, type CString } from './call-arguments.ts'

const SUBVOL_CREATE = 0x5000940e
const SNAP_DESTROY = 0x5000940f
const SNAP_CREATE_V2 = 0x50009417
const SUBVOL_GETFLAGS = 0x80089419
const SUBVOL_SETFLAGS = 0x4008941a
const FS_INFO = 0x8400941f
const INO_PATHS = 0xc0389423
const SEND = 0x40489426
const GET_SUBVOL_INFO = 0x81f8943c
const GET_SUBVOL_ROOTREF = 0xd000943d

const READ_ONLY = 2n
const NO_FILE_DATA = 1n
const argumentBytes = 4096
const maxName = 255
const EINVAL = 22

export const subvolumeInfoBytes = 504

const libc = koffi.load(null)
type Call = (fd: number, request: number, argument: Uint8Array | BigUint64Array) => number
const ioctl = libc.func('ioctl', 'int', ['int', 'ulong', 'void *']) as unknown as Call & {
  async: (...args: [...Parameters<Call>, (error: Error | null, code: number) => void]) => void
}

/** `struct btrfs_ioctl_ino_path_args`: it has a pointer in it. */
const inodePaths = koffi.struct({
  inode: 'uint64',
  size: 'uint64',
  reserved: koffi.array('uint64', 4),
  container: 'void *',
})
const ioctlInodePaths = libc.func('ioctl', 'int', ['int', 'ulong', koffi.pointer(inodePaths)])

/** Makes an empty subvolume in an open directory. */
export function createSubvolume(dirfd: number, name: CString): number {
  return call(dirfd, SUBVOL_CREATE, namedArgument(0, name, 8))
}

/** Makes a snapshot, in an open directory, of the subvolume whose root is open. */
export function createSnapshot(
  dirfd: number,
  name: CString,
  source: number,
  isReadOnly: boolean,
): number {
  checkFd(source)
  const argument = namedArgument(source, name, 56)
  argument.writeBigUInt64LE(isReadOnly ? READ_ONLY : 0n, 16)
  return call(dirfd, SNAP_CREATE_V2, argument)
}

/** Removes a subvolume with all that is in it. */
export function destroySubvolume(dirfd: number, name: CString): number {
  return call(dirfd, SNAP_DESTROY, namedArgument(0, name, 8))
}

/** Makes a subvolume read-only, or writable again. */
export function setReadOnly(fd: number, isReadOnly: boolean): number {
  const flags = new BigUint64Array(1)
  const code = call(fd, SUBVOL_GETFLAGS, flags)
  if (code < 0) return code
  flags[0] = isReadOnly ? (flags[0] as bigint) | READ_ONLY : (flags[0] as bigint) & ~READ_ONLY
  return call(fd, SUBVOL_SETFLAGS, flags)
}

/** Fills in what is known of the subvolume that an open file is in: `struct btrfs_ioctl_get_subvol_info_args`. */
export function getSubvolumeInfo(fd: number, info: Uint8Array): number {
  return info.length === subvolumeInfoBytes ? call(fd, GET_SUBVOL_INFO, info) : -EINVAL
}

/** How many subvolumes there are right in the one whose root is open; more than 255 are 255. */
export function countNested(fd: number): number {
  const argument = Buffer.alloc(argumentBytes)
  const code = call(fd, GET_SUBVOL_ROOTREF, argument)
  return code < 0 ? code : argument.readUInt8(4088)
}

/** Fills in the 16 bytes that tell a file system from others. */
export function getFileSystemID(fd: number, id: Uint8Array): number {
  const info = Buffer.alloc(1024)
  const code = call(fd, FS_INFO, info)
  if (code >= 0) id.set(info.subarray(16, 32))
  return code
}

/** The names of an inode in the subvolume that is open, as far as they fit: `struct btrfs_data_container`. */
export function getInodePaths(fd: number, inode: bigint, container: Uint8Array): number {
  checkFd(fd)
  const argument = { inode, size: container.length, reserved: [0, 0, 0, 0], container }
  const result = ioctlInodePaths(fd, INO_PATHS, argument)
  return result < 0 ? -koffi.errno() : result
}

/**
 * Writes what changed between two read-only subvolumes to an open file, without the contents of files: in a thread of
 * libuv's pool. `parent` is the id of the older one. Both descriptors must stay open until then.
 */
export function sendChanges(fd: number, output: number, parent: bigint): Promise<number> {
  checkFd(fd)
  checkFd(output)
  const argument = Buffer.alloc(72)
  argument.writeBigInt64LE(BigInt(output), 0)
  argument.writeBigUInt64LE(parent, 24)
  argument.writeBigUInt64LE(NO_FILE_DATA, 32)
  return new Promise((resolve, reject) => {
    ioctl.async(fd, SEND, argument, (error, code) => {
      const errno = koffi.errno()
      if (error) reject(error)
      else resolve(code < 0 ? -errno : code)
    })
  })
}

/** `struct btrfs_ioctl_vol_args`, or its second version: they differ in where the name is. */
function namedArgument(fd: number, name: CString, nameAt: number): Buffer {
  const length = name.length - 1
  if (name.indexOf(0) !== length || length === 0 || length > maxName || name.includes(0x2f))
    throw createError('INVALID_OPTION', { subject: name, reason: 'not one plain name' })
  const argument = Buffer.alloc(argumentBytes)
  argument.writeBigInt64LE(BigInt(fd), 0)
  argument.set(name, nameAt)
  return argument
}

function call(fd: number, request: number, argument: Uint8Array | BigUint64Array): number {
  checkFd(fd)
  const result = ioctl(fd, request, argument)
  return result < 0 ? -koffi.errno() : result
}
