// Garbage collection: blobs that no entry of index.json leads to are removed. It waits for nobody: while a koci holds
// the layout open for writing it refuses, because blobs that have no tag yet may be on their way to one.
import { readdir, rm, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { createError, isError, wrapError } from '../errors.ts'
import type { Lock } from '../fs/lock.ts'
import { describe, type Descriptor } from '../oci/descriptor.ts'
import { parseDigest, type Digest } from '../oci/digest.ts'
import { parseIndex, parseManifest } from '../oci/manifest.ts'
import { isIndexType, isManifestType } from '../oci/media-type.ts'
import type { ImageLayout } from './image-layout.ts'
import { lockLayout, stagingPrefix, tryLockStaging } from './layout-writer.ts'

/** What a collection found. */
export interface GarbageReport {
  /** Blobs that were removed. */
  readonly removed: Digest[]
  /** Left-overs of writers that died, removed, too: names below the layout's directory. */
  readonly staging: string[]
}

/**
 * Removes blobs that nothing leads to, and what killed writers left behind. Files whose names are no digests stay. What
 * an index, manifest or referrer names counts as used, whether it is there or not; nothing is removed before all of
 * them have been read.
 *
 * **Does not** know of other tools: don't run it while umoci or skopeo writes to the layout.
 * @throws {ConflictError} ERR_KOCI_LOCKED a koci is writing to the layout
 * @throws {NotFoundError} ERR_KOCI_BLOB_NOT_FOUND an index or manifest is missing
 * @throws {UnsupportedError} ERR_KOCI_READ_ONLY the layout is an archive
 */
export async function collectGarbage(layout: ImageLayout): Promise<GarbageReport> {
  if (layout.readOnly)
    throw createError('READ_ONLY', { subject: layout.path, reason: 'it is an archive' })
  const { root } = layout
  const layoutLock = await lockLayout(root)
  const stagingLocks: Lock[] = []
  try {
    const staging = (await names(root)).filter(name => name.startsWith(stagingPrefix))
    for (const name of staging) {
      const lock = tryLockStaging(join(root, name))
      if (!lock) throw createError('LOCKED', { subject: layout.path })
      stagingLocks.push(lock)
    }
    const used = await markUsed(layout)
    const removed = await sweep(join(root, 'blobs'), used)
    for (const name of staging) await rm(join(root, name), { recursive: true, force: true })
    return { removed, staging }
  } catch (error) {
    throw wrapError(error, layout.path)
  } finally {
    for (const lock of stagingLocks) lock.release()
    layoutLock.release()
  }
}

async function markUsed(layout: ImageLayout): Promise<Set<Digest>> {
  const used = new Set<Digest>()
  const read = new Set<string>()
  const pending: Descriptor[] = await layout.roots()
  for (let next = pending.pop(); next; next = pending.pop()) {
    used.add(next.digest)
    const { mediaType } = next
    const isDocument = isIndexType(mediaType) || isManifestType(mediaType)
    // the same bytes may be reached under two media types: then they have to be valid as both
    if (!isDocument || read.has(describe(next))) continue
    read.add(describe(next))
    const { children, subject } = childrenOf(next, await layout.readBlob(next))
    for (const child of children) pending.push(child)
    // image-spec allows a subject that isn't there
    if (subject && (await isPresent(layout, subject))) pending.push(subject)
  }
  return used
}

function childrenOf(
  descriptor: Descriptor,
  bytes: Buffer,
): { children: Descriptor[]; subject?: Descriptor | undefined } {
  if (isIndexType(descriptor.mediaType)) {
    const { manifests, subject } = parseIndex(bytes, descriptor)
    return { children: manifests, subject }
  }
  const { config, layers, subject } = parseManifest(bytes, descriptor)
  return { children: [config, ...layers], subject }
}

async function isPresent(layout: ImageLayout, descriptor: Descriptor): Promise<boolean> {
  try {
    await layout.locateBlob(descriptor)
    return true
  } catch (error) {
    if (isError(error, 'BLOB_NOT_FOUND')) return false
    throw error
  }
}

async function sweep(blobs: string, used: ReadonlySet<Digest>): Promise<Digest[]> {
  const removed: Digest[] = []
  for (const algorithm of ['sha256', 'sha512']) {
    for (const encoded of await names(join(blobs, algorithm))) {
      const digest = digestOfName(`${algorithm}:${encoded}`)
      if (!digest || used.has(digest)) continue
      await unlink(join(blobs, algorithm, encoded))
      removed.push(digest)
    }
  }
  return removed
}

function digestOfName(name: string): Digest | undefined {
  try {
    return parseDigest(name)
  } catch (error) {
    if (isError(error, 'INVALID_DIGEST')) return undefined
    throw error
  }
}

async function names(directory: string): Promise<string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}
