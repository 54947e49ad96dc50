// The directory of a new bundle and its parents: made step by step and locked; removed, if they are empty, as they were
// made.
import type { Stats } from 'node:fs'
import { lstat, mkdir, rmdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { createError, isError, wrapError } from '../errors.ts'
import { tryLock, type Lock } from '../fs/lock.ts'

/** How often at most a directory is made that is gone again before it is locked. */
const attempts = 20

/** Refuses what is there and isn't a directory. */
export async function assertCanBeDirectory(directory: string): Promise<void> {
  const named = await look(directory)
  // of links only: a directory that is gone at a second look isn't one to nowhere, another run may just have removed it
  const found = named?.isSymbolicLink() ? await stat(directory).catch(() => undefined) : named
  if (!named || found?.isDirectory()) return
  const reason = found ? 'there is something else of that name' : 'it is a symlink to nowhere'
  throw createError('INVALID_BUNDLE', { subject: directory, reason })
}

/** Whether there is anything of that name; a link isn't followed. */
export async function exists(file: string): Promise<boolean> {
  return (await look(file)) !== undefined
}

async function look(file: string): Promise<Stats | undefined> {
  return lstat(file).catch(error => {
    if (isGone(error)) return undefined
    throw wrapError(error, file)
  })
}

/** A directory that is ours for now. */
export interface LockedDirectory {
  readonly lock: Lock
  /** It and its parents, the topmost first, as far as they had to be made. */
  readonly made: readonly string[]
}

/**
 * Makes a directory and its parents, and locks it. Where another run removes one of them in between, they are made again.
 * @throws {ConflictError} ERR_KOCI_LOCKED; for whatever else fails, what was made is removed again
 */
export async function makeLocked(directory: string, mode: number): Promise<LockedDirectory> {
  for (let attempt = 1; ; attempt += 1) {
    const made: string[] = []
    try {
      await makeDirectories(directory, mode, made)
      return { lock: lockDirectory(directory), made }
    } catch (error) {
      // somebody is using it by now
      if (isError(error, 'LOCKED')) throw error
      await removeEmpty(made)
      const wrapped = wrapError(error, directory)
      if (attempt === attempts || !isGone(wrapped.cause)) throw wrapped
    }
  }
}

/** Step by step: Node's recursive mkdir never ends beneath /proc. */
async function makeDirectories(directory: string, mode: number, made: string[]): Promise<void> {
  const missing: string[] = []
  for (let at = directory; !(await exists(at)); at = path.dirname(at)) missing.push(at)
  for (const at of missing.toReversed()) if (await makeDirectory(at, mode)) made.push(at)
}

/** Whether it was us who made it: somebody else may have been quicker. */
async function makeDirectory(directory: string, mode: number): Promise<boolean> {
  try {
    await mkdir(directory, mode)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Locks a directory that is there. */
export function lockDirectory(directory: string): Lock {
  // never made: where a directory was a moment ago there would be a file
  const lock = tryLock(directory, { create: false })
  if (!lock) throw createError('LOCKED', { subject: directory })
  return lock
}

/** Removes the directories that were made, the last one first; those that aren't empty stay. */
export async function removeEmpty(made: readonly string[]): Promise<void> {
  for (const directory of made.toReversed()) await rmdir(directory).catch(() => {})
}

function isGone(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT'
}
