// One layer of the image at hand: what it is, where its bytes come from, where it is to go, where it went.
import { createError } from '../errors.ts'
import type { BlobLocation } from '../layout/regular-file.ts'
import type { Compression } from '../oci/media-type.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import { readEntries, type TarEntry } from './entries.ts'
import { openLayer } from './open-layer.ts'

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
}

/** What extraction counted. */
export interface LayerReport {
  readonly entries: number
  /** Bytes of the uncompressed tar. */
  readonly bytes: number
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
  #placed: Placement | undefined
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

  /** To be called by whoever changes the tree after extraction. */
  taint(reason: string): void {
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
    return openLayer(this)
  }

  /** The entries of the layer with their bodies, names as bytes; verified as {@link Layer.open} is. */
  entries(): AsyncIterable<TarEntry> {
    return readEntries(this.open())
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
