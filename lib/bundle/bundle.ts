// A bundle directory: its lock, its metadata, and the list of what a run is making in it. That list is on disk before
// the first thing is made, so that a rerun after a kill undoes exactly what the dead run made, and touches nothing else.
import { createHash } from 'node:crypto'
import { lstatSync } from 'node:fs'
import { chmod, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { createError, wrapError } from '../errors.ts'
import type { Lock } from '../fs/lock.ts'
import { close, cstring, O_DIRECTORY, O_RDONLY, open as openDescriptor } from '../fs/libc.ts'
import { mountSource, unmount } from '../fs/mount.ts'
import { mountsWithin } from '../fs/mount-table.ts'
import { removeTree } from '../fs/walk.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import {
  assertCanBeDirectory,
  exists,
  lockDirectory,
  makeLocked,
  removeEmpty,
} from './directories.ts'
import {
  encodeUmociMetadata,
  isPlainName,
  kociFile,
  parseBundleState,
  parseUmociMetadata,
  umociFile,
  type BundleState,
  type ReadyState,
  type RecordedStack,
  type UmociMetadata,
  type UnpackingState,
} from './metadata.ts'
import { readOwnFile, useOwnFile } from './own-file.ts'
import {
  privateNameOf,
  publishFile,
  removeStaged,
  stageFile,
  type Content,
  type StagedFile,
} from './staged-file.ts'

/** Names that mean somebody already lives in the directory. */
const occupied = ['config.json', 'rootfs', umociFile]

/**
 * A locked bundle directory.
 *
 * Guarantees: one koci at a time works on it; what `begin` finds is never changed or deleted; after `rollback` the
 * directory is as it was. Doesn't protect against other programs that don't take the lock.
 */
export class Bundle {
  /** Absolute. */
  readonly path: string
  readonly #lock: Lock
  #state: BundleState
  #umoci: UmociMetadata | undefined
  /** Where the rootfs is, if not in the bundle. */
  #rootfs: string | undefined
  /** Whether umoci made it; it gets no koci.json then. */
  readonly #foreign: boolean
  /** The directories that `begin` had to make, to be removed with an unpack that failed. */
  #made: readonly string[] = []
  #kept: Readonly<Record<string, unknown>>
  #stack: RecordedStack | undefined
  /** What is kept isn't on disk yet. */
  #isDirty = false
  readonly #discarded: (() => unknown)[] = []
  #written: Promise<void> = Promise.resolve()

  private constructor(directory: string, lock: Lock, state: BundleState | undefined) {
    this.path = directory
    this.#lock = lock
    this.#foreign = state === undefined
    this.#state = state ??= foreign()
    this.#kept = state.state === 'ready' ? state.drivers : {}
    this.#stack = state.state === 'ready' ? state.stack : undefined
  }

  /** The path of the rootfs, whether or not it is there yet. */
  get rootfs(): string {
    return this.#rootfs ?? path.join(this.path, 'rootfs')
  }

  /** What umoci.json says; undefined while unpacking. */
  get umoci(): UmociMetadata | undefined {
    return this.#umoci
  }

  /** What koci.json says of a complete bundle; undefined while unpacking, and for a bundle made by umoci. */
  get ready(): ReadyState | undefined {
    return this.#state.state === 'ready' && !this.#foreign ? this.#state : undefined
  }

  /** What a driver kept about the bundle, if anything. */
  recall(driver: string): unknown {
    return this.#kept[driver]
  }

  /** Keeps JSON data of a driver with the bundle, from the next commit on; undefined forgets it. */
  keep(driver: string, data: unknown): void {
    this.#kept = { ...this.#kept, [driver]: data }
    this.#isDirty = true
  }

  /** What is known of the bundle's stacked layers. */
  get stack(): RecordedStack | undefined {
    return this.#stack
  }

  /** Keeps what was found out about stacked layers, from the next commit on. */
  keepStack(stack: RecordedStack): void {
    this.#stack = stack
  }

  /**
   * Takes a directory for a new bundle: makes it if need be, locks it, and undoes what a dead run left. With `rootfs`,
   * an absolute path, the rootfs is somewhere else: the caller makes and removes it, and the bundle is never completed.
   * @throws {ConflictError} ERR_KOCI_LOCKED, or ERR_KOCI_CLOBBER if there is a bundle in it already;
   * {FormatError} ERR_KOCI_INVALID_BUNDLE if it can't be a directory. Nothing was changed then.
   */
  static async begin(directory: string, rootfs?: string): Promise<Bundle> {
    const absolute = path.resolve(directory)
    await assertCanBeDirectory(absolute)
    const { lock, made } = await makeLocked(absolute, 0o700)
    const bundle = new Bundle(absolute, lock, unpacking())
    bundle.#made = made
    bundle.#rootfs = rootfs
    try {
      await bundle.#undoDeadRun()
      await removeStaged(absolute)
      await assertUnused(absolute)
      const { mode } = await stat(absolute)
      bundle.#state = unpacking([], made.includes(absolute) ? undefined : mode & 0o7777)
      await bundle.#writeState()
      await chmod(absolute, 0o700).catch(async error => {
        await bundle.#remove(kociFile)
        throw error
      })
      return bundle
    } catch (error) {
      // before the lock is given back: it would be the next holder's directory
      await removeEmpty(made)
      bundle.release()
      throw wrapError(error, absolute)
    }
  }

  /**
   * Whether `begin` would take the directory, without making anything.
   * @throws what `begin` throws
   */
  static async assertFree(directory: string): Promise<void> {
    const absolute = path.resolve(directory)
    await assertCanBeDirectory(absolute)
    // what a dead run left would be undone
    if ((await readState(absolute))?.state !== 'unpacking') await assertUnused(absolute)
  }

  /**
   * Opens a complete bundle, made by koci or umoci, and locks it.
   * @throws {ConflictError} ERR_KOCI_LOCKED; {FormatError} ERR_KOCI_INVALID_BUNDLE if it isn't one or is unfinished.
   */
  static async open(directory: string): Promise<Bundle> {
    const absolute = path.resolve(directory)
    const found = await stat(absolute).catch(error => {
      throw createError(
        'INVALID_BUNDLE',
        { subject: absolute, reason: 'no such directory' },
        error,
      )
    })
    if (!found.isDirectory())
      throw createError('INVALID_BUNDLE', { subject: absolute, reason: 'not a directory' })

    const lock = lockDirectory(absolute)
    try {
      const state = await readState(absolute)
      if (state?.state === 'unpacking')
        throw createError('INVALID_BUNDLE', {
          subject: absolute,
          reason: 'its unpack was interrupted - unpack into it again',
        })
      const file = path.join(absolute, umociFile)
      const umoci = await readOwnFile(file)
      if (!umoci)
        throw createError('INVALID_BUNDLE', {
          subject: absolute,
          reason: `it has no ${umociFile}`,
        })
      const bundle = new Bundle(absolute, lock, state)
      bundle.#umoci = parseUmociMetadata(umoci, file)
      await removeStaged(absolute)
      return bundle
    } catch (error) {
      lock.release()
      throw wrapError(error, absolute)
    }
  }

  /**
   * What koci.json says of a complete bundle, read without the lock: for choosing a chain. Undefined where there is none,
   * for a bundle made by umoci, and for whatever `open` refuses.
   */
  static async peek(directory: string): Promise<ReadyState | undefined> {
    const state = await readState(path.resolve(directory)).catch(() => undefined)
    return state?.state === 'ready' ? state : undefined
  }

  /**
   * Announces that something is about to be made in the bundle; it is removed should the run fail or die.
   * @returns the path to make it at
   * @throws {ConflictError} ERR_KOCI_CLOBBER if there is something of that name; {UsageError} ERR_KOCI_INVALID_OPTION
   * for anything but a plain name of letters, digits, `_`, `-` and `.`
   */
  async claim(name: string): Promise<string> {
    const target = this.#pathOf(name)
    if (this.#state.state !== 'unpacking') return target
    if ((await exists(target)) || this.hasClaimed(name))
      throw createError('CLOBBER', { subject: target, remedy: 'unpack into another directory' })
    this.#state = { ...this.#state, created: [...this.#state.created, name] }
    await this.#writeState()
    return target
  }

  /** Whether this run announced that name. */
  hasClaimed(name: string): boolean {
    return this.#state.state === 'unpacking' && this.#state.created.includes(name)
  }

  /** Writes a file of the bundle whole or not at all: private name, fsync, rename. */
  async write(name: string, content: Content): Promise<void> {
    await using staged = await this.stage(name, content)
    await staged.publish()
  }

  /** As `write`, but the file gets its name only when it is told to; disposed of before, it never was. */
  async stage(name: string, content: Content): Promise<StagedFile> {
    const target = this.hasClaimed(name) ? this.#pathOf(name) : await this.claim(name)
    return stageFile(target, content)
  }

  /** A file of the bundle, undefined if there is none; never follows a link, nor waits for a fifo. */
  read(name: string): Promise<Buffer | undefined> {
    return readOwnFile(this.#pathOf(name), Infinity)
  }

  /** The SHA-256 sum of a file of the bundle, undefined if there is none; for files of any size. */
  async sha256(name: string): Promise<Buffer | undefined> {
    return useOwnFile(this.#pathOf(name), Infinity, async file => {
      const hash = createHash('sha256')
      const buffer = Buffer.allocUnsafe(1 << 20)
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length)
        if (bytesRead === 0) return hash.digest()
        hash.update(buffer.subarray(0, bytesRead))
      }
    })
  }

  /** Has a file removed as soon as the next commit, which doesn't need it any more, is on disk; or whatever `remove` removes. */
  discard(what: string | (() => unknown)): void {
    if (typeof what !== 'string') this.#discarded.push(what)
    else {
      const name = path.basename(this.#pathOf(what))
      this.#discarded.push(() => this.#remove(name))
    }
  }

  /** Makes the bundle complete, or brings its metadata up to date: koci.json, which says so, comes last. */
  async commit(
    umoci: UmociMetadata,
    state: Omit<ReadyState, 'version' | 'state' | 'stack' | 'drivers'>,
  ): Promise<void> {
    await this.write(umociFile, encodeUmociMetadata(umoci))
    // until this is on disk the unpack isn't complete, and can be rolled back
    await this.#writeReady(state)
    this.#umoci = umoci
    await this.finish()
  }

  /** Writes what drivers keep about a complete bundle, if it isn't on disk; one that umoci made has no place for it. */
  async save(): Promise<void> {
    if (this.#isDirty && this.ready) await this.#writeReady(this.ready)
  }

  /**
   * Bases a complete bundle on another image. One that umoci made stays umoci's: it gets no koci.json. What is discarded stays
   * until `finish`: up to then the bundle can be put back.
   */
  async rebase(walk: readonly Descriptor[], layout: string): Promise<void> {
    const umoci = { mapping: {}, ...this.#umoci, walk }
    await this.write(umociFile, encodeUmociMetadata(umoci))
    if (this.ready) await this.#writeReady({ ...this.ready, layout: path.resolve(layout) })
    this.#umoci = umoci
  }

  /** What puts the metadata of a complete bundle back to what it is now, in memory and on disk. */
  restorer(): () => Promise<void> {
    const { ready } = this
    const umoci = this.#umoci
    return async () => {
      if (ready) {
        this.#kept = ready.drivers
        this.#stack = ready.stack
        await this.#writeReady(ready)
      }
      if (umoci) await this.write(umociFile, encodeUmociMetadata(umoci))
      this.#umoci = umoci
    }
  }

  /** Removes what was discarded. */
  async finish(): Promise<void> {
    for (const remove of this.#discarded.splice(0)) await remove()
  }

  /** Removes what was announced, and the directories that `begin` made, if they are empty. */
  async rollback(): Promise<void> {
    if (this.#state.state !== 'unpacking') return
    await this.#undo(this.#state)
    await removeEmpty(this.#made)
  }

  /** Gives the lock back. */
  release(): void {
    this.#lock.release()
  }

  async #undoDeadRun(): Promise<void> {
    const state = await readState(this.path)
    if (state?.state === 'unpacking') await this.#undo(state)
  }

  async #undo(state: UnpackingState): Promise<void> {
    const directory = openDescriptor(this.path, O_RDONLY | O_DIRECTORY)
    try {
      for (const name of state.created.toReversed()) {
        this.#unmountOwn(name)
        removeTree(directory, cstring(name))
        removeTree(directory, cstring(privateNameOf(name)))
      }
    } finally {
      close(directory)
    }
    await removeStaged(this.path)
    await this.#remove(kociFile)
    if (state.mode !== undefined) await chmod(this.path, state.mode)
  }

  /** Takes down what koci, or a hook in its name, mounted there or beneath it: with a mount in it nothing can be removed. */
  #unmountOwn(name: string): void {
    const target = this.#pathOf(name)
    if (!isDirectory(target)) return
    for (const { source, mountpoint } of mountsWithin(target))
      if (source === mountSource) unmount(Buffer.from(mountpoint, 'latin1'))
  }

  #pathOf(name: string): string {
    const isPlain: boolean = isPlainName(name)
    if (isPlain) return path.join(this.path, name)
    throw createError('INVALID_OPTION', {
      subject: this.path,
      reason: `${name} is not a plain name`,
    })
  }

  async #writeReady(state: Omit<ReadyState, 'version' | 'state' | 'drivers'>): Promise<void> {
    const drivers = this.#kept
    const ready: ReadyState = {
      ...state,
      version: 1,
      state: 'ready',
      stack: this.#stack,
      drivers,
    }
    await this.#writeState(ready)
    this.#state = ready
    this.#isDirty = false
  }

  async #writeState(state?: BundleState): Promise<void> {
    // layers that are extracted at the same time claim at the same time
    const write = this.#written.then(async () => {
      const text = `${JSON.stringify(state ?? this.#state, undefined, 2)}\n`
      await publishFile(path.join(this.path, kociFile), text)
    })
    this.#written = write.catch(() => {})
    await write
  }

  async #remove(name: string): Promise<void> {
    await rm(path.join(this.path, name), { force: true })
  }
}

function unpacking(created: readonly string[] = [], mode?: number): UnpackingState {
  return { version: 1, state: 'unpacking', created, ...(mode === undefined ? {} : { mode }) }
}

/** What a bundle made by umoci amounts to. */
function foreign(): ReadyState {
  return {
    version: 1,
    state: 'ready',
    chain: [],
    layering: 'merged',
    dialect: 'plain',
    drivers: {},
  }
}

function isDirectory(target: string): boolean {
  return lstatSync(target, { throwIfNoEntry: false })?.isDirectory() ?? false
}

async function readState(directory: string): Promise<BundleState | undefined> {
  const file = path.join(directory, kociFile)
  const bytes = await readOwnFile(file)
  return bytes && parseBundleState(bytes, file)
}

async function assertUnused(directory: string): Promise<void> {
  for (const name of [...occupied, kociFile])
    if (await exists(path.join(directory, name)))
      throw createError('CLOBBER', {
        subject: path.join(directory, name),
        remedy: 'unpack into another directory, or remove this bundle first',
      })
}
