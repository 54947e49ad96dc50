// The bytes of a blob that another layout has, in a file of ours: as shared blocks, as the same inode, or copied. What is in
// the file then is what is verified, never what it came from.
import { link, lstat, rename, unlink, type FileHandle } from 'node:fs/promises'
import { createError } from '../errors.ts'
import { shareBlocks } from '../fs/syscall.ts'
import { openRegular, readFrom, type BlobLocation } from './regular-file.ts'

/** How a blob came into a layout: it was there, it shares blocks (reflink) or the inode (hard link), or it was copied. */
export type Adoption = 'present' | 'reflink' | 'hardlink' | 'copy'

const pieceSize = 1 << 20

/**
 * Fills the new file at `path`, which `handle` has open and which is replaced by a hard link if that can be had. What comes
 * of it is on disk.
 */
export async function fill(
  path: string,
  handle: FileHandle,
  source: BlobLocation,
): Promise<Exclude<Adoption, 'present'>> {
  const file = await openRegular(source.path, source.path)
  if (!file) throw createError('BLOB_NOT_FOUND', { subject: source.path, layout: source.path })
  try {
    const isWhole = source.offset === 0 && file.size === source.size
    if (isWhole && shareBlocks(file.handle.fd, handle.fd) === 0) {
      await handle.sync()
      return 'reflink'
    }
    if (
      isWhole &&
      (await isOurs(file.handle, handle)) &&
      (await replace(path, source.path, file.handle))
    ) {
      await file.handle.sync()
      return 'hardlink'
    }
    await copy(file.handle, source, handle)
    await handle.sync()
    return 'copy'
  } finally {
    await file.handle.close()
  }
}

/** Whether a file has the owner and mode that ours is to have, and nobody else can write to it, now or later. */
async function isOurs(theirs: FileHandle, ours: FileHandle): Promise<boolean> {
  const [a, b] = [await theirs.stat(), await ours.stat()]
  const isSame = a.uid === b.uid && a.gid === b.gid && a.mode === b.mode && a.dev === b.dev
  return isSame && a.uid === process.geteuid?.() && (a.mode & 0o022) === 0
}

/** Whether the new file could be replaced by another name of the very file that is open. */
async function replace(path: string, source: string, theirs: FileHandle): Promise<boolean> {
  const name = `${path}.link`
  try {
    await link(source, name)
  } catch {
    // too many links, a mount between the two: there is always copying
    return false
  }
  const [linked, opened] = [await lstat(name), await theirs.stat()]
  if (linked.ino === opened.ino && linked.dev === opened.dev) {
    await rename(name, path)
    return true
  }
  // the path is a symlink, or leads to something else by now
  await unlink(name)
  return false
}

async function copy(
  from: FileHandle,
  { offset, size }: BlobLocation,
  to: FileHandle,
): Promise<void> {
  for (let at = 0; at < size;) {
    const piece = await readFrom(from, offset + at, Math.min(pieceSize, size - at))
    if (piece.length === 0) return
    await to.writev([piece], at)
    at += piece.length
  }
}
