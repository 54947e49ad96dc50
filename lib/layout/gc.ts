// Garbage collection: blobs that no entry of index.json leads to are removed. It waits for nobody: while a koci holds
// the layout open for writing it refuses, because blobs that have no tag yet may be on their way to one.
import { readdir, rm, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { createError, isError, wrapError } from '../errors.ts'
import type { Lock } from '../fs/lock.ts'
import { parseDigest, type Digest } from '../oci/digest.ts'
import { blobPath } from './directory-source.ts'
import type { ImageLayout } from './image-layout.ts'
import { lockLayout, stagingPrefix, tryLockLeftOver } from './layout-writer.ts'
import { reachable } from './reachable.ts'

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
 * With `dryRun` nothing is removed; the report is the same.
 *
 * **Does not** know of other tools: don't run it while umoci or skopeo writes to the layout.
 * @throws {ConflictError} ERR_KOCI_LOCKED a koci is writing to the layout
 * @throws {NotFoundError} ERR_KOCI_BLOB_NOT_FOUND an index or manifest is missing
 * @throws {UnsupportedError} ERR_KOCI_READ_ONLY the layout is an archive
 */
export async function collectGarbage(
  layout: ImageLayout,
  options: { dryRun?: boolean; signal?: AbortSignal } = {},
): Promise<GarbageReport> {
  if (layout.readOnly)
    throw createError('READ_ONLY', { subject: layout.path, reason: 'it is an archive' })
  const { root } = layout
  const layoutLock = await lockLayout(root, { signal: options.signal })
  const stagingLocks: Pick<Lock, 'release'>[] = []
  try {
    const staging = (await names(root)).filter(name => name.startsWith(stagingPrefix))
    for (const name of staging) {
      const lock = tryLockLeftOver(join(root, name))
      if (!lock) throw createError('LOCKED', { subject: layout.path })
      stagingLocks.push(lock)
    }
    const used = await markUsed(layout)
    const removed = await unusedBlobs(join(root, 'blobs'), used)
    if (options.dryRun !== true) {
      for (const digest of removed) await unlink(blobPath(root, digest))
      for (const name of staging) await rm(join(root, name), { recursive: true, force: true })
    }
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
  for await (const { digest } of reachable(layout, await layout.roots())) used.add(digest)
  return used
}

async function unusedBlobs(blobs: string, used: ReadonlySet<Digest>): Promise<Digest[]> {
  const unused: Digest[] = []
  for (const algorithm of ['sha256', 'sha512']) {
    for (const encoded of await names(join(blobs, algorithm))) {
      const digest = digestOfName(`${algorithm}:${encoded}`)
      if (digest && !used.has(digest)) unused.push(digest)
    }
  }
  return unused
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
