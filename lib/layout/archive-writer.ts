// A layout in a tar file: an OCI archive, as skopeo and Docker read it. The same layout gives the same bytes.
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, open, unlink } from 'node:fs/promises'
import path from 'node:path'
import { createError, wrapError } from '../errors.ts'
import { writeLayer, type LayerEntry } from '../layer/layer-writer.ts'
import { describe, type Descriptor } from '../oci/descriptor.ts'
import { algorithmOf, encodedOf, toDigest } from '../oci/digest.ts'
import { encodeJson } from '../oci/json.ts'
import { renameNew, syncDirectory } from './new-file.ts'
import { openRegular, readFrom, type BlobLocation } from './regular-file.ts'

/** A blob, and where to read it. */
export interface ArchivedBlob {
  readonly descriptor: Descriptor
  readonly locate: () => Promise<BlobLocation>
}

const pieceSize = 1 << 20

/**
 * Writes an archive: under a private name, every blob verified as it is written, synced, renamed. Missing parents are made.
 * @throws {ConflictError} ERR_KOCI_CLOBBER something is there; {IntegrityError} ERR_KOCI_DIGEST_MISMATCH
 */
export async function writeArchive(
  target: string,
  index: unknown,
  blobs: readonly ArchivedBlob[],
  signal?: AbortSignal,
): Promise<void> {
  const parent = path.dirname(target)
  const draft = path.join(
    parent,
    `.${path.basename(target)}.koci-${randomBytes(8).toString('hex')}`,
  )
  try {
    await mkdir(parent, { recursive: true, mode: 0o755 })
    const handle = await open(draft, 'wx', 0o666)
    try {
      await writeLayer(entriesOf(index, blobs, signal), async chunk => {
        await handle.writeFile(chunk)
      })
      await handle.sync()
    } finally {
      await handle.close()
    }
    renameNew(draft, target)
    await syncDirectory(parent)
  } catch (error) {
    await unlink(draft).catch(() => undefined)
    throw wrapError(error, target)
  }
}

async function* entriesOf(
  index: unknown,
  blobs: readonly ArchivedBlob[],
  signal: AbortSignal | undefined,
): AsyncGenerator<LayerEntry, void, undefined> {
  yield file('oci-layout', encodeJson({ imageLayoutVersion: '1.0.0' }))
  yield file('index.json', encodeJson(index))
  yield directory('blobs')
  const sorted = blobs.toSorted((a, b) => (a.descriptor.digest < b.descriptor.digest ? -1 : 1))
  const byAlgorithm = Map.groupBy(sorted, ({ descriptor }) => algorithmOf(descriptor.digest))
  for (const [algorithm, group] of byAlgorithm) {
    yield directory(`blobs/${algorithm}`)
    const sorted = group.toSorted((a, b) =>
      a.descriptor.digest < b.descriptor.digest ? -1 : 1,
    )
    for (const blob of sorted) {
      const { digest, size } = blob.descriptor
      const entry = directory(`blobs/${algorithm}/${encodedOf(digest)}`)
      yield { ...entry, type: 'file', mode: 0o644, size, body: () => bodyOf(blob, signal) }
    }
  }
}

function file(name: string, bytes: Buffer): LayerEntry {
  return {
    ...directory(name),
    type: 'file',
    mode: 0o644,
    size: bytes.length,
    body: () => [bytes],
  }
}

function directory(name: string): LayerEntry {
  return {
    rawPath: Buffer.from(name),
    type: 'directory',
    mode: 0o755,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: 0n,
  }
}

async function* bodyOf(
  { descriptor, locate }: ArchivedBlob,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer, void, undefined> {
  const subject = describe(descriptor)
  const { digest: expected } = descriptor
  const location = await locate()
  const source = await openRegular(location.path, subject)
  if (!source) throw createError('BLOB_NOT_FOUND', { subject, layout: location.path })
  try {
    const hash = createHash(algorithmOf(expected))
    for (let at = 0; at < location.size;) {
      if (signal?.aborted) throw createError('ABORTED', { subject }, signal.reason)
      const length = Math.min(pieceSize, location.size - at)
      const piece = await readFrom(source.handle, location.offset + at, length)
      if (piece.length === 0) break
      at += piece.length
      hash.update(piece)
      yield piece
    }
    const found = toDigest(algorithmOf(expected), hash.digest('hex'))
    if (found !== expected) throw createError('DIGEST_MISMATCH', { subject, found, expected })
  } finally {
    await source.handle.close()
  }
}
