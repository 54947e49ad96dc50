// A store of snapshots: `snapshots/<random>`, read-only; `chains/<key>.json` says which one is a chain of layers,
// `bases/<random>.json` which one a bundle is compared with. A snapshot that no such file names doesn't exist, and the
// files come last, once the snapshots are on disk. Whoever uses the store shares its lock; who has it alone removes what
// dead processes left.
import { randomBytes } from 'node:crypto'
import {
  existsSync,
  linkSync,
  lstatSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
} from 'node:fs'
import { open as openFile } from 'node:fs/promises'
import path from 'node:path'
import { wrapError } from '../../lib/errors.ts'
import { destroySubvolume, fileSystemID } from '../../lib/fs/btrfs.ts'
import { close, O_DIRECTORY, O_RDONLY, open, syncfsLater } from '../../lib/fs/libc.ts'
import { acquireLock, tryLock, type Lock } from '../../lib/fs/lock.ts'
import { makePrivateDirectory } from '../../lib/fs/private-directory.ts'
import type { LayerReport } from '../../lib/layer/layer.ts'
import { parseJson } from '../../lib/oci/json.ts'
import { nameOfKey, type ChainKey } from './key.ts'

/** What is known of a snapshot of a chain; JSON. */
export interface Chain {
  readonly key: ChainKey
  readonly snapshot: string
  /** Of each of its layers, base first. */
  readonly reports: readonly LayerReport[]
}

/** Whose base a snapshot is; JSON. */
export interface Base {
  readonly snapshot: string
  /** Where the bundle was when it was made; information only. */
  readonly bundle: string
}

const namePattern = /^[0-9a-f]{32}$/
const unfinished = '.new'

/** An open store. */
export class Store {
  /** The versioned directory, links followed. */
  readonly path: string
  readonly fileSystem: string
  readonly #lock: Lock
  readonly #fd: number
  /** Snapshots of this run that nothing names yet. */
  readonly #unnamed = new Set<string>()

  private constructor(directory: string, lock: Lock) {
    this.path = directory
    this.#lock = lock
    this.fileSystem = fileSystemID(directory)
    // before anything is written, so that no error is missed
    this.#fd = open(directory, O_RDONLY | O_DIRECTORY)
  }

  /**
   * Opens a store, and makes it if there is none.
   * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_PLATFORM if it isn't on a btrfs; {UsageError} ERR_KOCI_UNTRUSTED;
   * {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED
   */
  static async open(dir: string, signal: AbortSignal): Promise<Store> {
    // before anything is made
    fileSystemID(existing(dir))
    const own = makePrivateDirectory(dir, 'btrfs-v1')
    for (const part of ['snapshots', 'chains', 'bases']) makePrivateDirectory(own, part)
    const file = path.join(own, 'lock')
    let lock = tryLock(file)
    if (lock) {
      removeLeftovers(own)
      if (!lock.share()) lock = undefined
    }
    return new Store(own, lock ?? (await acquireLock(file, { shared: true, signal })))
  }

  /** Where a snapshot is. */
  snapshot(name: string): string {
    return path.join(this.path, 'snapshots', name)
  }

  /** A name for a snapshot that is about to be made; without a file that names it, it is gone when the store is closed. */
  nameSnapshot(): string {
    const name = randomName()
    this.#unnamed.add(name)
    return name
  }

  /** The snapshot of a chain; undefined if there is none. */
  look(key: ChainKey): Chain | undefined {
    const found = readNaming(this.#chainFile(key)) as Chain | undefined
    if (!found || JSON.stringify(found.key) !== JSON.stringify(key)) return undefined
    return Array.isArray(found.reports) && this.has(found.snapshot) ? found : undefined
  }

  /** Whether there is such a snapshot. */
  has(name: string): boolean {
    const isThere = lstatSync(this.snapshot(name), { throwIfNoEntry: false })?.isDirectory()
    return isThere ?? false
  }

  /** Whether a bundle's base is there. */
  hasBase(name: string): boolean {
    return readNaming(this.#baseFile(name))?.snapshot === name && this.has(name)
  }

  /**
   * Makes snapshots of this run count, after one sync for all of them. Of a chain that somebody else published meanwhile
   * theirs stays.
   */
  async publish(chains: readonly Chain[], base?: Base): Promise<void> {
    const files = chains.map(chain => [this.#chainFile(chain.key), chain] as const)
    const all = [...files, ...(base ? [[this.#baseFile(base.snapshot), base] as const] : [])]
    if (all.length === 0) return
    try {
      for (const [file, content] of all) await writeNew(this.#temporary(file), content)
      await syncfsLater(this.#fd)
      for (const [file, { snapshot }] of all)
        if (give(this.#temporary(file), file)) this.#unnamed.delete(snapshot)
      for (const part of ['chains', 'bases']) await syncDirectory(path.join(this.path, part))
    } catch (error) {
      throw wrapError(error, this.path)
    } finally {
      for (const [file] of all) rmSync(this.#temporary(file), { force: true })
    }
  }

  /** Removes a bundle's base. */
  removeBase(name: string): void {
    rmSync(this.#baseFile(name), { force: true })
    destroySubvolume(this.snapshot(name))
  }

  /** To be called when nothing of the run is under way any more. */
  close(): void {
    try {
      for (const name of this.#unnamed) destroySubvolume(this.snapshot(name))
    } finally {
      close(this.#fd)
      this.#lock.release()
    }
  }

  #chainFile(key: ChainKey): string {
    return path.join(this.path, 'chains', `${nameOfKey(key)}.json`)
  }

  #baseFile(name: string): string {
    return path.join(this.path, 'bases', `${name}.json`)
  }

  #temporary(file: string): string {
    return `${file}.${process.pid}.${nameOf(this)}${unfinished}`
  }
}

const names = new WeakMap<Store, string>()

function nameOf(store: Store): string {
  const name = names.get(store) ?? randomName()
  names.set(store, name)
  return name
}

/** The directory, or the one above it that is there. */
function existing(dir: string): string {
  let at = path.resolve(dir)
  while (at !== path.dirname(at) && !existsSync(at)) at = path.dirname(at)
  return realpathSync(at)
}

/** A name for something in a store. */
function randomName(): string {
  return randomBytes(16).toString('hex')
}

/** What a file says of a snapshot; undefined if there is none, or if it says nothing sound. */
function readNaming(file: string): { readonly snapshot: string } | undefined {
  let bytes: Buffer
  try {
    bytes = readFileSync(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw wrapError(error, file)
  }
  try {
    const found = parseJson(bytes, file) as { snapshot: string }
    return namePattern.test(found.snapshot) ? found : undefined
  } catch {
    return undefined
  }
}

async function writeNew(file: string, content: unknown): Promise<void> {
  const handle = await openFile(file, 'wx', 0o600)
  try {
    await handle.writeFile(JSON.stringify(content))
  } finally {
    await handle.close()
  }
}

/** Gives a file another name; false if there is one of that name. */
function give(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await openFile(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Removes what nothing names, and names of nothing. To be called with the lock alone. */
function removeLeftovers(own: string): void {
  try {
    const named = new Set<string>()
    for (const part of ['chains', 'bases'])
      for (const name of readdirSync(path.join(own, part))) {
        const file = path.join(own, part, name)
        const found = name.endsWith(unfinished) ? undefined : readNaming(file)
        const isThere =
          found &&
          lstatSync(path.join(own, 'snapshots', found.snapshot), { throwIfNoEntry: false })
        if (isThere) named.add(found.snapshot)
        else rmSync(file, { force: true })
      }
    for (const name of readdirSync(path.join(own, 'snapshots'))) {
      if (named.has(name)) continue
      const file = path.join(own, 'snapshots', name)
      if (lstatSync(file).isDirectory()) destroySubvolume(file)
      else rmSync(file)
    }
  } catch (error) {
    throw wrapError(error, own)
  }
}
