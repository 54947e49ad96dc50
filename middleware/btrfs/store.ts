// A store of snapshots: `snapshots/<random>`, read-only. One that no file in `chains/` or `bases/` names doesn't exist, and the
// files come last, once the snapshots are on disk. `locks/<name>` is shared by who uses a chain or a base, exclusive for who
// makes or removes it. Whoever uses the store shares its own lock; who has that alone removes what dead processes left.
import {
  existsSync,
  lstatSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  utimesSync,
} from 'node:fs'
import { open as openFile } from 'node:fs/promises'
import path from 'node:path'
import { wrapError } from '../../lib/errors.ts'
import { describeSubvolume, destroySubvolume, fileSystemID } from '../../lib/fs/btrfs.ts'
import { close, O_DIRECTORY, O_RDONLY, open, syncfsLater } from '../../lib/fs/libc.ts'
import { acquireLock, tryLock, type Lock } from '../../lib/fs/lock.ts'
import { makePrivateDirectory } from '../../lib/fs/private-directory.ts'
import { nameOfKey, type ChainKey } from './key.ts'
import {
  finish,
  namesIn,
  randomName,
  readBase,
  readChain,
  rewriteBase,
  writeUnfinished,
  type Base,
  type Chain,
  type Named,
} from './names.ts'

const version = 'btrfs-v1'
const touchEveryMs = 3_600_000

/** An open store. */
export class Store {
  /** The versioned directory, links followed. */
  readonly path: string
  readonly fileSystem: string
  /** How many snapshots of dead processes were removed when it was opened. */
  readonly leftovers: number
  readonly #lock: Lock
  readonly #fd: number
  /** Of chains and bases, until the run ends. */
  readonly #locks = new Map<string, Lock>()
  /** Snapshots of this run that nothing names yet. */
  readonly #unnamed = new Set<string>()

  private constructor(directory: string, lock: Lock, leftovers: number) {
    this.path = directory
    this.#lock = lock
    this.leftovers = leftovers
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
    const own = makePrivateDirectory(dir, version)
    for (const part of ['snapshots', 'chains', 'bases', 'locks'])
      makePrivateDirectory(own, part)
    const file = path.join(own, 'lock')
    let lock = tryLock(file)
    let leftovers = 0
    if (lock) {
      leftovers = removeLeftovers(own)
      if (!lock.share()) lock = undefined
    }
    lock ??= await acquireLock(file, { shared: true, signal })
    return new Store(own, lock, leftovers)
  }

  /** Opens a store; undefined if there is none. @throws as `open` */
  static async find(dir: string, signal: AbortSignal): Promise<Store | undefined> {
    const isThere = lstatSync(path.join(dir, version), { throwIfNoEntry: false })
    return isThere && Store.open(dir, signal)
  }

  /** Where a snapshot is. */
  snapshot(name: string): string {
    return path.join(this.path, 'snapshots', name)
  }

  /** The file that names the snapshot of a chain. */
  chainFile(name: string): string {
    return path.join(this.path, 'chains', `${name}.json`)
  }

  /** The file that names a base. */
  baseFile(name: string): string {
    return path.join(this.path, 'bases', `${name}.json`)
  }

  /** A name for a snapshot that is about to be made; without a file that names it, it is gone when the store is closed. */
  nameSnapshot(): string {
    const name = randomName()
    this.#unnamed.add(name)
    return name
  }

  /** What a file has to say to name a snapshot that was just made. */
  identify(snapshot: string): Named {
    return { snapshot, uuid: describeSubvolume(this.snapshot(snapshot))?.uuid ?? '' }
  }

  /** The snapshot of a chain, and that it was never changed; undefined if there is none. Only what holds its lock can rely on it. */
  look(key: ChainKey): Chain | undefined {
    const found = readChain(this.chainFile(nameOfKey(key)))
    if (!found || JSON.stringify(found.key) !== JSON.stringify(key)) return undefined
    return this.isSound(found) ? found : undefined
  }

  /** Whether there is such a snapshot, whatever became of it. */
  has({ snapshot }: Named): boolean {
    return describeSubvolume(this.snapshot(snapshot)) !== undefined
  }

  /** Whether there is such a snapshot, as it was made. */
  isSound({ snapshot, uuid }: Named): boolean {
    const found = describeSubvolume(this.snapshot(snapshot))
    return found !== undefined && found.uuid === uuid && found.isUntouched
  }

  /** Has the snapshot of a chain stay until the run ends, and gives it; undefined if there is none. */
  use(key: ChainKey): Chain | undefined {
    const name = nameOfKey(key)
    const isNew = !this.#locks.has(name)
    const found = this.hold(name) ? this.look(key) : undefined
    if (!found && isNew) this.letGo([name])
    if (found) touch(this.chainFile(name))
    return found
  }

  /** Whether a bundle's base is there, as it was made. It stays until the run ends. */
  useBase(name: string): boolean {
    const found = this.hold(name) ? readBase(this.baseFile(name)) : undefined
    return found?.snapshot === name && this.isSound(found)
  }

  /** Shares the lock of a chain or a base until the run ends; false while somebody makes or removes it. */
  hold(name: string): boolean {
    const lock = this.#locks.get(name) ?? tryLock(this.#lockFile(name), { shared: true })
    if (lock) this.#locks.set(name, lock)
    return lock !== undefined
  }

  /** Shares the lock of a base before it is made. Whoever clears locks away may have it for a moment. */
  async holdNew(name: string, signal: AbortSignal): Promise<void> {
    this.#locks.set(name, await acquireLock(this.#lockFile(name), { shared: true, signal }))
  }

  /**
   * Waits for the right to make these chains, each on top of the one before; false, without it, as soon as one of them is there
   * after all. All who want them take the locks in this order, so nobody waits for somebody who waits for him.
   * @throws {SystemError} ERR_KOCI_ABORTED
   */
  async claim(keys: readonly ChainKey[], signal: AbortSignal): Promise<boolean> {
    for (const key of keys) {
      const name = nameOfKey(key)
      if (this.#locks.has(name)) continue
      this.#locks.set(name, await acquireLock(this.#lockFile(name), { signal }))
      if (!this.look(key)) continue
      this.letGo(keys.map(nameOfKey))
      return false
    }
    return true
  }

  /** Gives locks back before the run ends. */
  letGo(names: readonly string[]): void {
    for (const name of names) {
      this.#locks.get(name)?.release()
      this.#locks.delete(name)
    }
  }

  /** The exclusive lock of a chain or a base, if nobody uses it; the caller releases it. */
  tryAlone(name: string): Lock | undefined {
    return tryLock(this.#lockFile(name))
  }

  /** What is said of a chain; its snapshot may be gone. */
  chain(name: string): Chain | undefined {
    return readChain(this.chainFile(name))
  }

  /** What is said of all chains, by name; their snapshots may be gone. */
  chains(): Map<string, Chain> {
    return namedIn(path.join(this.path, 'chains'), name => readChain(this.chainFile(name)))
  }

  /** When a chain was used last, in milliseconds since 1970; undefined if it was removed meanwhile. */
  usedMs(name: string): number | undefined {
    return statSync(this.chainFile(name), { throwIfNoEntry: false })?.mtimeMs
  }

  /** What is said of a base; undefined if there is none. */
  base(name: string): Base | undefined {
    return readBase(this.baseFile(name))
  }

  /** What is said of all bases. */
  bases(): Map<string, Base> {
    return namedIn(path.join(this.path, 'bases'), name => readBase(this.baseFile(name)))
  }

  /**
   * Makes snapshots of this run count, after one sync for all of them. Of a chain that somebody else published meanwhile
   * theirs stays.
   */
  async publish(chains: readonly Chain[], base?: Base): Promise<void> {
    const all: { file: string; name: string; content: Chain | Base; temporary?: string }[] =
      chains.map(content => {
        const name = nameOfKey(content.key)
        return { file: this.chainFile(name), name, content }
      })
    if (base)
      all.push({ file: this.baseFile(base.snapshot), name: base.snapshot, content: base })
    if (all.length === 0) return
    try {
      for (const each of all) each.temporary = await writeUnfinished(each.file, each.content)
      await syncfsLater(this.#fd)
      for (const { file, name, content, temporary = '' } of all) {
        const there = readChain(file)
        // that somebody changed it is why there is another one
        if (there && !this.isSound(there)) this.#remove(file, there.snapshot)
        if (finish(temporary, file)) this.#unnamed.delete(content.snapshot)
        if (this.#locks.get(name)?.share() === false) this.#locks.delete(name)
      }
      for (const part of ['chains', 'bases']) await syncDirectory(path.join(this.path, part))
    } catch (error) {
      throw wrapError(error, this.path)
    } finally {
      for (const { temporary } of all) if (temporary) rmSync(temporary, { force: true })
    }
  }

  /** Removes locks that nobody has, of what isn't known. */
  removeLocks(isKnown: (name: string) => boolean): void {
    for (const name of readdirSync(path.join(this.path, 'locks'))) {
      if (isKnown(name)) continue
      using lock = this.tryAlone(name)
      // made known meanwhile by whoever had the lock
      const isThere = existsSync(this.chainFile(name)) || existsSync(this.baseFile(name))
      if (lock && !isThere) rmSync(this.#lockFile(name), { force: true })
    }
  }

  /** Says something else of a base. */
  async rewriteBase(name: string, base: Base): Promise<void> {
    await rewriteBase(this.baseFile(name), base)
  }

  /** Removes a bundle's base; the name first, so that nothing is named that isn't there. */
  removeBase(name: string): void {
    this.#remove(this.baseFile(name), name)
    rmSync(this.#lockFile(name), { force: true })
  }

  /** Removes a chain. The caller holds its lock alone, or nobody can have it. */
  removeChain(name: string, { snapshot }: Named): void {
    this.#remove(this.chainFile(name), snapshot)
    rmSync(this.#lockFile(name), { force: true })
  }

  /** To be called when nothing of the run is under way any more. */
  close(): void {
    try {
      for (const name of this.#unnamed) destroySubvolume(this.snapshot(name))
    } finally {
      this.letGo([...this.#locks.keys()])
      close(this.#fd)
      this.#lock.release()
    }
  }

  #remove(file: string, snapshot: string): void {
    try {
      rmSync(file, { force: true })
      destroySubvolume(this.snapshot(snapshot))
    } catch (error) {
      throw wrapError(error, file)
    }
  }

  #lockFile(name: string): string {
    return path.join(this.path, 'locks', name)
  }
}

/** The directory, or the one above it that is there. */
function existing(dir: string): string {
  let at = path.resolve(dir)
  while (at !== path.dirname(at) && !existsSync(at)) at = path.dirname(at)
  return realpathSync(at)
}

function namedIn<T>(directory: string, read: (name: string) => T | undefined): Map<string, T> {
  const found = namesIn(directory).map(name => [name, read(name)] as const)
  return new Map(found.filter((each): each is [string, T] => each[1] !== undefined))
}

/** When it was used last, to the hour. */
function touch(file: string): void {
  const now = Date.now()
  try {
    if (Math.abs(now - statSync(file).mtimeMs) > touchEveryMs)
      utimesSync(file, now / 1000, now / 1000)
  } catch {
    // nothing depends on it
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

/** Removes what nothing names, and names of nothing; how many snapshots that were. To be called with the lock alone. */
function removeLeftovers(own: string): number {
  try {
    const snapshots = new Set<string>()
    const names = new Set<string>()
    for (const [part, read] of [
      ['chains', readChain],
      ['bases', readBase],
    ] as const)
      for (const file of readdirSync(path.join(own, part))) {
        const found = file.endsWith('.json') ? read(path.join(own, part, file)) : undefined
        if (found && existsSync(path.join(own, 'snapshots', found.snapshot))) {
          snapshots.add(found.snapshot)
          names.add(path.basename(file, '.json'))
        } else rmSync(path.join(own, part, file), { force: true })
      }
    for (const name of readdirSync(path.join(own, 'locks')))
      if (!names.has(name)) rmSync(path.join(own, 'locks', name))
    let count = 0
    for (const name of readdirSync(path.join(own, 'snapshots'))) {
      if (snapshots.has(name)) continue
      const file = path.join(own, 'snapshots', name)
      if (lstatSync(file).isDirectory()) destroySubvolume(file)
      else rmSync(file)
      count += 1
    }
    return count
  } catch (error) {
    throw wrapError(error, own)
  }
}
