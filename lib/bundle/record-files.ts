// A bundle's record on disk: umoci's mtree text, named after the manifest, and koci's stat index beside it.
// The text is the truth that every tool reads; the index only spares work, and counts only for exactly that text.
import { createHash } from 'node:crypto'
import type { Digest } from '../oci/digest.ts'
import type { Bundle } from './bundle.ts'
import { parseMtree } from './mtree-parser.ts'
import { writeMtree } from './mtree-writer.ts'
import type { TreeRecord } from './record.ts'
import { decodeStatIndex, encodeStatIndex } from './stat-index.ts'

/** Writes both files, the text last, so that a text has no index that is older than itself. */
export async function saveRecord(
  bundle: Bundle,
  manifest: Digest,
  record: TreeRecord,
): Promise<void> {
  const text = writeMtree(record)
  await bundle.write(
    indexName(manifest),
    encodeStatIndex(record, { manifest, textSha256: sha256(text) }),
  )
  await bundle.write(textName(manifest), text)
}

/** Renews the index after a comparison found that nothing of what it holds had changed. */
export async function saveIndex(
  bundle: Bundle,
  manifest: Digest,
  record: TreeRecord,
): Promise<void> {
  const text = await bundle.read(textName(manifest))
  if (!text) return
  await bundle.write(
    indexName(manifest),
    encodeStatIndex(record, { manifest, textSha256: sha256(text) }),
  )
}

/**
 * The record for this manifest; undefined if the bundle has none. A missing, damaged or stale index is no error.
 * @throws {FormatError} ERR_KOCI_INVALID_MTREE
 */
export async function loadRecord(
  bundle: Bundle,
  manifest: Digest,
): Promise<TreeRecord | undefined> {
  const text = await bundle.read(textName(manifest))
  if (!text) return undefined
  const index = await bundle.read(indexName(manifest))
  const owner = { manifest, textSha256: sha256(text) }
  return (
    decodeStatIndex(index, owner) ?? parseMtree(text, `${bundle.path}/${textName(manifest)}`)
  )
}

/** Has both files removed with the next commit of the bundle. */
export function discardRecord(bundle: Bundle, manifest: Digest): void {
  bundle.discard(textName(manifest))
  bundle.discard(indexName(manifest))
}

function textName(manifest: Digest): string {
  return `${manifest.replace(':', '_')}.mtree`
}

function indexName(manifest: Digest): string {
  return `${manifest.replace(':', '_')}.stat`
}

function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest()
}
