// An OCI image layout: what is in it, verified, and what is put into it. Digests and sizes are checked at every read.
import { stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { createError, wrapError } from '../errors.ts'
import { chainIDs } from '../oci/chain-id.ts'
import {
  assertSize,
  describe,
  embeddedData,
  parseDescriptor,
  verifyBlob,
  type Descriptor,
  type Platform,
} from '../oci/descriptor.ts'
import type { Algorithm, Digest } from '../oci/digest.ts'
import { parseImageConfig } from '../oci/image-config.ts'
import { maxDocumentBytes } from '../oci/json.ts'
import { parseManifest, type Index } from '../oci/manifest.ts'
import { isConfigType, layerFormat } from '../oci/media-type.ts'
import { assertRefName } from '../oci/reference.ts'
import type { Adoption } from './adopt-blob.ts'
import type { BlobWriter } from './blob-writer.ts'
import { DirectorySource } from './directory-source.ts'
import { createLayout } from './create-layout.ts'
import { LayoutWriter, type WaitOptions } from './layout-writer.ts'
import {
  findRef,
  parseLayoutIndex,
  refsOf,
  withEntry,
  withoutRef,
  withRef,
  type Ref,
} from './refs.ts'
import { readLocation, type BlobLocation } from './regular-file.ts'
import { checkPlatform, selectManifest } from './select-manifest.ts'
import type { LayoutSource } from './source.ts'
import type { ResolvedImage, ResolvedLayer, ResolvedManifest } from './resolved-image.ts'
import { Spill } from './spill.ts'

export type { BlobWriter } from './blob-writer.ts'
export type { BlobLocation } from './regular-file.ts'
export type { Ref } from './refs.ts'
export type { ResolvedImage, ResolvedLayer, ResolvedManifest } from './resolved-image.ts'

/** An image layout: a directory, or a tar file that can only be read. */
export class ImageLayout {
  /** As it was given. */
  readonly path: string
  /** Absolute. */
  readonly root: string
  /** Whether it is an archive. */
  readonly readOnly: boolean
  readonly #source: LayoutSource
  readonly #writer: LayoutWriter | undefined
  readonly #spill = new Spill()

  private constructor(path: string, root: string, source: LayoutSource, waiting: WaitOptions) {
    this.path = path
    this.root = root
    this.#source = source
    this.readOnly = !(source instanceof DirectorySource)
    this.#writer = this.readOnly ? undefined : new LayoutWriter(root, waiting)
  }

  /**
   * Opens a layout directory, an OCI archive, or what `docker save` wrote. Nothing is written until something is put in.
   * Changes wait for those of others as `options` say.
   * @throws {FormatError} ERR_KOCI_INVALID_LAYOUT, ERR_KOCI_BAD_ARCHIVE
   * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_VERSION
   */
  static async open(path: string, options: WaitOptions = {}): Promise<ImageLayout> {
    const root = resolve(path)
    const source = (await isDirectory(root))
      ? await DirectorySource.open(root)
      : await openArchive(root)
    return new ImageLayout(path, root, source, options)
  }

  /**
   * Makes an empty layout directory and opens it; missing parents are made, too.
   * @throws {ConflictError} ERR_KOCI_CLOBBER something is there
   */
  static async create(path: string): Promise<ImageLayout> {
    await createLayout(path)
    return ImageLayout.open(path)
  }

  /** Gives up what is held; blobs that weren't committed are gone. Again is no error. */
  async close(): Promise<void> {
    await this.#spill.close()
    await this.#writer?.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** The tags in the order of index.json; duplicates are kept, entries without a tag are left out. */
  async refs(): Promise<Ref[]> {
    return refsOf(await this.#readIndex())
  }

  /** The entries of index.json, with or without a tag: everything that the layout holds starts there. */
  async roots(): Promise<Descriptor[]> {
    return (await this.#readIndex()).manifests
  }

  /**
   * Follows a tag to its image, for a platform if it leads to an index: manifest and config verified, layers not read.
   * @throws {NotFoundError} ERR_KOCI_REF_NOT_FOUND, ERR_KOCI_PLATFORM_NOT_FOUND, ERR_KOCI_BLOB_NOT_FOUND
   * @throws {ConflictError} ERR_KOCI_AMBIGUOUS
   * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_MEDIA_TYPE not an image, or a layer of an unknown kind
   * @throws {IntegrityError} ERR_KOCI_SIZE_MISMATCH, ERR_KOCI_DIGEST_MISMATCH
   */
  async resolve(
    refName: string,
    options: { platform?: Platform } = {},
  ): Promise<ResolvedImage> {
    return this.#loadImage(await this.resolveManifest(refName, options))
  }

  /** As {@link resolve}, but stops at the manifest, which may be that of an artifact. */
  async resolveManifest(
    refName: string,
    options: { platform?: Platform } = {},
  ): Promise<ResolvedManifest> {
    const root = findRef(await this.#readIndex(), refName, this.path)
    const { walk, ...rest } = await selectManifest(root, options.platform, index =>
      this.readBlob(index),
    )
    return { ...(await this.#loadManifest(refName, walk)), ...rest }
  }

  /** Loads the image at the end of a walk that was noted before; the tag is not looked at. */
  async resolveWalk(refName: string, walk: readonly Descriptor[]): Promise<ResolvedImage> {
    return this.#loadImage(await this.#loadManifest(refName, walk))
  }

  /**
   * Reads a blob into memory: size checked first, then the digest. Embedded data is used in the file's place.
   * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED over `maxBytes`, by default 4 MiB; before anything is read
   * @throws {IntegrityError} ERR_KOCI_SIZE_MISMATCH, ERR_KOCI_DIGEST_MISMATCH
   * @throws {NotFoundError} ERR_KOCI_BLOB_NOT_FOUND
   */
  async readBlob(descriptor: Descriptor, options: { maxBytes?: number } = {}): Promise<Buffer> {
    const { maxBytes = maxDocumentBytes } = options
    const subject = describe(descriptor)
    if (descriptor.size > maxBytes)
      throw createError('LIMIT_EXCEEDED', {
        subject,
        limit: 'document size',
        value: descriptor.size,
        maximum: maxBytes,
      })
    const embedded = embeddedData(descriptor)
    if (embedded) return embedded
    const location = await this.#locate(descriptor)
    const bytes = await readLocation(location, subject)
    if (!bytes) throw this.#notFound(descriptor)
    verifyBlob(descriptor, bytes)
    return bytes
  }

  /**
   * Where a blob's bytes are, for those who read and verify them themselves: a regular file, of the right size.
   * **Does not** look at the content: compare its digest while reading. The path may have become something else
   * by then: open it with O_NONBLOCK. Embedded data is put into a nameless file that lives until `close`.
   * @throws {IntegrityError} ERR_KOCI_SIZE_MISMATCH
   * @throws {NotFoundError} ERR_KOCI_BLOB_NOT_FOUND
   */
  async locateBlob(descriptor: Descriptor): Promise<BlobLocation> {
    const embedded = embeddedData(descriptor)
    return embedded ? this.#spill.locate(descriptor, embedded) : this.#locate(descriptor)
  }

  /** Stores bytes as a blob; see {@link BlobWriter.commit} for what is guaranteed. */
  async putBlob(bytes: Uint8Array, mediaType: string): Promise<Descriptor> {
    const blob = await this.createBlob()
    try {
      await blob.write(bytes)
      return await blob.commit(mediaType)
    } finally {
      await blob.abort()
    }
  }

  /**
   * Keeps koci's garbage collector away until `close`: what is resolved from here on stays, with or without a tag.
   * @throws {UnsupportedError} ERR_KOCI_READ_ONLY the layout is an archive; {SystemError} ERR_KOCI_IO it can't be written
   */
  async hold(): Promise<void> {
    await this.#writable().hold()
  }

  /**
   * Begins a blob that is written in pieces; `close` aborts it.
   * @throws {UnsupportedError} ERR_KOCI_READ_ONLY the layout is an archive; {SystemError} ERR_KOCI_ABORTED the layout is
   * closed meanwhile
   */
  async createBlob(options: { algorithm?: Algorithm } = {}): Promise<BlobWriter> {
    return this.#writable().createBlob(options.algorithm ?? 'sha256')
  }

  /**
   * Takes a blob over from where another layout has it: verified, and by sharing what is on disk where that can be had.
   * @throws {IntegrityError} ERR_KOCI_DIGEST_MISMATCH; {UnsupportedError} ERR_KOCI_READ_ONLY the layout is an archive
   */
  async adoptBlob(source: BlobLocation, descriptor: Descriptor): Promise<Adoption> {
    const { digest } = descriptor
    return this.#writable().adoptBlob(source, digest, describe(descriptor))
  }

  /**
   * Puts entries into index.json, in one step: those that have a tag as `setRef` would, others if there is none for what
   * they point to.
   */
  async addEntries(entries: readonly Descriptor[]): Promise<void> {
    await this.#writable().editIndex(async () =>
      entries.reduce<Index>(withEntry, await this.#readIndex()),
    )
  }

  /**
   * Puts a tag on a descriptor and takes it from every other; its entry comes last. All else in index.json stays.
   * Changes of several processes follow one another, none is lost. With `from`, only if that is what the tag leads to.
   * @throws {ConflictError} ERR_KOCI_LOCKED others kept it locked for too long; {SystemError} ERR_KOCI_ABORTED; with `from`,
   * {ConflictError} ERR_KOCI_REF_MOVED and {NotFoundError} ERR_KOCI_REF_NOT_FOUND
   */
  async setRef(
    refName: string,
    descriptor: Descriptor,
    options: { from?: Digest | undefined } = {},
  ): Promise<void> {
    const { from } = options
    assertRefName(refName)
    const entry = parseDescriptor(descriptor, describe(descriptor))
    await this.#writable().editIndex(async () => {
      const index = await this.#readIndex()
      if (from !== undefined && findRef(index, refName, this.path).digest !== from)
        throw createError('REF_MOVED', { subject: `tag ${refName}` })
      return withRef(index, refName, entry)
    })
  }

  /** Removes a tag; its blobs stay. Tells how many entries had it. Locks as {@link setRef}. */
  async removeRef(refName: string): Promise<number> {
    let removed = 0
    await this.#writable().editIndex(async () => {
      const index = await this.#readIndex()
      const edited = withoutRef(index, refName)
      removed = index.manifests.length - edited.manifests.length
      return removed > 0 ? edited : undefined
    })
    return removed
  }

  async #readIndex(): Promise<ReturnType<typeof parseLayoutIndex>> {
    return parseLayoutIndex(await this.#source.readIndex(), join(this.path, 'index.json'))
  }

  async #loadManifest(refName: string, path: readonly Descriptor[]): Promise<ResolvedManifest> {
    const walk = [...path]
    const descriptor = walk.at(-1)
    if (!descriptor)
      throw createError('INVALID_OPTION', { subject: this.path, reason: 'the walk is empty' })
    const manifest = parseManifest(await this.readBlob(descriptor), descriptor)
    return { refName, walk, descriptor, manifest }
  }

  async #loadImage(resolved: ResolvedManifest): Promise<ResolvedImage> {
    const { unchecked, ...rest } = resolved
    const { descriptor, manifest } = rest
    const subject = describe(descriptor)
    const { mediaType } = manifest.config
    if (!isConfigType(mediaType))
      throw createError('UNSUPPORTED_MEDIA_TYPE', {
        subject: `${subject}: not an image but an artifact: its config`,
        mediaType: manifest.artifactType
          ? `${mediaType} of ${manifest.artifactType}`
          : mediaType,
      })
    const bytes = await this.readBlob(manifest.config)
    const config = parseImageConfig(bytes, manifest.config, manifest)
    if (unchecked) checkPlatform(subject, unchecked, config)
    const diffIDs = config.rootfs.diff_ids
    const chain = chainIDs(diffIDs)
    const layers = manifest.layers.map((layer, at): ResolvedLayer => ({
      descriptor: layer,
      diffID: diffIDs[at] as Digest,
      chainID: chain[at] as Digest,
      compression: layerFormat(layer.mediaType, `${layer.digest}: layer ${at}`).compression,
    }))
    return { ...rest, config, layers }
  }

  async #locate(descriptor: Descriptor): Promise<BlobLocation> {
    const location = await this.#source.locate(descriptor.digest, describe(descriptor))
    if (!location) throw this.#notFound(descriptor)
    assertSize(descriptor, location.size)
    return location
  }

  #writable(): LayoutWriter {
    if (this.#writer) return this.#writer
    throw createError('READ_ONLY', {
      subject: this.path,
      reason: 'it is an archive - koci copy puts the image into a layout that can be written',
    })
  }

  #notFound(descriptor: Descriptor): Error {
    return createError('BLOB_NOT_FOUND', { subject: describe(descriptor), layout: this.path })
  }
}

async function openArchive(file: string): Promise<LayoutSource> {
  const { ArchiveSource } = await import('./archive-source.ts')
  return ArchiveSource.open(file)
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw createError(
        'INVALID_LAYOUT',
        {
          subject: path,
          reason: 'no such file or directory',
        },
        error,
      )
    throw wrapError(error, path)
  }
}
