// Reading small files of a rootfs (`/etc/passwd`) that an image may have filled with anything.
import { createError, wrapError } from '../errors.ts'
import {
  close,
  errno,
  O_CLOEXEC,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_RDONLY,
  read,
  S_IFMT,
  S_IFREG,
  statx,
  SystemCallError,
} from './libc.ts'
import type { Rooted } from './rooted.ts'
import * as sys from './syscall.ts'

/**
 * The content of a file inside a rootfs, symlinks resolved inside it; undefined where there is none.
 * `rawPath` is relative to the rootfs; a leading slash makes no difference.
 *
 * Never blocks and never opens a device's other side: a fifo, socket, device or directory is ERR_KOCI_INVALID_BUNDLE,
 * a file larger than `maxBytes` (default 1 MiB) ERR_KOCI_LIMIT_EXCEEDED.
 */
export function readFileInRoot(
  rooted: Rooted,
  rawPath: Uint8Array | string,
  { maxBytes = 2 ** 20 }: { maxBytes?: number } = {},
): Buffer | undefined {
  const path = Buffer.from(rawPath)
  try {
    const { node, name } = rooted.resolve(path)
    if (name === undefined) throw notRegular(path)
    // not opened at all unless it is a regular file: even open(2) has side effects on devices
    const dirfd = rooted.fdOf(node)
    if ((statx(dirfd, name).mode & S_IFMT) !== S_IFREG) throw notRegular(path)
    const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC
    const fd = sys.openat(dirfd, name, flags, 0)
    if (fd < 0) throw new SystemCallError(fd, 'openat', name)
    try {
      return readAll(fd, path, maxBytes)
    } finally {
      close(fd)
    }
  } catch (error) {
    if (error instanceof SystemCallError && isMissing(error)) return undefined
    throw wrapError(error, path)
  }
}

function readAll(fd: number, path: Buffer, maxBytes: number): Buffer {
  const { mode, size } = statx(fd)
  if ((mode & S_IFMT) !== S_IFREG) throw notRegular(path)
  if (size > maxBytes)
    throw createError('LIMIT_EXCEEDED', {
      subject: path,
      limit: 'size of a file to be read',
      value: size,
      maximum: maxBytes,
    })
  const content = Buffer.alloc(size)
  return content.subarray(0, read(fd, content, 0))
}

function notRegular(path: Buffer): Error {
  return createError('INVALID_BUNDLE', { subject: path, reason: 'not a regular file' })
}

function isMissing(error: SystemCallError): boolean {
  return error.errno === -errno.ENOENT || error.errno === -errno.ENOTDIR
}
