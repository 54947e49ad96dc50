// What the driver has in a bundle: `overlay/` with upper and work directory, seams, and the layers that no store keeps.
// koci.json says which of it counts; whatever else is there was left by a run that died, and isn't trusted.
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import type { Bundle } from '../../lib/bundle/bundle.ts'
import { createError, wrapError } from '../../lib/errors.ts'
import { close, cstring, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, open } from '../../lib/fs/libc.ts'
import { unmount } from '../../lib/fs/mount.ts'
import { findMounts } from '../../lib/fs/mount-table.ts'
import { removeTree } from '../../lib/fs/walk.ts'
import type { Layer, LayerReport } from '../../lib/layer/layer.ts'

/** The driver's name, under which the bundle keeps its state. */
export const driverName = 'overlay'

interface State {
  /** The number of the upper directory; a refresh begins a new one. */
  readonly upper: number
  /** Layers that are in the bundle. */
  readonly layers: readonly string[]
  /** By what they are right above; false where none is needed. */
  readonly seams: Readonly<Record<string, boolean>>
}

/** The driver's part of one bundle, for one run. */
export class Home {
  /** This run unmounted the rootfs: what lies beneath had been hidden before. */
  isTakenDown = false
  readonly #bundle: Bundle
  #upper: number
  /** The number that is on disk. */
  readonly recordedUpper: number
  readonly #layers: Set<string>
  readonly #seams: Map<string, boolean>
  /** Extractions into the bundle that have begun, so that the same layer twice in an image is extracted once. */
  readonly extractions: Map<string, Promise<unknown>> = new Map()

  /** @throws {FormatError} ERR_KOCI_INVALID_BUNDLE if what koci.json says can't be */
  constructor(bundle: Bundle) {
    this.#bundle = bundle
    const { upper, layers, seams } = parseState(bundle)
    this.#upper = upper
    this.recordedUpper = upper
    this.#layers = new Set(layers)
    this.#seams = new Map(Object.entries(seams))
  }

  get path(): string {
    return path.join(this.#bundle.path, driverName)
  }

  /** Where changes go. */
  get upper(): string {
    return path.join(this.path, `upper-${this.#upper}`)
  }

  /** What overlayfs needs beside it. */
  get work(): string {
    return path.join(this.path, `work-${this.#upper}`)
  }

  /** A directory in which nothing is. */
  get empty(): string {
    return path.join(this.path, 'empty')
  }

  /** A directory at which something can be mounted for a moment. What hangs there was left by a run that died. */
  spare(): string {
    const directory = path.join(this.path, 'spare')
    if (!existsSync(directory)) this.#makeDirectory(directory)
    for (const _ of findMounts(directory)) unmount(directory)
    return directory
  }

  /** The number of the upper directory; changing it says from the next commit on which one counts. */
  get upperNumber(): number {
    return this.#upper
  }

  set upperNumber(value: number) {
    this.#upper = value
    this.#keep()
  }

  /** Makes what all the rest is in. The name must have been claimed. */
  make(): void {
    try {
      for (const each of [
        this.path,
        path.join(this.path, 'layers'),
        path.join(this.path, 'seams'),
      ])
        mkdirSync(each, { mode: 0o700 })
      mkdirSync(this.empty, { mode: 0o755 })
    } catch (error) {
      throw wrapError(error, this.path)
    }
    this.#keep()
  }

  /** What is known of a layer that is in the bundle; undefined if it isn't. */
  layerReport(key: string): LayerReport | undefined {
    if (!this.#layers.has(key)) return undefined
    try {
      return JSON.parse(readFileSync(this.#reportFile(key), 'utf8')) as LayerReport
    } catch {
      // it can be extracted again
      return undefined
    }
  }

  layerDirectory(key: string): string {
    return path.join(this.path, 'layers', key)
  }

  /** Makes an empty directory for a layer; what is there under its name was left by a run that died. */
  makeLayer(key: string): string {
    const directory = this.layerDirectory(key)
    this.remove('layers', key)
    this.#makeDirectory(directory)
    return directory
  }

  /** A layer is complete. */
  keepLayer(key: string, report: LayerReport): void {
    try {
      writeFileSync(this.#reportFile(key), JSON.stringify(report), { mode: 0o600 })
    } catch (error) {
      throw wrapError(error, this.#reportFile(key))
    }
    this.#layers.add(key)
    this.#keep()
  }

  /** The seam of this key; false if none is needed, undefined if that isn't known. */
  seam(key: string): string | false | undefined {
    const isThere = this.#seams.get(key)
    return isThere === true ? this.#seamDirectory(key) : isThere
  }

  /** Has a seam made, or found unnecessary; `make` gives whether it used the directory that it can have made. */
  makeSeam(key: string, make: (directory: () => string) => boolean): string | false {
    this.remove('seams', key)
    const isNeeded = make(() => {
      this.#makeDirectory(this.#seamDirectory(key))
      return this.#seamDirectory(key)
    })
    this.#seams.set(key, isNeeded)
    this.#keep()
    return isNeeded && this.#seamDirectory(key)
  }

  /** Numbers of all upper directories that are there. */
  upperNumbers(): number[] {
    return readdirSync(this.path).flatMap(name => {
      const number = /^upper-(\d+)$/.exec(name)?.[1]
      return number === undefined ? [] : [Number(number)]
    })
  }

  /** Whether an upper directory can hold what somebody did in it: it has a work directory, then. */
  wasMounted(number: number): boolean {
    return existsSync(path.join(this.path, `work-${number}`))
  }

  /**
   * Notes which directories are going to be mounted. It doesn't matter enough for a full disk to keep anybody from a bundle, in
   * which something may be to be removed.
   */
  noteLowers(dirs: readonly string[]): void {
    const noted = dirs.map(dir => {
      const inside = path.relative(this.path, dir)
      // the bundle can be moved
      return { dir: isOutside(inside) ? dir : inside, is: identify(dir) }
    })
    try {
      writeFileSync(this.#lowersFile, JSON.stringify(noted), { mode: 0o600 })
    } catch {
      rmSync(this.#lowersFile, { force: true })
    }
  }

  /**
   * Whether the directories that were noted last are still there, and not others by their names; true if that isn't known.
   * Of a store that was moved, `layers` says where they are now.
   */
  hasLowers(layers: readonly Layer[]): boolean {
    try {
      const noted = JSON.parse(readFileSync(this.#lowersFile, 'utf8')) as unknown
      if (!Array.isArray(noted)) return true
      const isThere = ({ dir, is }: { dir: string; is: string }): boolean =>
        identify(path.resolve(this.path, dir)) === is
      const gone = noted.filter(each => !isThere(each))
      if (gone.length === 0) return true
      const moved = new Set(layers.map(({ placed }) => placed?.dir && identify(placed.dir)))
      return gone.every(({ is }) => is !== '' && moved.has(is))
    } catch {
      return true
    }
  }

  /** Removes an upper directory, and the work directory beside it. */
  removeUpper(number: number): void {
    this.remove(`upper-${number}`)
    this.remove(`work-${number}`)
  }

  /** Removes what is under these names; nothing there is no error. */
  remove(...names: readonly string[]): void {
    const directory = path.join(this.path, ...names.slice(0, -1))
    try {
      const fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
      try {
        removeTree(fd, cstring(names.at(-1) ?? ''))
      } finally {
        close(fd)
      }
    } catch (error) {
      throw wrapError(error, path.join(directory, names.at(-1) ?? ''))
    }
  }

  get #lowersFile(): string {
    return path.join(this.path, 'lowers')
  }

  #makeDirectory(directory: string): void {
    try {
      mkdirSync(directory, { mode: 0o755 })
    } catch (error) {
      throw wrapError(error, directory)
    }
  }

  #seamDirectory(key: string): string {
    return path.join(this.path, 'seams', key)
  }

  #reportFile(key: string): string {
    return `${this.layerDirectory(key)}.json`
  }

  #keep(): void {
    const state: State = {
      upper: this.#upper,
      layers: [...this.#layers],
      seams: Object.fromEntries(this.#seams),
    }
    this.#bundle.keep(driverName, state)
  }
}

function isOutside(relative: string): boolean {
  return relative === '..' || relative.startsWith(`..${path.sep}`)
}

/** What tells a directory from another one that has, or had, the same name; not every file system knows when it was made. */
function identify(dir: string): string {
  const stat = lstatSync(dir, { bigint: true, throwIfNoEntry: false })
  return stat ? `${stat.ino} ${stat.birthtimeNs || stat.ctimeNs}` : ''
}

/** The name of a layer's directory: what is in one that needs those below it holds for this image alone. */
export function layerKey({ diffID, chainID, needsBelow }: Layer): string {
  return keyOf(needsBelow === undefined ? diffID : `${chainID}-chain`)
}

/** A digest as a name. */
export function keyOf(digest: string): string {
  return digest.replace(':', '-')
}

function parseState(bundle: Bundle): State {
  const state = (bundle.recall(driverName) ?? { upper: 1, layers: [], seams: {} }) as State
  const isKey = (key: unknown): boolean => typeof key === 'string' && /^[\w-]+$/.test(key)
  const isValid =
    typeof state === 'object' &&
    Number.isSafeInteger(state.upper) &&
    state.upper > 0 &&
    Array.isArray(state.layers) &&
    state.layers.every(isKey) &&
    typeof state.seams === 'object' &&
    state.seams !== null &&
    Object.entries(state.seams).every(
      ([key, value]) => isKey(key) && typeof value === 'boolean',
    )
  if (isValid) return state
  throw createError('INVALID_BUNDLE', {
    subject: bundle.path,
    reason: `what koci.json says of ${driverName} is malformed`,
  })
}
