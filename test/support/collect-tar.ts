// Runs the reader over an archive and keeps everything it says, for tests that compare.
import { createHash } from 'node:crypto'
import { TarReader, type TarHeader, type TarWarning } from '../../lib/layer/tar-reader.ts'

/** An entry and its body; holes are not in `pieces`. */
export interface Collected {
  readonly header: TarHeader
  readonly pieces: Array<{ readonly offset: number; readonly bytes: Buffer }>
}

/** What the reader said: entries, warnings, and the error if there was one. */
export interface Outcome {
  readonly entries: Collected[]
  readonly warnings: TarWarning[]
  readonly error: (Error & { code?: string }) | undefined
}

/** Reads an archive that is cut into pieces as `sizes` says (repeated); in one piece by default. */
export function collectTar(archive: Buffer, sizes?: readonly number[]): Outcome {
  const entries: Collected[] = []
  const warnings: TarWarning[] = []
  let current: Collected | undefined
  const reader = new TarReader(
    {
      entry(header) {
        if (current) throw new Error('entry before endEntry')
        current = { header, pieces: [] }
        entries.push(current)
      },
      data(chunk, offset) {
        if (!current) throw new Error('data without entry')
        current.pieces.push({ offset, bytes: Buffer.from(chunk) })
      },
      endEntry() {
        if (!current) throw new Error('endEntry without entry')
        current = undefined
      },
      warn(code) {
        warnings.push(code)
      },
    },
    { subject: 'test' },
  )
  try {
    for (const piece of cut(archive, sizes)) reader.push(piece)
    reader.end()
    if (current) throw new Error('no endEntry')
    return { entries, warnings, error: undefined }
  } catch (error) {
    return { entries, warnings, error: error as Error }
  }
}

/** The whole body, holes filled with zeros. */
export function bodyOf({ header, pieces }: Collected): Buffer {
  const body = Buffer.alloc(header.size)
  for (const { offset, bytes } of pieces) bytes.copy(body, offset)
  return body
}

/** SHA-256 of the body in hex. */
export function sumOf(entry: Collected): string {
  return createHash('sha256').update(bodyOf(entry)).digest('hex')
}

// Each piece goes through the same memory, as pieces from a decompressor do: what is kept of it gets lost.
function* cut(archive: Buffer, sizes?: readonly number[]): Generator<Buffer> {
  if (!sizes) {
    yield archive
    return
  }
  const memory = Buffer.alloc(Math.max(...sizes))
  for (let at = 0, turn = 0; at < archive.length; turn++) {
    const size = sizes[turn % sizes.length] ?? 1
    const length = archive.copy(memory, 0, at, at + size)
    yield memory.subarray(0, length)
    memory.fill(0xaa)
    at += length
  }
}
