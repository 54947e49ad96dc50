// Reads everything in a layout and says everything that is wrong with it, not only the first thing. What was reported once
// isn't reported again for every image that has it.
import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { createError, isError, wrapError, type KociError } from '../errors.ts'
import { Layer } from '../layer/layer.ts'
import { chainIDs } from '../oci/chain-id.ts'
import { describe, type Descriptor } from '../oci/descriptor.ts'
import { algorithmOf, parseDigest, type Digest } from '../oci/digest.ts'
import { parseImageConfig } from '../oci/image-config.ts'
import { parseIndex, parseManifest, type Manifest } from '../oci/manifest.ts'
import { isConfigType, isIndexType, isManifestType, layerFormat } from '../oci/media-type.ts'
import type { ImageLayout } from './image-layout.ts'
import { hashLocation } from './regular-file.ts'

/** How much was looked at. */
export interface LayoutReport {
  /** Indexes and manifests. */
  readonly documents: number
  /** Layers whose content was compared with its DiffID, and read as a tar. */
  readonly layers: number
  /** All blobs that were read. */
  readonly blobs: number
  /** Those that nothing leads to. */
  readonly unused: number
  readonly problems: readonly KociError[]
}

/** What to do meanwhile. */
export interface VerifyOptions {
  readonly signal?: AbortSignal | undefined
  /** Told of each problem as it is found. */
  readonly onProblem?: ((problem: KociError) => void) | undefined
  /** Told of how many blobs were begun, after each. */
  readonly onProgress?: ((blobs: number) => void) | undefined
}

/**
 * Verifies a layout: every descriptor from index.json down, size and digest of every blob, structure of indexes, manifests
 * and configs, DiffIDs and tars of layers; and the blobs that nothing leads to.
 * @throws {SystemError} ERR_KOCI_ABORTED; whatever keeps index.json from being read
 */
export function verifyLayout(
  layout: ImageLayout,
  options: VerifyOptions = {},
): Promise<LayoutReport> {
  return new Verification(layout, options).run()
}

class Verification {
  readonly #layout: ImageLayout
  readonly #options: VerifyOptions
  readonly #problems: KociError[] = []
  /** What was looked at already, by what it is to be. */
  readonly #done = new Set<string>()
  readonly #blobs = new Set<Digest>()
  readonly #told = new Set<string>()
  #documents = 0
  #layers = 0

  constructor(layout: ImageLayout, options: VerifyOptions) {
    this.#layout = layout
    this.#options = options
  }

  async run(): Promise<LayoutReport> {
    const pending = await this.#layout.roots()
    for (let next = pending.shift(); next; next = pending.shift()) {
      const descriptor = next
      await this.#attempt(async () => {
        if (this.#isDone('document', descriptor)) return
        if (isIndexType(descriptor.mediaType)) {
          const index = parseIndex(await this.#read(descriptor), descriptor)
          this.#documents++
          pending.push(...index.manifests)
        } else if (isManifestType(descriptor.mediaType)) {
          const manifest = parseManifest(await this.#read(descriptor), descriptor)
          this.#documents++
          await this.#verifyManifest(manifest)
        } else await this.#hash(descriptor)
      })
    }
    const used = this.#blobs.size
    await this.#verifyUnused()
    const problems = this.#problems
    const blobs = this.#blobs.size
    return {
      documents: this.#documents,
      layers: this.#layers,
      blobs,
      unused: blobs - used,
      problems,
    }
  }

  async #verifyManifest(manifest: Manifest): Promise<void> {
    const { config, layers } = manifest
    if (!isConfigType(config.mediaType)) {
      for (const descriptor of [config, ...layers])
        await this.#attempt(() => this.#hash(descriptor))
      return
    }
    let diffIDs: readonly Digest[] = []
    await this.#attempt(async () => {
      diffIDs = parseImageConfig(await this.#read(config), config, manifest).rootfs.diff_ids
    })
    const chain = chainIDs([...diffIDs])
    for (const [at, descriptor] of layers.entries())
      await this.#attempt(async () => {
        const [diffID, chainID] = [diffIDs[at], chain[at]]
        // without a config there is nothing to compare the content with
        if (diffID === undefined || chainID === undefined) return this.#hash(descriptor)
        if (this.#isDone(diffID, descriptor)) return
        this.#blobs.add(descriptor.digest)
        const { compression } = layerFormat(descriptor.mediaType, descriptor.digest)
        const layer = new Layer(at, { descriptor, diffID, chainID, compression }, () =>
          this.#layout.locateBlob(descriptor),
        )
        for await (const entry of layer.entries())
          for await (const _ of entry.body) this.#check()
        this.#layers++
      })
  }

  /** A blob whose content nobody here knows: its size and digest. */
  async #hash(descriptor: Descriptor): Promise<void> {
    if (this.#isDone('blob', descriptor)) return
    this.#blobs.add(descriptor.digest)
    const location = await this.#layout.locateBlob(descriptor)
    const subject = describe(descriptor)
    const { digest: expected } = descriptor
    const found = await hashLocation(location, algorithmOf(expected), subject)
    if (found !== expected) throw createError('DIGEST_MISMATCH', { subject, found, expected })
  }

  #read(descriptor: Descriptor): Promise<Buffer> {
    this.#blobs.add(descriptor.digest)
    return this.#layout.readBlob(descriptor)
  }

  /** In an archive nothing can be there that isn't listed. */
  async #verifyUnused(): Promise<void> {
    if (this.#layout.readOnly) return
    const blobs = path.join(this.#layout.root, 'blobs')
    for (const algorithm of await readdir(blobs))
      for (const encoded of await readdir(path.join(blobs, algorithm)).catch(() => []))
        await this.#attempt(async () => {
          const subject = path.join('blobs', algorithm, encoded)
          const digest = parseDigest(`${algorithm}:${encoded}`, subject)
          if (this.#blobs.has(digest)) return
          this.#blobs.add(digest)
          const location = {
            path: path.join(blobs, algorithm, encoded),
            offset: 0,
            size: Infinity,
          }
          try {
            const found = await hashLocation(location, algorithmOf(digest), subject)
            if (found !== digest)
              throw createError('DIGEST_MISMATCH', { subject, found, expected: digest })
          } catch (error) {
            if (!isError(error, 'BLOB_NOT_FOUND')) throw error
            // nothing leads to it: somebody collects garbage
            this.#blobs.delete(digest)
          }
        })
  }

  #isDone(kind: string, { digest, mediaType, size }: Descriptor): boolean {
    const key = `${kind} ${digest} ${mediaType} ${size}`
    if (this.#done.has(key)) return true
    this.#done.add(key)
    return false
  }

  async #attempt(action: () => Promise<void>): Promise<void> {
    this.#check()
    try {
      await action()
      this.#options.onProgress?.(this.#blobs.size)
    } catch (error) {
      const problem = wrapError(error, this.#layout.path)
      if (problem.code === 'ERR_KOCI_ABORTED') throw problem
      if (this.#told.has(problem.message)) return
      this.#told.add(problem.message)
      this.#problems.push(problem)
      this.#options.onProblem?.(problem)
    }
  }

  #check(): void {
    const { signal } = this.#options
    if (signal?.aborted)
      throw createError('ABORTED', { subject: this.#layout.path }, signal.reason)
  }
}
