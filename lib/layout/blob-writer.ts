// One blob on its way into a layout: hashed while it is written, named only when it is complete and synced.
import { createHash, type Hash } from 'node:crypto'
import { unlink, type FileHandle } from 'node:fs/promises'
import { createError, wrapError } from '../errors.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import { toDigest, type Algorithm, type Digest } from '../oci/digest.ts'

/** What a blob writer does with its layout. */
export interface BlobOwner {
  /** Gives the file its name; it is synced and closed. */
  readonly publish: (digest: Digest) => Promise<void>
  /** Called once, when the writer begins to commit or to abort. */
  readonly onEnd: () => void
}

/** Writes one blob. Either `commit` or `abort` ends it; until then the layout doesn't have it. */
export class BlobWriter {
  readonly #path: string
  readonly #handle: FileHandle
  readonly #algorithm: Algorithm
  readonly #hash: Hash
  readonly #owner: BlobOwner
  #size = 0
  #state: 'open' | 'failed' | 'ended' = 'open'

  /** Made by `ImageLayout.createBlob`; owns the handle and the file. */
  constructor(path: string, handle: FileHandle, algorithm: Algorithm, owner: BlobOwner) {
    this.#path = path
    this.#handle = handle
    this.#algorithm = algorithm
    this.#hash = createHash(algorithm)
    this.#owner = owner
  }

  /** Bytes given to `write` so far. */
  get size(): number {
    return this.#size
  }

  /** Appends bytes; they must not change until the promise resolves. Order is that of the calls. */
  async write(chunk: Uint8Array): Promise<void> {
    this.#assertOpen()
    let position = this.#size
    this.#size += chunk.length
    this.#hash.update(chunk)
    try {
      for (let done = 0; done < chunk.length;) {
        const { bytesWritten } = await this.#handle.write(
          chunk,
          done,
          chunk.length - done,
          position,
        )
        done += bytesWritten
        position += bytesWritten
      }
    } catch (error) {
      this.#state = 'failed'
      throw wrapError(error, this.#path)
    }
  }

  /**
   * Makes the blob part of the layout: synced, and under its digest's name. Resolves when the blob is stored, which
   * another writer may have done; a damaged file of that name is replaced.
   */
  async commit(mediaType: string): Promise<Descriptor> {
    this.#assertOpen()
    this.#end()
    const digest = toDigest(this.#algorithm, this.#hash.digest('hex'))
    try {
      await this.#handle.sync()
      await this.#handle.close()
      await this.#owner.publish(digest)
    } catch (error) {
      await this.#discard()
      throw wrapError(error, digest)
    }
    return { mediaType, digest, size: this.#size }
  }

  /** Forgets what was written. After `commit`, or again, it does nothing. */
  async abort(): Promise<void> {
    if (this.#state === 'ended') return
    this.#end()
    await this.#discard()
  }

  #end(): void {
    this.#state = 'ended'
    this.#owner.onEnd()
  }

  async #discard(): Promise<void> {
    // what remains goes with the layout's private directory
    await this.#handle.close().catch(() => undefined)
    await unlink(this.#path).catch(() => undefined)
  }

  #assertOpen(): void {
    if (this.#state !== 'open')
      throw createError('CONSUMED', { subject: `blob writer (${this.#state})` })
  }
}
