// A bundle's own files, read: whatever else somebody put under their names, a link, a fifo, a directory, is refused
// rather than followed or waited for.
import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { createError, wrapError } from '../errors.ts'

const maxMetadataBytes = 1 << 20

/** A file of at most `maxBytes`, undefined if there is none; never waits for a fifo, nor follows a link. */
export function readOwnFile(
  file: string,
  maxBytes: number = maxMetadataBytes,
): Promise<Buffer | undefined> {
  return useOwnFile(file, maxBytes, handle => handle.readFile())
}

/** As `readOwnFile`, for files that are too large to be held. */
export async function useOwnFile<T>(
  file: string,
  maxBytes: number,
  use: (handle: FileHandle) => Promise<T>,
): Promise<T | undefined> {
  try {
    const handle = await open(
      file,
      constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    )
    try {
      const found = await handle.stat()
      if (!found.isFile() || found.size > maxBytes)
        throw createError('INVALID_BUNDLE', {
          subject: file,
          reason: 'not a small regular file',
        })
      return await use(handle)
    } finally {
      await handle.close()
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw wrapError(error, file)
  }
}
