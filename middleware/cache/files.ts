// Small things about files that the parts of the store share.
import { randomBytes } from 'node:crypto'
import { lstatSync } from 'node:fs'
import { open, readdir } from 'node:fs/promises'

/** Whether an error says that there is nothing of that name. */
export function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ENOENT' || code === 'ENOTDIR'
}

/** A name that nothing else has. */
export function randomName(): string {
  return randomBytes(16).toString('hex')
}

/** Whether a real directory is there, no link to one. */
export function isDirectory(file: string): boolean {
  return lstatSync(file, { throwIfNoEntry: false })?.isDirectory() ?? false
}

/** The names in a directory; none if it isn't there. */
export async function namesIn(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort()
  } catch (error) {
    if (isMissing(error)) return []
    throw error
  }
}

/** Writes a new file, durably if asked. */
export async function writeNew(file: string, text: string, durable: boolean): Promise<void> {
  const handle = await open(file, 'wx', 0o600)
  try {
    await handle.writeFile(text)
    if (durable) await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Makes the names in a directory durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } catch (error) {
    // some network file systems can't sync directories
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error
  } finally {
    await handle.close()
  }
}
