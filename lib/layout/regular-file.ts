// Opening files of a layout that somebody else may have put there: only regular files, and no open(2) that waits.
// Links are followed: shared blob directories are made of them, and the content is verified anyway.
import { createHash } from 'node:crypto'
import { constants, type Stats } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { createError, wrapError } from '../errors.ts'
import { toDigest, type Algorithm, type Digest } from '../oci/digest.ts'

/** Where bytes are: `size` bytes from `offset` of the file at `path`. */
export interface BlobLocation {
  /** Absolute. */
  readonly path: string
  readonly offset: number
  readonly size: number
}

// A fifo without a writer, or a terminal, must not make us wait or become our controlling terminal
const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY

/**
 * Opens a regular file for reading; undefined if there is none. The caller closes the handle.
 * @throws {FormatError} ERR_KOCI_INVALID_LAYOUT it is a fifo, device, socket or directory
 */
export async function openRegular(
  path: string,
  subject: string,
): Promise<{ handle: FileHandle; size: number } | undefined> {
  let handle: FileHandle
  try {
    handle = await open(path, flags)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    if (code === 'ENXIO') throw notRegular(subject, path, 'a socket or a device', error)
    throw wrapError(error, subject)
  }
  try {
    const stats = await handle.stat()
    if (!stats.isFile()) throw notRegular(subject, path, kindOf(stats))
    return { handle, size: stats.size }
  } catch (error) {
    await handle.close()
    throw wrapError(error, subject)
  }
}

/**
 * Reads a whole small file; undefined if there is none.
 * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED before anything is read
 */
export async function readRegular(
  path: string,
  subject: string,
  maxBytes: number,
): Promise<Buffer | undefined> {
  const file = await openRegular(path, subject)
  if (!file) return undefined
  try {
    if (file.size > maxBytes)
      throw createError('LIMIT_EXCEEDED', {
        subject,
        limit: 'document size',
        value: file.size,
        maximum: maxBytes,
      })
    return await readFrom(file.handle, 0, file.size)
  } catch (error) {
    throw wrapError(error, subject)
  } finally {
    await file.handle.close()
  }
}

/** Reads the bytes at a location; fewer if the file has become shorter. Undefined if the file is gone. */
export async function readLocation(
  location: BlobLocation,
  subject: string,
): Promise<Buffer | undefined> {
  const file = await openRegular(location.path, subject)
  if (!file) return undefined
  try {
    return await readFrom(file.handle, location.offset, location.size)
  } catch (error) {
    throw wrapError(error, subject)
  } finally {
    await file.handle.close()
  }
}

/** Reads `size` bytes from a position, fewer at the end of the file. */
export async function readFrom(
  handle: FileHandle,
  position: number,
  size: number,
): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(size)
  let filled = 0
  while (filled < size) {
    const { bytesRead } = await handle.read(bytes, filled, size - filled, position + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return bytes.subarray(0, filled)
}

/** The digest of the bytes at a location, read in pieces; of fewer if the file has become shorter. */
export async function hashLocation(
  location: BlobLocation,
  algorithm: Algorithm,
  subject: string,
): Promise<Digest> {
  const file = await openRegular(location.path, subject)
  if (!file) throw createError('BLOB_NOT_FOUND', { subject, layout: location.path })
  const hash = createHash(algorithm)
  const buffer = Buffer.allocUnsafe(Math.min(location.size, 1024 * 1024))
  try {
    for (let done = 0; done < location.size;) {
      const length = Math.min(buffer.length, location.size - done)
      const { bytesRead } = await file.handle.read(buffer, 0, length, location.offset + done)
      if (bytesRead === 0) break
      hash.update(buffer.subarray(0, bytesRead))
      done += bytesRead
    }
    return toDigest(algorithm, hash.digest('hex'))
  } catch (error) {
    throw wrapError(error, subject)
  } finally {
    await file.handle.close()
  }
}

function kindOf(stats: Stats): string {
  if (stats.isDirectory()) return 'a directory'
  if (stats.isFIFO()) return 'a fifo'
  return stats.isSocket() ? 'a socket' : 'a device'
}

function notRegular(subject: string, path: string, kind: string, cause?: unknown): Error {
  const reason = `${path} is ${kind}, not a regular file`
  return createError('INVALID_LAYOUT', { subject, reason }, cause)
}
