// Subvolumes and snapshots of btrfs, by the paths of their roots: for a store's own directories, never for names inside of a
// rootfs. Everything here says so if the file system isn't btrfs.
import path from 'node:path'
import { createError, wrapError } from '../errors.ts'
import * as calls from './btrfs-calls.ts'
import {
  close,
  cstring,
  errno,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  open,
  SystemCallError,
} from './libc.ts'
import { removeTree } from './walk.ts'

/** Makes an empty subvolume; mode 0755 but for the umask. @throws {SystemError} ERR_KOCI_IO; {UnsupportedError} ERR_KOCI_UNSUPPORTED_PLATFORM */
export function createSubvolume(target: string): void {
  inParent(target, (fd, name) =>
    assertDone(calls.createSubvolume(fd, name), 'BTRFS_IOC_SUBVOL_CREATE', target),
  )
}

/** Makes a snapshot of a subvolume; it has to be on the same file system, and another user's needs privilege. */
export function createSnapshot(
  source: string,
  target: string,
  { readOnly }: { readonly readOnly: boolean },
): void {
  onDirectory(source, from =>
    inParent(target, (fd, name) =>
      assertDone(
        calls.createSnapshot(fd, name, from, readOnly),
        'BTRFS_IOC_SNAP_CREATE_V2',
        target,
      ),
    ),
  )
}

/**
 * Removes a subvolume and all that is in it; one that isn't there is no error. An ordinary user may do so at once if it isn't
 * read-only and the file system is mounted with `user_subvol_rm_allowed`; otherwise file by file.
 */
export function destroySubvolume(target: string): void {
  inParent(target, (fd, name) => {
    let code = calls.destroySubvolume(fd, name)
    if (isRefused(code)) {
      onDirectory(target, own => calls.setReadOnly(own, false))
      code = calls.destroySubvolume(fd, name)
    }
    if (code === -errno.ENOENT) return
    if (isRefused(code)) removeTree(fd, name)
    else assertDone(code, 'BTRFS_IOC_SNAP_DESTROY', target)
  })
}

function isRefused(code: number): boolean {
  return code === -errno.EPERM || code === -errno.EACCES || code === -errno.EROFS
}

/** What the file system knows of a subvolume. */
export interface Subvolume {
  readonly id: bigint
  /** No other subvolume ever has it. */
  readonly uuid: string
  /** It is read-only, and has been from its first moment: whoever makes it writable and writes can't hide that. */
  readonly isUntouched: boolean
}

/** Describes a subvolume; undefined if there is none. */
export function describeSubvolume(target: string): Subvolume | undefined {
  try {
    return onDirectory(target, fd => {
      const info = Buffer.alloc(calls.subvolumeInfoBytes)
      assertDone(calls.getSubvolumeInfo(fd, info), 'BTRFS_IOC_GET_SUBVOL_INFO', target)
      const isReadOnly = (info.readBigUInt64LE(288) & 1n) === 1n
      // the transactions in which it was changed last, and made
      const isChanged = info.readBigUInt64LE(344) > info.readBigUInt64LE(352)
      return {
        id: info.readBigUInt64LE(0),
        uuid: info.toString('hex', 296, 312),
        isUntouched: isReadOnly && !isChanged,
      }
    })
  } catch (error) {
    const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP') return undefined
    throw error
  }
}

/** Whether there are subvolumes in a subvolume: a snapshot has empty directories in their places. */
export function hasNested(target: string): boolean {
  return onDirectory(
    target,
    fd => assertDone(calls.countNested(fd), 'BTRFS_IOC_GET_SUBVOL_ROOTREF', target) > 0,
  )
}

/** What tells one btrfs from another; the same for all its subvolumes and mounts. */
export function fileSystemID(target: string): string {
  const id = Buffer.alloc(16)
  onDirectory(target, fd =>
    assertDone(calls.getFileSystemID(fd, id), 'BTRFS_IOC_FS_INFO', target),
  )
  return id.toString('hex')
}

/**
 * The names, relative to the subvolume's root, of an inode in an open subvolume; undefined if they are more than the 4 KiB that
 * the kernel tells of. Needs CAP_DAC_READ_SEARCH.
 */
export function inodePaths(fd: number, inode: bigint): Buffer[] | undefined {
  const container = Buffer.alloc(4096)
  const code = calls.getInodePaths(fd, inode, container)
  if (code < 0) throw new SystemCallError(code, 'BTRFS_IOC_INO_PATHS')
  // bytes_left, bytes_missing, elem_cnt, elem_missed; then an offset for each name, from where the offsets begin
  if (container.readUInt32LE(12) > 0) return undefined
  return Array.from({ length: container.readUInt32LE(8) }, (_, at) => {
    const start = 16 + Number(container.readBigUInt64LE(16 + 8 * at))
    return container.subarray(start, container.indexOf(0, start))
  })
}

/**
 * Has the kernel tell what changed between two read-only subvolumes, without contents of files, and write it to an open file:
 * one that is no pipe can't be waited for by anybody, however few threads there are. False without CAP_SYS_ADMIN.
 */
export async function sendChanges(from: string, to: string, output: number): Promise<boolean> {
  const parent = describeSubvolume(from)?.id ?? 0n
  const fd = open(to, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  try {
    const code = await calls.sendChanges(fd, output, parent)
    if (code === -errno.EPERM) return false
    assertDone(code, 'BTRFS_IOC_SEND', to)
    return true
  } finally {
    close(fd)
  }
}

function inParent(
  target: string,
  use: (fd: number, name: ReturnType<typeof cstring>) => void,
): void {
  onDirectory(path.dirname(target), fd => {
    try {
      use(fd, cstring(path.basename(target)))
    } catch (error) {
      throw wrapError(error, target)
    }
  })
}

function onDirectory<T>(target: string, use: (fd: number) => T): T {
  let fd: number
  try {
    fd = open(target, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  } catch (error) {
    throw wrapError(error, target)
  }
  try {
    return use(fd)
  } finally {
    close(fd)
  }
}

function assertDone(code: number, name: string, subject: string): number {
  if (code >= 0) return code
  const cause = new SystemCallError(code, name, subject)
  if (code === -errno.EXDEV) {
    const reason = 'a snapshot has to be on the file system of its subvolume'
    throw createError('UNSUPPORTED_PLATFORM', { subject, reason }, cause)
  }
  if (code !== -errno.ENOTTY && code !== -errno.EOPNOTSUPP && code !== -errno.EINVAL)
    throw wrapError(cause, subject)
  const reason =
    'it is not on a btrfs, or on one that the kernel is too old for - give btrfs() a dir on that of the bundles, or use cache(), which keeps layers on any file system'
  throw createError('UNSUPPORTED_PLATFORM', { subject, reason }, cause)
}
