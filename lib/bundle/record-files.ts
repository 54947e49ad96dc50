// A bundle's record on disk: umoci's mtree text, named after the manifest, and koci's stat index beside it.
// The text is the truth that every tool reads; the index only spares work, and counts only for exactly that text.
import { createHash, type Hash } from 'node:crypto'
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
  const hash = createHash('sha256')
  await using text = await bundle.stage(textName(manifest), hashed(writeMtree(record), hash))
  const owner = { manifest, textSha256: hash.digest() }
  await bundle.write(indexName(manifest), encodeStatIndex(record, owner))
  await text.publish()
}

/** Renews the index after a comparison found that nothing of what it holds had changed. */
export async function saveIndex(
  bundle: Bundle,
  manifest: Digest,
  record: TreeRecord,
): Promise<void> {
  const textSha256 = await bundle.sha256(textName(manifest))
  if (!textSha256) return
  await bundle.write(indexName(manifest), encodeStatIndex(record, { manifest, textSha256 }))
}

/**
 * The record for this manifest; undefined if the bundle has none. A missing, damaged or stale index is no error.
 * @throws {FormatError} ERR_KOCI_INVALID_MTREE
 */
export async function loadRecord(
  bundle: Bundle,
  manifest: Digest,
): Promise<TreeRecord | undefined> {
  const textSha256 = await bundle.sha256(textName(manifest))
  if (!textSha256) return undefined
  const index = await bundle.read(indexName(manifest))
  const record = decodeStatIndex(index, { manifest, textSha256 })
  if (record) return record
  const text = await bundle.read(textName(manifest))
  return text && parseMtree(text, `${bundle.path}/${textName(manifest)}`)
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

function* hashed(pieces: Iterable<Buffer>, hash: Hash): Generator<Buffer, void, undefined> {
  for (const piece of pieces) {
    hash.update(piece)
    yield piece
  }
}
