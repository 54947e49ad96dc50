// Whole files of a record, which koci itself writes in pieces.
import { writeMtree } from '../../lib/bundle/mtree-writer.ts'
import type { TreeRecord } from '../../lib/bundle/record.ts'
import { encodeStatIndex, type IndexOwner } from '../../lib/bundle/stat-index.ts'

/** The mtree text of a record. */
export function textOf(record: TreeRecord, pieceBytes?: number): Buffer {
  return joined(writeMtree(record, pieceBytes))
}

/** The stat index of a record. */
export function indexOf(record: TreeRecord, owner: IndexOwner): Buffer {
  return joined(encodeStatIndex(record, owner))
}

/** A piece may be overwritten as soon as the next one is asked for. */
function joined(pieces: Iterable<Buffer>): Buffer {
  return Buffer.concat(Array.from(pieces, piece => Buffer.from(piece)))
}
