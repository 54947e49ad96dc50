// The directory of a new bundle and its parents: made step by step, and removed as they were made, if they are empty.
import { lstat, mkdir, rmdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { createError, wrapError } from '../errors.ts'

/** Refuses what is there and isn't a directory. */
export async function assertCanBeDirectory(directory: string): Promise<void> {
  if (!(await exists(directory))) return
  const found = await stat(directory).catch(() => undefined)
  if (found?.isDirectory()) return
  const reason = found ? 'there is something else of that name' : 'it is a symlink to nowhere'
  throw createError('INVALID_BUNDLE', { subject: directory, reason })
}

/** Whether there is anything of that name; a link isn't followed. */
export async function exists(file: string): Promise<boolean> {
  try {
    await lstat(file)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw wrapError(error, file)
  }
}

/**
 * Makes a directory and its parents; tells the topmost one it had to make. Step by step: Node's recursive mkdir
 * never ends beneath /proc.
 */
export async function makeDirectories(directory: string): Promise<string | undefined> {
  const missing: string[] = []
  for (let at = directory; !(await exists(at)); at = path.dirname(at)) missing.push(at)
  const made: string[] = []
  try {
    for (const at of missing.toReversed()) {
      if (await makeDirectory(at)) made.push(at)
    }
  } catch (error) {
    for (const at of made.toReversed()) await rmdir(at)
    throw wrapError(error, directory)
  }
  return made[0]
}

/** Whether it was us who made it: somebody else may have been quicker. */
async function makeDirectory(directory: string): Promise<boolean> {
  try {
    await mkdir(directory, 0o700)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Removes `directory` and its parents up to `top` as long as they are empty. */
export async function removeEmpty(directory: string, top: string): Promise<void> {
  for (let at = directory; at.length >= top.length; at = path.dirname(at)) {
    const removed = await rmdir(at).then(
      () => true,
      () => false,
    )
    if (!removed) return
  }
}
