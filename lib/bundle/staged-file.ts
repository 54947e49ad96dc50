// Files of a bundle are written under a private name, synced, and only then renamed: whoever looks sees the old one or
// the new one. The bundle's lock is what makes the private name ours: nobody else can be writing.
import { open, readdir, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { wrapError } from '../errors.ts'

const privatePrefix = '.koci-'
/** What a `write` that was killed can have left of our own files; other names that begin so aren't ours to remove. */
const privateName = /^\.koci-((koci|umoci|config)\.json|sha\d+_[0-9a-f]+\.(mtree|stat))$/

/** What is written to a file; of pieces each is used up before the next one is asked for. */
export type Content = string | Uint8Array | Iterable<Uint8Array>

/** A file that is written and synced, under a private name. */
export interface StagedFile extends AsyncDisposable {
  /** Gives it its name. */
  publish(): Promise<void>
}

/** The name that a file has until it is whole. */
export function privateNameOf(name: string): string {
  return `${privatePrefix}${name}`
}

/** Writes a file whole or not at all. */
export async function publishFile(target: string, content: Content): Promise<void> {
  await using staged = await stageFile(target, content)
  await staged.publish()
}

/** Writes and syncs what is going to be `target`; disposed of before it is published, it never was. */
export async function stageFile(target: string, content: Content): Promise<StagedFile> {
  const temporary = path.join(path.dirname(target), privateNameOf(path.basename(target)))
  const discard = (): Promise<void> => rm(temporary, { force: true }).catch(() => {})
  const attempt = async (action: () => Promise<void>): Promise<void> => {
    try {
      await action()
    } catch (error) {
      await discard()
      throw wrapError(error, target)
    }
  }
  await attempt(async () => {
    // left by a write that was killed
    await rm(temporary, { force: true })
    const file = await open(temporary, 'wx', 0o644)
    try {
      await file.writeFile(content)
      await file.sync()
    } finally {
      await file.close()
    }
  })
  let isPublished = false
  return {
    publish: () =>
      attempt(async () => {
        await rename(temporary, target)
        isPublished = true
      }),
    [Symbol.asyncDispose]: async () => {
      if (!isPublished) await discard()
    },
  }
}

/** Removes what killed writes left in a bundle. */
export async function removeStaged(directory: string): Promise<void> {
  const entries = await readdir(directory, { withFileTypes: true })
  for (const entry of entries)
    if (privateName.test(entry.name) && !entry.isDirectory())
      await rm(path.join(directory, entry.name), { force: true })
}
