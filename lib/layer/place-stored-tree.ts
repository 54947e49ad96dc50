// Applies a layer that somebody has in a directory of its own to the rootfs, where layers are merged.
import type { Context } from '../context.ts'
import { createError } from '../errors.ts'
import type { Layer } from './layer.ts'
import type { WorkerPool } from './pool.ts'

/** Applies `layer.placed.dir` to the rootfs. */
export async function placeStoredTree(
  pool: WorkerPool,
  context: Context,
  layer: Layer,
): Promise<void> {
  void pool
  const by = layer.placed?.by ?? ''
  const chain = context.app.describeChain()
  throw createError('NOT_MERGED', { subject: layer.digest, by, chain })
}
