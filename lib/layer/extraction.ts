// How the layers of a run are put on disk. Middleware decides it in `unpack`, before `next()`; then it is sealed,
// so that no store looks a layer up under one key and extracts it under another.
import { createError } from '../errors.ts'
import { assertIdMap, type IdMap } from '../oci/idmap.ts'
import type { FileHashes } from './file-hashes.ts'

/** How a rootfs is made: layers applied in order into one tree, or each into a directory of its own. */
export type Layering = 'merged' | 'stacked'

/** How whiteouts are stored: carried out (`plain`), or as overlayfs has them, in that xattr namespace. */
export type Dialect = 'plain' | 'overlay-trusted' | 'overlay-user'

/** What the user asked for about owners and links, as umoci's flags of the same names. */
export interface Mapping {
  /** Undefined means identity. */
  readonly uidMap?: readonly IdMap[] | undefined
  readonly gidMap?: readonly IdMap[] | undefined
  readonly rootless?: boolean | undefined
  /** A directory entry over a symlink to a directory keeps the link. */
  readonly keepDirlinks?: boolean | undefined
  /** `clamp`: names that climb above the root stop there, as in umoci, instead of being errors. */
  readonly compat?: 'clamp' | undefined
}

/** Everything but the layers' bytes that decides what extraction leaves on disk; a store's key covers all of it. */
export class Extraction {
  readonly uidMap: readonly IdMap[] | undefined
  readonly gidMap: readonly IdMap[] | undefined
  readonly rootless: boolean
  readonly keepDirlinks: boolean
  readonly compat: 'clamp' | undefined
  #layering: Layering = 'merged'
  #dialect: Dialect = 'plain'
  #chosenBy: string | undefined
  #sealed = false
  #recalled: readonly string[] | undefined
  /** Each with the first driver that declared it. */
  readonly #variants = new Map<string, string>()
  #hashes: FileHashes | undefined

  /** @throws {UsageError} ERR_KOCI_INVALID_OPTION for an id map that can't be, or an unknown `compat` */
  constructor(mapping: Mapping = {}) {
    this.rootless = mapping.rootless ?? false
    this.uidMap = mapping.uidMap ?? this.#ownMap(process.geteuid?.())
    this.gidMap = mapping.gidMap ?? this.#ownMap(process.getegid?.())
    this.keepDirlinks = mapping.keepDirlinks ?? false
    this.compat = mapping.compat
    if (this.compat !== undefined && this.compat !== 'clamp')
      throw createError('INVALID_OPTION', {
        subject: `compat ${String(this.compat)}`,
        reason: 'there is only clamp',
      })
    for (const map of [...(this.uidMap ?? []), ...(this.gidMap ?? [])]) assertIdMap(map)
  }

  get layering(): Layering {
    return this.#layering
  }

  get dialect(): Dialect {
    return this.#dialect
  }

  /** The driver that chose, if one did; the bundle needs it from then on. */
  get chosenBy(): string | undefined {
    return this.#chosenBy
  }

  /** What middleware changes about the result, sorted. */
  get variants(): readonly string[] {
    return [...this.#variants.keys()].sort()
  }

  /** Who declared them. */
  get variantsBy(): readonly string[] {
    return [...new Set(this.#variants.values())]
  }

  /**
   * The drivers that declared the variants, where these come from a bundle and not from the chain at hand: nobody
   * vouches for what is extracted now being what they name. Undefined where there are none, or they were declared.
   */
  get recalled(): readonly string[] | undefined {
    return this.#recalled
  }

  /** Where the hashes of files go while they are written; undefined if nobody wants them. */
  get hashes(): FileHashes | undefined {
    return this.#hashes
  }

  /**
   * Chooses how the rootfs is made, in the name of a driver. Choosing the same again is fine.
   * @throws {UsageError} ERR_KOCI_LAYERING_CONFLICT if another driver chose differently; ERR_KOCI_FROZEN after
   * the layers were looked up.
   */
  choose(by: string, layering: Layering, dialect: Dialect): void {
    this.#assertOpen(by)
    if (
      this.#chosenBy !== undefined &&
      (this.#layering !== layering || this.#dialect !== dialect)
    )
      throw createError('LAYERING_CONFLICT', {
        subject: by,
        wanted: `${layering} layers (${dialect})`,
        other: this.#chosenBy,
        chosen: `${this.#layering} layers (${this.#dialect})`,
      })
    this.#chosenBy ??= by
    this.#layering = layering
    this.#dialect = dialect
  }

  /**
   * Declares, in the name of a driver, that it changes what extraction yields: stores keep the result apart, and whoever
   * extracts a layer of the bundle again needs that driver.
   * @throws {UsageError} ERR_KOCI_INVALID_OPTION without a name of either; ERR_KOCI_FROZEN after the layers were looked up
   */
  addVariant(by: string, variant: string): void {
    this.#assertOpen(variant)
    if (!by || !variant)
      throw createError('INVALID_OPTION', {
        subject: 'addVariant',
        reason: 'it takes the name of the driver and that of the variant',
      })
    if (!this.#variants.has(variant)) this.#variants.set(variant, by)
  }

  /** For the runner: variants that a bundle remembers. */
  recall(variants: readonly string[], drivers: readonly string[]): void {
    if (variants.length === 0) return
    for (const variant of variants) this.#variants.set(variant, 'the bundle')
    this.#recalled = drivers
  }

  /** Asks for the contents of files to be hashed while they are written: costs time per byte, spares a second reading. */
  hashFiles(hashes: FileHashes): FileHashes {
    this.#assertOpen('hashFiles')
    this.#hashes ??= hashes
    return this.#hashes
  }

  /** From here on nothing can be changed. Called by the runner before layers are looked up. */
  seal(): void {
    this.#sealed = true
  }

  toJSON(): Record<string, unknown> {
    const { layering, dialect, chosenBy, variants, rootless, keepDirlinks, compat } = this
    const { uidMap, gidMap } = this
    return {
      layering,
      dialect,
      chosenBy,
      variants,
      rootless,
      keepDirlinks,
      compat,
      uidMap,
      gidMap,
    }
  }

  /** Rootless and without maps, the user is root in the container, as umoci has it. */
  #ownMap(hostID = 0): readonly IdMap[] | undefined {
    return this.rootless ? [{ containerID: 0, hostID, size: 1 }] : undefined
  }

  #assertOpen(subject: string): void {
    if (this.#sealed) throw createError('TOO_LATE', { subject })
  }
}
