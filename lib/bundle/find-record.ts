// The record that a bundle is compared with: its own, or, for stacked layers, one that is assembled from theirs.
import type { Context } from '../context.ts'
import { S_IFDIR } from '../fs/libc.ts'
import type { Extraction } from '../layer/extraction.ts'
import { toHost } from '../oci/idmap.ts'
import { assembleRecord, type RecordedLayer } from './assemble-record.ts'
import { loadRecord } from './record-files.ts'
import type { Row } from './record-builder.ts'
import type { TreeRecord } from './record.ts'

/**
 * Undefined if there is none: nobody recorded the bundle, or one of its stacked layers.
 * @throws {FormatError} ERR_KOCI_INVALID_MTREE; {SystemError} ERR_KOCI_IO
 */
export async function findRecord(context: Context): Promise<TreeRecord | undefined> {
  const { bundle, image, extraction } = context
  const own = await loadRecord(bundle, image.descriptor.digest)
  if (own || extraction.layering === 'merged') return own
  const layers: RecordedLayer[] = []
  for (const { placed } of context.layers) {
    const record = await placed?.loadRecord?.()
    if (!record) return undefined
    layers.push({ record, stacking: placed?.report?.stacking })
  }
  return assembleRecord(layers, extraction.dialect, rootOf(extraction))
}

/** As `makeTreeRoot` makes it. */
function rootOf({ uidMap, gidMap, rootless }: Extraction): Row {
  const isOwned = process.geteuid?.() === 0 && !rootless
  return {
    mode: S_IFDIR | 0o755,
    uid: isOwned ? toHost(uidMap, 0) : (process.geteuid?.() ?? 0),
    gid: isOwned ? toHost(gidMap, 0) : (process.getegid?.() ?? 0),
    nlink: 1,
    size: 0,
    mtime: 0n,
    ctime: 0n,
    ino: 0n,
  }
}
