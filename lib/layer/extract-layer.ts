// The end of the chain of `layer`: has a worker verify and extract the layer, and places it.
import { createHash } from 'node:crypto'
import { open, rm } from 'node:fs/promises'
import type { LayerContext } from '../context.ts'
import { createError, isError, wrapError } from '../errors.ts'
import { toDigest } from '../oci/digest.ts'
import type { Extraction } from './extraction.ts'
import type { Layer, ReplacedSource } from './layer.ts'
import { isEmpty } from './is-empty.ts'
import { dialectOf } from './stored-dialect.ts'
import type { ExtractJob, WorkerPool } from './pool.ts'
import type { ReadAhead, Taken } from './read-ahead.ts'

/**
 * Extracts `ctx.layer` into its target, or the rootfs, and places it as verified.
 * @throws {IntegrityError} ERR_KOCI_SIZE_MISMATCH, ERR_KOCI_DIGEST_MISMATCH, ERR_KOCI_DIFF_ID_MISMATCH;
 * {FormatError} what the tar or its compression is guilty of; {LimitError} ERR_KOCI_LIMIT_EXCEEDED.
 * What was written by then stays: the run's undo list removes it.
 */
export async function extractLayer(
  pool: WorkerPool,
  context: LayerContext,
  ahead?: ReadAhead,
): Promise<void> {
  const { layer, limits } = context
  if (layer.placed) return
  if (!layer.source) {
    const taken = ahead?.take(layer, limits)
    if (taken) return extractBlob(pool, context, taken)
    const { digest, compression } = layer
    const blob = { ...(await layer.locateBlob()), digest, compression }
    return extractBlob(pool, context, { blob })
  }
  ahead?.drop(layer)
  const spool = await context.bundle.claim(`.koci-source-${layer.index}`)
  try {
    const blob = await spoolSource(context, layer.source, spool)
    await extractBlob(pool, context, { blob })
  } finally {
    await rm(spool, { force: true })
  }
}

async function extractBlob(
  pool: WorkerPool,
  context: LayerContext,
  { blob, inflated }: Pick<Taken, 'blob'> & Partial<Taken>,
): Promise<void> {
  const { layer, extraction, rootfs, limits, signal } = context
  const target = targetOf(layer, extraction)
  const { uidMap, gidMap, rootless, keepDirlinks, compat } = extraction
  // inodes of another directory, which may be on another file system, would mean other files
  const hashes = target === undefined ? extraction.hashes : undefined
  const dialect = target === undefined ? 'plain' : dialectOf(layer, extraction)
  const recordTo = target === undefined ? undefined : layer.recordTo
  const extracting = pool.extract(
    {
      blob,
      diffID: layer.diffID,
      target: target ?? rootfs,
      uidMap,
      gidMap,
      rootless,
      keepDirlinks,
      compat,
      first: await isEmpty(target ?? rootfs),
      dialect,
      hashFiles: hashes !== undefined || recordTo !== undefined,
      recordTo,
      limits,
    },
    { signal, inflated, onStart: counters => layer.reportProgress(() => counters) },
  )
  const result = await extracting.catch((error: unknown) => {
    throw namingDisk(error, target ?? rootfs)
  })
  for (const { code, message, count } of result.warnings)
    context.warn({ code, message, layer: layer.digest, count })
  if (result.hashes) hashes?.merge(result.hashes)
  layer.recorded = result.recorded
  layer.placeExtracted({
    by: 'koci',
    verified: true,
    ...(target === undefined ? {} : { dir: target, dialect }),
    report: {
      entries: result.entries,
      bytes: result.bytes,
      fileBytes: result.fileBytes,
      degraded: result.degraded,
      stacking: result.stacking,
    },
  })
}

/** The name of an entry doesn't tell which disk is full. */
function namingDisk(error: unknown, directory: string): unknown {
  if (!isError(error, 'IO')) return error
  const { code, syscall } = (error.cause ?? {}) as NodeJS.ErrnoException
  // attributes have little room of their own
  if ((code !== 'ENOSPC' && code !== 'EDQUOT') || syscall === 'setxattr') return error
  const reason = `there is no room left: ${error.message}`
  return createError('IO', { subject: directory, reason }, error.cause)
}

/**
 * A directory for the layer alone, if somebody named one. Merged, a layer that needs those below it can only go on top of
 * them.
 */
function targetOf({ target, needsBelow }: Layer, { layering }: Extraction): string | undefined {
  return layering === 'merged' && needsBelow !== undefined ? undefined : target
}

/** A private copy of what a replaced source yields, for the worker to read. */
async function spoolSource(
  context: LayerContext,
  source: ReplacedSource,
  spool: string,
): Promise<ExtractJob['blob']> {
  const { layer, signal } = context
  const hash = createHash('sha256')
  let size = 0
  try {
    const file = await open(spool, 'wx', 0o600)
    try {
      for await (const chunk of source.open()) {
        signal.throwIfAborted()
        hash.update(chunk)
        await file.writeFile(chunk)
        size += chunk.byteLength
      }
    } finally {
      await file.close()
    }
  } catch (error) {
    throw wrapError(error, `source of layer ${layer.digest}`)
  }
  const digest = toDigest('sha256', hash.digest('hex'))
  return { path: spool, offset: 0, size, digest, compression: source.compression }
}
