// Opening a tree to read it as whoever we are: without the privilege to override modes, directories of ours that we
// can't enter are made accessible for the while.
import { wrapError } from '../errors.ts'
import { readPrivileges } from './privileges.ts'
import { openRooted, type Rooted } from './rooted.ts'

/**
 * Runs with the tree open, then puts back the modes that had to be widened, and closes it.
 * @throws {SystemError} ERR_KOCI_IO naming the path, and what `use` throws
 */
export async function withTree<T>(
  path: string,
  use: (root: Rooted) => T | Promise<T>,
): Promise<T> {
  const root = openTree(path)
  try {
    return await use(root)
  } finally {
    closeTree(root)
  }
}

/** Opens a tree; to be closed by {@link closeTree}. Its last component may not be a symlink. */
export function openTree(path: string): Rooted {
  try {
    return openRooted(path, { widen: !readPrivileges().overridesModes })
  } catch (error) {
    throw wrapError(error, path)
  }
}

/** Puts back the modes that had to be widened, and closes the tree. */
export function closeTree(root: Rooted): void {
  try {
    root.restoreModes()
  } finally {
    root.close()
  }
}
