// Images from one layout to another, or into an archive: byte for byte, with all that they lead to. Their tags come last.
import { randomBytes } from 'node:crypto'
import { lstat, rm } from 'node:fs/promises'
import path from 'node:path'
import { createError, isError, wrapError } from '../errors.ts'
import { describe, type Descriptor } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import { ociTypes } from '../oci/media-type.ts'
import { assertRefName } from '../oci/reference.ts'
import type { Platform } from '../oci/platform.ts'
import type { Adoption } from './adopt-blob.ts'
import { writeArchive } from './archive-writer.ts'
import { ImageLayout } from './image-layout.ts'
import { renameNewDirectory } from './new-file.ts'
import { findRef, refNameAnnotation, withoutFullName, withRefName } from './refs.ts'
import { isDocument, reachable, readChildren } from './reachable.ts'

/** What is copied, and where to. */
export interface CopyOptions {
  /** A layout, or an archive of any kind that can be read. */
  readonly source: string
  /** Of what is copied. @default everything, with its tags */
  readonly refName?: string | undefined
  /** A layout, which is made if it isn't there, or an archive, which must not be there. */
  readonly target: string
  /** @default `refName` */
  readonly newRefName?: string | undefined
  /** Of an index only the image for this platform. @default all of them */
  readonly platform?: Platform | undefined
  /** With what refers to the images, signatures for example. @default false */
  readonly referrers?: boolean | undefined
  /** How a target that isn't there is made. @default an archive if its name ends in `.tar`, else a layout */
  readonly format?: 'layout' | 'archive' | undefined
  /** Nothing is written; the report says what would be. @default false */
  readonly dryRun?: boolean | undefined
  readonly signal?: AbortSignal | undefined
  /** Told before each blob. */
  readonly onProgress?: ((progress: CopyProgress) => void) | undefined
}

/** A blob of the images, and how it came to the target. */
export interface CopiedBlob {
  readonly digest: Digest
  readonly size: number
  readonly how: Adoption
}

/** How far a copy is: blobs and bytes that are done, and all there are. */
export interface CopyProgress {
  readonly blobs: number
  readonly allBlobs: number
  readonly bytes: number
  readonly allBytes: number
}

/** What was copied. */
export interface CopyReport {
  /** The entries of index.json. */
  readonly entries: readonly Descriptor[]
  /** All that they lead to. */
  readonly blobs: readonly CopiedBlob[]
}

/**
 * Copies images. Every blob is verified, those that were there already, too; blocks or inodes are shared where that can be
 * had and is safe. If it fails, a target that was made is gone, and one that was there has no tag that it hadn't.
 * @throws {ConflictError} ERR_KOCI_CLOBBER the target is an archive that is there; {NotFoundError} ERR_KOCI_BLOB_NOT_FOUND;
 * what else may be wrong with the images
 */
export async function copyImages(options: CopyOptions): Promise<CopyReport> {
  const { refName, newRefName = refName } = options
  if (newRefName !== undefined) assertRefName(newRefName)
  const kind = await kindOf(options)
  const source = await ImageLayout.open(options.source)
  try {
    const roots = await rootsOf(source, options)
    const blobs = await blobsOf(source, roots)
    // what only a descriptor carried is a blob now
    const entries = roots.map(withoutData)
    const writers = { archive: toArchive, layout: toLayout, 'new layout': toNewLayout }
    return { entries, blobs: await writers[kind](source, entries, blobs, options) }
  } finally {
    await source.close()
  }
}

type Kind = 'archive' | 'layout' | 'new layout'

async function kindOf({ target, format }: CopyOptions): Promise<Kind> {
  const found = await lstat(path.resolve(target)).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw wrapError(error, target)
  })
  const isArchive = format === 'archive' || (format === undefined && target.endsWith('.tar'))
  if (!found) return isArchive ? 'archive' : 'new layout'
  if (found.isFile() || format === 'archive')
    throw createError('CLOBBER', {
      subject: target,
      remedy: 'choose another path, or remove it',
    })
  return 'layout'
}

/** What goes into the target's index.json. */
async function rootsOf(source: ImageLayout, options: CopyOptions): Promise<Descriptor[]> {
  const { refName, newRefName = refName, platform, referrers } = options
  const roots = await source.roots()
  if (refName === undefined) return roots
  const entry = findRef({ schemaVersion: 2, manifests: roots }, refName, source.path)
  const selected = platform
    ? (await source.resolveManifest(refName, { platform })).descriptor
    : entry
  const named = withRefName(withoutFullName(selected), newRefName ?? refName)
  return referrers === true ? [named, ...(await referrersOf(source, named, roots))] : [named]
}

function withoutData(descriptor: Descriptor): Descriptor {
  const { data: _, ...rest } = descriptor
  return rest
}

/**
 * What is about an image, or about something that is: by its subject, or by a tag that is made of the image's digest, as for
 * registries without the API for it.
 */
async function referrersOf(
  source: ImageLayout,
  image: Descriptor,
  roots: readonly Descriptor[],
): Promise<Descriptor[]> {
  const covered = new Set<Digest>()
  const cover = async (root: Descriptor): Promise<void> => {
    for await (const descriptor of reachable(source, [root]))
      if (isDocument(descriptor)) covered.add(descriptor.digest)
  }
  await cover(image)
  const candidates = new Set(
    roots.filter(root => isDocument(root) && root.digest !== image.digest),
  )
  const found: Descriptor[] = []
  for (let size = -1; size !== found.length;) {
    size = found.length
    for (const candidate of candidates) {
      const { subject } = await readChildren(source, candidate)
      const isAbout = subject && covered.has(subject.digest)
      if (!isAbout && !isTaggedFor(candidate, covered)) continue
      candidates.delete(candidate)
      found.push(candidate)
      await cover(candidate)
    }
  }
  return found
}

/** `sha256-<digits>`, and cosign's `sha256-<digits>.sig` and the like. */
function isTaggedFor({ annotations }: Descriptor, covered: ReadonlySet<Digest>): boolean {
  const match = /^(sha\d+)-([0-9a-f]+)(\.[a-z]+)?$/.exec(annotations?.[refNameAnnotation] ?? '')
  return match !== null && covered.has(`${match[1]}:${match[2]}` as Digest)
}

/** Everything that the entries lead to, each once. */
async function blobsOf(
  source: ImageLayout,
  entries: readonly Descriptor[],
): Promise<Descriptor[]> {
  const blobs = new Map<Digest, Descriptor>()
  for await (const descriptor of reachable(source, entries)) {
    const known = blobs.get(descriptor.digest)
    // data that one descriptor carries is good for all
    if (!known || (known.data === undefined && descriptor.data !== undefined))
      blobs.set(descriptor.digest, descriptor)
  }
  for (const descriptor of blobs.values()) await source.locateBlob(descriptor)
  return [...blobs.values()]
}

type Write = (
  source: ImageLayout,
  entries: readonly Descriptor[],
  blobs: readonly Descriptor[],
  options: CopyOptions,
) => Promise<CopiedBlob[]>

const toArchive: Write = async (source, entries, blobs, options) => {
  const { target, dryRun, signal } = options
  const index = { schemaVersion: 2, mediaType: ociTypes.index, manifests: entries }
  const tell = teller(blobs, options)
  const archived = blobs.map(descriptor => ({
    descriptor,
    locate: () => {
      tell(descriptor)
      return source.locateBlob(descriptor)
    },
  }))
  if (dryRun !== true) await writeArchive(path.resolve(target), index, archived, signal)
  return blobs.map(descriptor => copiedBlob(descriptor, 'copy'))
}

const toLayout: Write = async (source, entries, blobs, options) => {
  const layout = await ImageLayout.open(options.target, { signal: options.signal })
  try {
    return await fill(layout, source, entries, blobs, options)
  } finally {
    await layout.close()
  }
}

/** It is put together under a private name, so that it is there complete or not at all. */
const toNewLayout: Write = async (source, entries, blobs, options) => {
  if (options.dryRun === true) return blobs.map(descriptor => copiedBlob(descriptor, 'copy'))
  const root = path.resolve(options.target)
  const name = `.${path.basename(root)}.koci-${randomBytes(8).toString('hex')}`
  const draft = path.join(path.dirname(root), name)
  try {
    const layout = await ImageLayout.create(draft)
    try {
      const copied = await fill(layout, source, entries, blobs, options)
      await layout.close()
      try {
        await renameNewDirectory(draft, root)
        return copied
      } catch (error) {
        if (!isError(error, 'CLOBBER')) throw error
      }
      return await addDraft(layout, entries, copied, blobs, options)
    } finally {
      await layout.close()
    }
  } catch (error) {
    throw wrapError(error, options.target)
  } finally {
    await rm(draft, { recursive: true, force: true })
  }
}

/** Somebody else made the target meanwhile: what is in the draft is added to it, if it is a layout. */
async function addDraft(
  draft: ImageLayout,
  entries: readonly Descriptor[],
  copied: readonly CopiedBlob[],
  blobs: readonly Descriptor[],
  options: CopyOptions,
): Promise<CopiedBlob[]> {
  await kindOf(options)
  const added = await toLayout(draft, entries, blobs, { ...options, onProgress: undefined })
  // what is shared with the draft was copied to it, or shared with the source
  return added.map((blob, at) => (blob.how === 'present' ? blob : (copied[at] ?? blob)))
}

async function fill(
  layout: ImageLayout,
  source: ImageLayout,
  entries: readonly Descriptor[],
  blobs: readonly Descriptor[],
  options: CopyOptions,
): Promise<CopiedBlob[]> {
  const { dryRun, signal } = options
  const tell = teller(blobs, options)
  const copied: CopiedBlob[] = []
  if (dryRun !== true) await layout.hold()
  for (const descriptor of blobs) {
    if (signal?.aborted)
      throw createError('ABORTED', { subject: describe(descriptor) }, signal.reason)
    tell(descriptor)
    const how =
      dryRun === true
        ? await wouldBe(layout, descriptor)
        : await layout.adoptBlob(await source.locateBlob(descriptor), descriptor)
    copied.push(copiedBlob(descriptor, how))
  }
  if (dryRun !== true) await layout.addEntries(entries)
  return copied
}

/** Tells how far it is, each time a blob begins. */
function teller(
  blobs: readonly Descriptor[],
  { onProgress }: CopyOptions,
): (begun: Descriptor) => void {
  const allBytes = blobs.reduce((sum, { size }) => sum + size, 0)
  const done = { blobs: 0, bytes: 0 }
  return ({ size }) => {
    onProgress?.({ ...done, allBlobs: blobs.length, allBytes })
    done.blobs += 1
    done.bytes += size
  }
}

async function wouldBe(layout: ImageLayout, descriptor: Descriptor): Promise<Adoption> {
  try {
    await layout.locateBlob(withoutData(descriptor))
    return 'present'
  } catch (error) {
    if (isError(error, 'BLOB_NOT_FOUND') || isError(error, 'SIZE_MISMATCH')) return 'copy'
    throw error
  }
}

function copiedBlob({ digest, size }: Descriptor, how: Adoption): CopiedBlob {
  return { digest, size, how }
}
