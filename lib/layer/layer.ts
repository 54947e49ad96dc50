// One layer of the image at hand: what it is, where its bytes come from, where it is to go, where it went.
import type { LayerRecordSummary } from '../bundle/layer-record.ts'
import type { TreeRecord } from '../bundle/record.ts'
import { createError } from '../errors.ts'
import type { BlobLocation } from '../layout/regular-file.ts'
import type { Compression } from '../oci/media-type.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import type { Dialect } from './extraction.ts'
import type { Digest } from '../oci/digest.ts'
import type { TarEntry } from './entries.ts'

/** What the image says about a layer. */
export interface LayerDescription {
  readonly descriptor: Descriptor
  readonly diffID: Digest
  readonly chainID: Digest
  readonly compression: Compression
}

/**
 * A layer's bytes from somewhere else than the layout: another store, a decrypted stream.
 * The blob's digest can't be checked then; the DiffID always is.
 */
export interface ReplacedSource {
  /** Called at most once per reading. */
  readonly open: () => AsyncIterable<Uint8Array>
  readonly compression: Compression
}

/** Where a layer has been put, and on whose word. */
export interface Placement {
  /** A directory that holds this layer alone. Absent: it is in the rootfs already. */
  readonly dir?: string
  /** The driver that placed it. */
  readonly by: string
  /** Whether the DiffID was verified for what is there, now or when it was stored. */
  readonly verified: boolean
  readonly report?: LayerReport | undefined
  /** How whiteouts are stored in `dir`. @default that of the run, or the one in which this process stores layers */
  readonly dialect?: Dialect | undefined
  /** Reads what is recorded of the directory, if whoever placed the layer has a record; undefined if it turns out to be unfit. */
  readonly loadRecord?: (() => Promise<TreeRecord | undefined>) | undefined
  /**
   * Others use the directory, too, now or later: nothing in it may ever be changed.
   * @default false
   */
  readonly shared?: boolean | undefined
}

/** What extraction found out about a layer; JSON, so that a store can keep it with the layer. */
export interface LayerReport {
  readonly entries: number
  /** Bytes of the uncompressed tar. */
  readonly bytes: number
  /** Logical bytes of its files. */
  readonly fileBytes?: number | undefined
  /** What could not be stored as the layer has it; it might be, with more privilege or on another file system. */
  readonly degraded?: readonly LayerWarning[] | undefined
  /** For a layer in a directory of its own. */
  readonly stacking?: StackingReport | undefined
  /** Why it was extracted on top of those below it, if it was: what is there holds for its ChainID only. */
  readonly needsBelow?: string | undefined
}

/** Something an extraction dealt with, and how often. */
export interface LayerWarning {
  readonly code: string
  /** With the first case. */
  readonly message: string
  readonly count: number
}

/**
 * What a layer that was extracted alone takes for granted about the layers below it. Paths are bytes as latin1, relative
 * to the root, parents before what is in them.
 */
export interface StackingReport {
  /** It has an entry for the image's root. */
  readonly root: boolean
  /** Its root is opaque: nothing below the layer is visible. overlayfs heeds that nowhere but in the upper layer. */
  readonly opaque: boolean
  /**
   * Directories that were made without an entry where a lower layer might have something, in the order they were made;
   * also those that got an entry, or were replaced, later. The layer can't be extracted alone if one is a symlink below.
   */
  readonly implied: readonly string[]
  /** Directories without an entry, in the end, that show mode, owner, attributes and times of the layers below. */
  readonly missing: readonly string[]
  /** Of these, the ones that are there only for the sake of whiteouts: without lower ones they wouldn't exist. */
  readonly hollow: readonly string[]
  /**
   * With `keepDirlinks`: directories that were made for their entries where a lower layer might have something, as
   * `implied`. The layer can't be extracted alone if one is a symlink to a directory below.
   */
  readonly entries?: readonly string[] | undefined
}

/** How far an extraction is. */
export interface LayerProgress {
  /** Bytes of the blob that have been read, of `layer.size`. */
  readonly read: number
  readonly entries: number
}

/** One layer, as `ctx.layer` and in `ctx.layers`. */
export class Layer {
  /** 0 is the base. */
  readonly index: number
  readonly descriptor: Descriptor
  /** Of the uncompressed tar. */
  readonly diffID: Digest
  /** Of this layer on top of all below it. */
  readonly chainID: Digest
  readonly compression: Compression
  /** Set it before `next()` of `layer` to have the bytes read from elsewhere. */
  source: ReplacedSource | undefined
  /** Set it before `next()` of `layer`: an existing, empty directory to extract into instead of the rootfs. */
  target: string | undefined
  /** How whiteouts are stored in `target`. @default the dialect of the run */
  dialect: Dialect | undefined
  /**
   * Set it together with `target`: a file, not in it, that is made with the record of what was extracted. Costs the hashes
   * and a walk, both of them in the worker. `recorded` then tells what it holds.
   */
  recordTo: string | undefined
  recorded: LayerRecordSummary | undefined
  /** The name under which a store has it, or would keep it; for people. */
  key: string | undefined
  #placed: Placement | undefined
  #extracted = false
  #needsBelow: string | undefined
  readonly #taints: string[] = []
  readonly #locate: () => Promise<BlobLocation>
  #progress: () => LayerProgress = () => ({ read: 0, entries: 0 })

  /** `locate` finds the blob in the layout; it isn't called for a layer that is found elsewhere. */
  constructor(
    index: number,
    description: LayerDescription,
    locate: () => Promise<BlobLocation>,
  ) {
    this.index = index
    this.descriptor = description.descriptor
    this.diffID = description.diffID
    this.chainID = description.chainID
    this.compression = description.compression
    this.#locate = locate
  }

  /** Of the blob, compressed as it is. */
  get digest(): Digest {
    return this.descriptor.digest
  }

  /** Bytes of the blob. */
  get size(): number {
    return this.descriptor.size
  }

  get placed(): Placement | undefined {
    return this.#placed
  }

  /**
   * Why the layer can't be extracted alone: it depends on what is below it in this image. It is extracted once more then,
   * in order, and what comes of it holds for its ChainID only.
   */
  get needsBelow(): string | undefined {
    return this.#needsBelow
  }

  /** Why the extracted tree isn't just the layer any more; a store keeps only what is untainted. */
  get taints(): readonly string[] {
    return this.#taints
  }

  get progress(): LayerProgress {
    return this.#progress()
  }

  /**
   * Says where the layer is. Whoever calls this in `locate` doesn't call `next()`.
   * @throws {ConflictError} ERR_KOCI_CLOBBER if the layer has a place already.
   */
  place(placement: Placement): void {
    if (this.#placed)
      throw createError('CLOBBER', {
        subject: `place of layer ${this.digest}`,
        remedy: `${this.#placed.by} placed it; ${placement.by} must not place it again`,
      })
    this.#placed = placement
  }

  /** For the end of the chain: it extracted the layer itself, just now. */
  placeExtracted(placement: Placement): void {
    this.place(placement)
    this.#extracted = true
  }

  /** Whether the end of the chain extracted and verified it in this run, rather than that somebody placed it. */
  get extracted(): boolean {
    return this.#extracted
  }

  /**
   * For whoever set the `target`: what was extracted into it is somewhere else now. `more` is what else is different.
   */
  move(
    dir: string,
    by: string,
    more: Pick<Placement, 'loadRecord' | 'report' | 'shared'> = {},
  ): void {
    if (this.#placed) this.#placed = { ...this.#placed, ...more, dir, by }
  }

  /** For the runner: the layer is to be extracted (again) on top of those below it. */
  reopen(needsBelow: string): void {
    this.#needsBelow = needsBelow
    this.#placed = undefined
    this.#extracted = false
    this.target = undefined
    this.dialect = undefined
    this.recordTo = undefined
    this.recorded = undefined
  }

  /**
   * To be called by whoever changes the tree after extraction, and before doing so: before `next()` of `layer`, or after it
   * further in than whoever keeps layers.
   * @throws {UsageError} ERR_KOCI_LAYER_SHARED if the tree is shared with others already
   */
  taint(reason: string): void {
    if (this.#placed?.shared === true) {
      const { by } = this.#placed
      throw createError('LAYER_SHARED', { subject: `layer ${this.digest}`, by, reason })
    }
    this.#taints.push(reason)
  }

  /** The blob's place on disk. Its size was checked, its digest wasn't. */
  locateBlob(): Promise<BlobLocation> {
    return this.#locate()
  }

  /**
   * The uncompressed tar, verified: the stream fails at its end if digest or DiffID don't fit.
   * Act on what it yields only after it ended, or in a place that can be thrown away.
   */
  open(): AsyncIterable<Buffer> {
    return openLater(this)
  }

  /** The entries of the layer with their bodies, names as bytes; verified as {@link Layer.open} is. */
  entries(): AsyncIterable<TarEntry> {
    return readLater(this.open(), `layer ${this.digest}`)
  }

  /** For whoever extracts: where progress is read from. */
  reportProgress(progress: () => LayerProgress): void {
    this.#progress = progress
  }

  toJSON(): Record<string, unknown> {
    const { index, digest, size, diffID, chainID, compression, placed } = this
    return { index, digest, size, diffID, chainID, compression, placed }
  }
}

// the many modules that read a layer in this thread are loaded by whoever does

async function* openLater(layer: Layer): AsyncGenerator<Buffer> {
  const { openLayer } = await import('./open-layer.ts')
  yield* openLayer(layer)
}

async function* readLater(
  bytes: AsyncIterable<Buffer>,
  subject: string,
): AsyncGenerator<TarEntry> {
  const { readEntries } = await import('./entries.ts')
  yield* readEntries(bytes, { subject })
}
