// What all new files of a layout have in common: the permissions and owner of the layout's directory, and durability.
import { mkdir, open, rename, rmdir, stat, type FileHandle } from 'node:fs/promises'
import { createError } from '../errors.ts'
import { AT_FDCWD, cstring, RENAME_NOREPLACE, renameat2 } from '../fs/libc.ts'

/** Gives a new file the owner of the layout's directory and the directory's permissions, whatever the umask is. */
export async function adopt(root: string, handle: FileHandle): Promise<void> {
  const { mode, uid, gid } = await stat(root)
  await chownLike(uid, gid, () => handle.chown(uid, gid))
  // in a sticky directory everybody may add files, but not change those of others
  await handle.chmod(mode & (mode & 0o1000 ? 0o644 : 0o666))
}

/** Changes an owner where that is possible and needed: only root can, and not to every id. */
export async function chownLike(
  uid: number,
  gid: number,
  change: () => Promise<void>,
): Promise<void> {
  if (process.geteuid?.() !== 0 || (uid === 0 && gid === process.getegid?.())) return
  try {
    await change()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    // root of a user namespace can't give files to ids that aren't mapped
    if (code !== 'EPERM' && code !== 'EINVAL') throw error
  }
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } catch (error) {
    // some network file systems can't sync directories
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error
  } finally {
    await handle.close()
  }
}

/**
 * Gives a file or a directory its name, never over something that is there.
 * @throws {ConflictError} ERR_KOCI_CLOBBER
 */
export function renameNew(from: string, to: string): void {
  try {
    renameat2(AT_FDCWD, cstring(from), AT_FDCWD, cstring(to), RENAME_NOREPLACE)
  } catch (error) {
    throw clobberError(error, to)
  }
}

/**
 * As {@link renameNew}, for a directory. Where the file system knows no rename that replaces nothing (NFS), the name is
 * an empty directory's first.
 * @throws {ConflictError} ERR_KOCI_CLOBBER
 */
export async function renameNewDirectory(from: string, to: string): Promise<void> {
  try {
    renameNew(from, to)
    return
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error
  }
  try {
    await mkdir(to)
  } catch (error) {
    throw clobberError(error, to)
  }
  try {
    // over our own directory; it fails if something was put into it meanwhile
    await rename(from, to)
  } catch (error) {
    await rmdir(to).catch(() => undefined)
    throw clobberError(error, to)
  }
}

function clobberError(error: unknown, subject: string): unknown {
  const { code = '' } = error as NodeJS.ErrnoException
  if (!['EEXIST', 'ENOTEMPTY'].includes(code)) return error
  return createError('CLOBBER', { subject, remedy: 'choose another path' }, error)
}
