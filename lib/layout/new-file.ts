// What all new files of a layout have in common: the permissions and owner of the layout's directory, and durability.
import { open, stat, type FileHandle } from 'node:fs/promises'
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
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    throw createError('CLOBBER', { subject: to, remedy: 'choose another path' }, error)
  }
}
