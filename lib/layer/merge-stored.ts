// Merged layering and a layer in a directory of its own: a worker applies what is stored to the rootfs, with the hashes
// that are recorded of it.
import type { TreeRecord } from '../bundle/record.ts'
import type { Context } from '../context.ts'
import { FileHashes } from './file-hashes.ts'
import { isEmpty } from './is-empty.ts'
import type { Layer } from './layer.ts'
import { reasonNotToMerge } from './needs-below.ts'
import type { WorkerPool } from './pool.ts'
import { dialectOf } from './stored-dialect.ts'

/**
 * Applies a placed layer to the rootfs, which holds those below it. Gives a reason, and has done nothing, where the layer has
 * to be extracted on top of them instead.
 * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED; {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED
 */
export async function mergeStored(
  pool: WorkerPool,
  context: Context,
  layer: Layer,
): Promise<string | undefined> {
  const { extraction, rootfs, limits, signal } = context
  const { placed, digest, size } = layer
  if (placed?.dir === undefined) return undefined
  const reason = reasonNotToMerge(layer, rootfs)
  if (reason !== undefined) return reason
  const { uidMap, gidMap, rootless, keepDirlinks, hashes } = extraction
  const record = hashes && (await placed.loadRecord?.())
  const result = await pool.applyStored(
    {
      digest,
      dir: placed.dir,
      dialect: dialectOf(layer, extraction),
      stacking: placed.report?.stacking,
      target: rootfs,
      uidMap,
      gidMap,
      rootless,
      keepDirlinks,
      first: await isEmpty(rootfs),
      size,
      limits,
      known: record && hashesOf(record).toTransferable().value,
    },
    { signal },
  )
  if (result.barred) return 'what is stored of it cannot be read by its owner'
  for (const { code, message, count } of result.warnings)
    context.warn({ code, message, layer: digest, count })
  if (result.hashes) hashes?.merge(result.hashes)
  return undefined
}

function hashesOf(record: TreeRecord): FileHashes {
  const { ino, size, mtime } = record.columns
  const hashes = new FileHashes()
  for (let row = 0; row < record.count; row++) {
    const sum = record.hash(row)
    if (sum && ino[row] !== 0n)
      hashes.add(ino[row] as bigint, sum, size[row] as number, mtime[row] as bigint)
  }
  return hashes
}
