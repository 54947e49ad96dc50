// The record of one layer in a directory of its own, as a file beside it: a stat index without a text, that belongs to
// a DiffID. It is made in the worker that extracted the layer, from hashes taken while the files were written.
import { openSync, closeSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { createError, wrapError } from '../errors.ts'
import { S_IFMT, S_IFREG } from '../fs/libc.ts'
import { withTree } from '../fs/open-tree.ts'
import type { Digest } from '../oci/digest.ts'
import type { TreeRecord } from './record.ts'
import { recordTree, type RecordOptions } from './record-tree.ts'
import { decodeStatIndex, encodeStatIndex } from './stat-index.ts'

/** What is kept about a layer's record elsewhere, so that nobody can exchange it; JSON. */
export interface LayerRecordSummary {
  /** Of the file, but for its last 32 bytes, which are this sum: hexadecimal. */
  readonly sha256: string
  /** Names, the root included. */
  readonly entries: number
  /** What the tree takes on a disk of 4 KiB blocks, holes counted as if they were written. */
  readonly bytes: number
}

/**
 * Records a tree, and writes the record to a file that must not exist. Not synced.
 * @throws {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED; {IntegrityError} ERR_KOCI_FILE_CHANGED
 */
export async function writeLayerRecord(
  dir: string,
  file: string,
  diffID: Digest,
  options: RecordOptions = {},
): Promise<LayerRecordSummary> {
  const record = await withTree(dir, root => recordTree(root, { subject: dir, ...options }))
  let sum: Buffer = Buffer.alloc(0)
  try {
    const fd = openSync(file, 'wx', 0o600)
    try {
      for (const piece of encodeStatIndex(record, ownerOf(diffID))) {
        for (let at = 0; at < piece.length;) at += writeSync(fd, piece, at)
        sum = piece
      }
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    throw wrapError(error, file)
  }
  return {
    sha256: Buffer.from(sum).toString('hex'),
    entries: record.count,
    bytes: blocksOf(record),
  }
}

/**
 * Reads a layer's record.
 * @throws {FormatError} ERR_KOCI_INVALID_STORE if it isn't the one that was written for this layer; {SystemError} ERR_KOCI_IO
 */
export async function readLayerRecord(
  file: string,
  diffID: Digest,
  { sha256 }: LayerRecordSummary,
): Promise<TreeRecord> {
  const bytes = await readWhole(file)
  const isSame = bytes.subarray(-32).toString('hex') === sha256
  const record = isSame ? decodeStatIndex(bytes, ownerOf(diffID)) : undefined
  if (record) return record
  throw createError('INVALID_STORE', { subject: file, reason: 'the record is damaged' })
}

async function readWhole(file: string): Promise<Buffer> {
  try {
    const handle = await open(file, 'r')
    try {
      return await handle.readFile()
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw wrapError(error, file)
  }
}

const noText = Buffer.alloc(32)

function ownerOf(manifest: Digest): { manifest: Digest; textSha256: Buffer } {
  return { manifest, textSha256: noText }
}

function blocksOf({ columns, count }: TreeRecord): number {
  const { mode, nlink, size, ino } = columns
  const linked = new Set<bigint>()
  let bytes = 0
  for (let row = 0; row < count; row++) {
    const isFile = ((mode[row] as number) & S_IFMT) === S_IFREG
    if (isFile && (nlink[row] as number) > 1) {
      const inode = ino[row] as bigint
      if (linked.has(inode)) continue
      linked.add(inode)
    }
    bytes += Math.ceil((isFile ? (size[row] as number) : 1) / 4096) * 4096
  }
  return bytes
}
