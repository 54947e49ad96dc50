// A store on disk: `layers/<name>/tree` and `…/record`, complete only with `layers/<name>.json`; `locks/<name>`, shared by
// those who use a layer, exclusive for who makes or removes it; `staging/`; `leases/`.
import {
  accessSync,
  constants,
  mkdirSync,
  readdirSync,
  rmSync,
  utimesSync,
  statSync,
} from 'node:fs'
import { rename } from 'node:fs/promises'
import path from 'node:path'
import type { TreeRecord } from '../../lib/bundle/record.ts'
import { createError, isError, wrapError } from '../../lib/errors.ts'
import { tryLock, type Lock } from '../../lib/fs/lock.ts'
import {
  AT_FDCWD,
  close,
  cstring,
  O_DIRECTORY,
  O_RDONLY,
  open,
  RENAME_NOREPLACE,
  renameat2,
} from '../../lib/fs/libc.ts'
import { removeTree } from '../../lib/fs/walk.ts'
import { encodeCompletion, isTrusted, readCompletion, type Completion } from './completion.ts'
import { findStore, makeStore } from './directory.ts'
import { isDirectory, isMissing, syncDirectory, writeNew } from './files.ts'
import { isSeenAlike, nameOfKey, type LayerKey } from './key.ts'
import { placeToRemove, reclaimStaging, Staging } from './staging.ts'
import { Syncer } from './syncer.ts'

/** What names look like, of layers and of leases. */
export const namePattern: RegExp = /^[0-9a-f]{32}$/

const touchEveryMs = 3_600_000

/** An open store. */
export class Store {
  /** The versioned directory, links followed. */
  readonly path: string
  /** Whether layers can be added and removed. One that can't be written to is still used. */
  readonly writable: boolean
  #syncer: Syncer | undefined
  #isReclaimed = false

  private constructor(directory: string) {
    this.path = directory
    this.writable = isWritable(directory)
  }

  /** Opens a store, and makes it if there is none. @throws what `makeStore` throws */
  static make(dir: string): Store {
    return new Store(makeStore(dir))
  }

  /** Opens a store; undefined if there is none. @throws what `findStore` throws */
  static find(dir: string): Store | undefined {
    const found = findStore(dir)
    return found === undefined ? undefined : new Store(found)
  }

  /** The directory of a layer: its tree, and its record. */
  layer(name: string): string {
    return path.join(this.path, 'layers', name)
  }

  /** Where the tree of a layer is. */
  tree(name: string): string {
    return path.join(this.path, 'layers', name, 'tree')
  }

  /** The file with the record of a layer. */
  record(name: string): string {
    return path.join(this.path, 'layers', name, 'record')
  }

  /** The completion record of a layer. */
  completion(name: string): string {
    return path.join(this.path, 'layers', `${name}.json`)
  }

  /** The lease of this name. */
  lease(name: string): string {
    return path.join(this.path, 'leases', `${name}.json`)
  }

  /** The name in `layers/` under which a file is stored, if it is a layer's tree. */
  nameOf(dir: string | undefined): string | undefined {
    const name = dir === undefined ? '' : path.basename(path.dirname(dir))
    return dir === this.tree(name) ? name : undefined
  }

  /** A layer that is complete, and trusted; undefined otherwise. Only what holds its lock can rely on it. */
  look(name: string): Completion | undefined {
    const found = readCompletion(this.completion(name))
    return found && isTrusted(found) && isDirectory(this.tree(name)) ? found : undefined
  }

  /** As `look`, and only if it is what the key says. */
  lookUp(key: LayerKey): Completion | undefined {
    const found = this.look(nameOfKey(key))
    return found && JSON.stringify(found.key) === JSON.stringify(key) ? found : undefined
  }

  /** Whether a layer may be complete: to be asked before its lock is taken. */
  has(name: string): boolean {
    return statSync(this.completion(name), { throwIfNoEntry: false }) !== undefined
  }

  /** The names of all layers that are, or once were, complete. */
  names(): string[] {
    return this.#layers()
      .filter(name => name.endsWith('.json') && namePattern.test(name.slice(0, -5)))
      .map(name => name.slice(0, -5))
      .sort()
  }

  /** As `names`, and those of which there is something else only: a layer that isn't complete, or isn't any more. */
  allNames(): string[] {
    const found = this.#layers().map(name => name.slice(0, 32))
    return [...new Set(found)].filter(name => namePattern.test(name)).sort()
  }

  /** When a layer was used last, in milliseconds since 1970; undefined if it was removed meanwhile. */
  usedMs(name: string): number | undefined {
    return statSync(this.completion(name), { throwIfNoEntry: false })?.mtimeMs
  }

  /** What is in `layers/`; nothing where somebody is just making the store. */
  #layers(): string[] {
    try {
      return readdirSync(path.join(this.path, 'layers'))
    } catch (error) {
      if (isMissing(error)) return []
      throw error
    }
  }

  /** What was recorded of a layer when it was stored; undefined if the record doesn't fit any more, or not here. */
  async load(name: string, found: Completion): Promise<TreeRecord | undefined> {
    if (!isSeenAlike(found)) return undefined
    const { diffID, record } = found
    const { readLayerRecord } = await import('../../lib/bundle/layer-record.ts')
    try {
      return await readLayerRecord(this.record(name), diffID, record)
    } catch (error) {
      if (isError(error, 'INVALID_STORE') || isMissing((error as Error).cause)) return undefined
      throw error
    }
  }

  /** @throws {UnsupportedError} ERR_KOCI_READ_ONLY */
  assertWritable(): void {
    if (this.writable) return
    const reason = 'nothing can be written there, so that nothing can be removed'
    throw createError('READ_ONLY', { subject: this.path, reason })
  }

  /** The file whose lock is the layer's. */
  lockFile(name: string): string {
    return path.join(this.path, 'locks', name)
  }

  /** Takes the lock of a layer if it is free. In a store that can't be written to nobody removes anything: any lock will do. */
  tryLock(name: string, options: { shared: boolean }): Lock | undefined {
    const file = this.lockFile(name)
    if (this.writable) return tryLock(file, options)
    try {
      return tryLock(file, { ...options, create: false })
    } catch {
      return { path: file, share: () => true, release() {}, [Symbol.dispose]() {} }
    }
  }

  /** Notes that a layer was used; at most once an hour, and only if it can be. */
  touch(name: string): void {
    try {
      const file = this.completion(name)
      const now = Date.now()
      if (Math.abs(now - statSync(file).mtimeMs) < touchEveryMs) return
      utimesSync(file, now / 1000, now / 1000)
    } catch {
      // then it looks older than it is
    }
  }

  /** A private directory; the first one of a run also removes what dead processes left. */
  async stage(): Promise<Staging> {
    const parent = path.join(this.path, 'staging')
    // opened before anything is written, so that no error is missed
    this.#syncer ??= new Syncer(this.path)
    if (!this.#isReclaimed) {
      this.#isReclaimed = true
      await reclaimStaging(parent)
    }
    return Staging.make(parent)
  }

  /** Puts a file in its place, whole or not at all. */
  async write(file: string, text: string, durable: boolean): Promise<void> {
    try {
      using staging = await this.stage()
      const temporary = path.join(staging.path, 'file')
      await writeNew(temporary, text, durable)
      await rename(temporary, file)
      if (durable) await syncDirectory(path.dirname(file))
    } catch (error) {
      throw wrapError(error, file)
    }
  }

  /**
   * Publishes what is in `<staging>/layer`. The caller holds the exclusive lock of the name. Until the very last rename it
   * doesn't exist for anybody.
   */
  async publish(staging: Staging, name: string, completion: Completion): Promise<void> {
    const { durable } = completion
    const layers = path.join(this.path, 'layers')
    const inner = path.join(staging.path, 'layer')
    const record = path.join(staging.path, 'complete')
    try {
      await writeNew(record, encodeCompletion(completion), false)
      if (durable) await this.#syncer?.sync()
      await this.retire(name)
      move(inner, path.join(layers, name))
      if (durable) await syncDirectory(layers)
      await rename(record, this.completion(name))
      if (durable) await syncDirectory(layers)
    } catch (error) {
      throw wrapError(error, path.join(layers, name))
    }
  }

  /** Removes a layer, or what is left of one. The caller holds its exclusive lock; while it is mounted its files stay. */
  async retire(name: string): Promise<void> {
    rmSync(this.completion(name), { force: true })
    const directory = path.join(this.path, 'layers', name)
    if (!isDirectory(directory)) return
    const parent = path.join(this.path, 'staging')
    await rename(directory, placeToRemove(parent, name))
    await reclaimStaging(parent)
  }

  /** To be called when nothing of the run is under way any more. */
  close(): void {
    this.#syncer?.close()
    this.#syncer = undefined
  }
}

/** Where a layer is while it is extracted. */
export interface LayerFiles {
  readonly tree: string
  readonly record: string
}

/** Makes `<staging>/layer`, for the tree and its record. */
export function makeLayerDirectory(staging: Staging): LayerFiles {
  const inner = path.join(staging.path, 'layer')
  mkdirSync(inner, 0o700)
  return { tree: path.join(inner, 'tree'), record: path.join(inner, 'record') }
}

/** Removes whatever drivers put beside the tree while they worked on it. */
export function clearLayerDirectory(staging: Staging): void {
  const inner = path.join(staging.path, 'layer')
  const fd = open(inner, O_RDONLY | O_DIRECTORY)
  try {
    for (const name of readdirSync(inner, { encoding: 'buffer' }))
      if (!['tree', 'record'].includes(name.toString())) removeTree(fd, cstring(name))
  } finally {
    close(fd)
  }
}

function move(from: string, to: string): void {
  renameat2(AT_FDCWD, cstring(from), AT_FDCWD, cstring(to), RENAME_NOREPLACE)
}

function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK)
    return true
  } catch {
    return false
  }
}
