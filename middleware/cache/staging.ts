// Private directories in `staging/`: everything that is made or removed passes through one. Each is locked by who made it,
// so a directory whose lock is free is what a dead process left.
import { chmodSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import { wrapError } from '../../lib/errors.ts'
import { close, cstring, O_DIRECTORY, O_RDONLY, open } from '../../lib/fs/libc.ts'
import { tryLock, type Lock } from '../../lib/fs/lock.ts'
import { mountTexts } from '../../lib/fs/mount-table.ts'
import { removeTree } from '../../lib/fs/walk.ts'
import { isMissing, namesIn, randomName } from './files.ts'

/** A private directory, gone with whatever is in it when it is disposed of, or when its process dies and another one looks. */
export class Staging {
  readonly path: string
  readonly #lock: Lock

  private constructor(directory: string, lock: Lock) {
    this.path = directory
    this.#lock = lock
  }

  /** Makes one; the caller disposes of it. */
  static make(parent: string): Staging {
    for (;;) {
      const directory = path.join(parent, randomName())
      try {
        mkdirSync(directory, 0o700)
        // whatever the umask
        chmodSync(directory, 0o700)
        const lock = tryLock(directory, { create: false })
        if (lock) return new Staging(directory, lock)
      } catch (error) {
        // somebody took it for a dead one's, between its making and its locking
        if (!isMissing((error as Error).cause ?? error)) throw wrapError(error, parent)
      }
    }
  }

  [Symbol.dispose](): void {
    try {
      remove(this.path)
    } finally {
      this.#lock.release()
    }
  }
}

/**
 * Where something is moved to be removed: `<name>.<random>` says which layer it was, because somebody may still have it
 * mounted.
 */
export function placeToRemove(parent: string, name: string): string {
  return path.join(parent, `${name}.${randomName()}`)
}

/** Removes what dead processes left, unless it is a layer that is still mounted. Tells how many directories that were. */
export async function reclaimStaging(parent: string): Promise<number> {
  let count = 0
  let mounted: ReadonlySet<string> | undefined
  for (const entry of await namesIn(parent)) {
    const dot = entry.indexOf('.')
    if (dot > 0) {
      mounted ??= mountedLayers()
      if (mounted.has(entry.slice(0, dot))) continue
    }
    const directory = path.join(parent, entry)
    try {
      using lock = tryLock(directory, { create: false })
      if (!lock) continue
      remove(directory)
      count += 1
    } catch (error) {
      // its owner was just done with it
      if (!isMissing((error as Error).cause ?? error)) throw error
    }
  }
  return count
}

/** The names of all layers that are mounted anywhere, as far as this process can see. */
export function mountedLayers(): Set<string> {
  const names = new Set<string>()
  for (const text of mountTexts())
    for (const [, name = ''] of text.matchAll(/\/layers\/([0-9a-f]{32})\/tree\b/g))
      names.add(name)
  return names
}

function remove(directory: string): void {
  const parent = open(path.dirname(directory), O_RDONLY | O_DIRECTORY)
  try {
    removeTree(parent, cstring(path.basename(directory)))
  } catch (error) {
    throw wrapError(error, directory)
  } finally {
    close(parent)
  }
}
