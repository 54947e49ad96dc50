// The first stage of merged extraction: reads, hashes and inflates layers in order, ahead of those who write them.
// Nothing is thrown: how it went with a layer is part of what is handed over, and is found when its turn comes.
import { reviveError, wrapError } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import {
  checkBlob,
  isAboutData,
  readBlob,
  type BlobOutput,
  type BlobSource,
} from './blob-reader.ts'
import { Control } from './control.ts'
import type { Limits } from './limits.ts'
import { expectSum } from './hash-ahead.ts'
import { RingReader, RingWriter, type Verdict } from './ring.ts'

/** A layer that is to be inflated; plain data. */
export interface AheadSource {
  /** The layer's place in the image. */
  readonly index: number
  readonly blob: BlobSource
  readonly diffID: Digest
  /** Of a `Control`: whoever doesn't want the layer any more aborts it. */
  readonly memory: SharedArrayBuffer
  /** Where another thread leaves the sum of the uncompressed bytes; without it they are hashed by this one. */
  readonly sum?: SharedArrayBuffer | undefined
}

/** What the thread that reads ahead is told. */
export interface AheadJob {
  readonly sources: readonly AheadSource[]
  readonly limits: Limits
  readonly ring: SharedArrayBuffer
}

/** A layer that is being inflated elsewhere; plain data. */
export interface Inflated {
  readonly ring: SharedArrayBuffer
  readonly index: number
  readonly memory: SharedArrayBuffer
  readonly sum?: SharedArrayBuffer | undefined
}

/** Inflates layer after layer into the ring until all are through, or the ring is stopped. */
export function inflateAhead({ sources, limits, ring }: AheadJob): void {
  const writer = new RingWriter(ring)
  for (const source of sources) {
    if (writer.isStopped) return
    const control = new Control(source.memory)
    writer.begin(source.index, control, `layer ${source.blob.digest}`)
    writer.end(inflate(source, limits, control, writer))
  }
}

function inflate(
  { blob, diffID, sum }: AheadSource,
  limits: Limits,
  control: Control,
  writer: RingWriter,
): Verdict {
  let complete = false
  const output: BlobOutput = {
    data: writer.write,
    end: () => {
      complete = true
    },
    room: writer.room,
  }
  try {
    return { bytes: readBlob(blob, sum ? undefined : diffID, limits, control, output) }
  } catch (error) {
    return { error: wrapError(error, `layer ${blob.digest}`).toJSON(), complete }
  }
}

/**
 * `readBlob` for a layer that is being inflated by another thread: the same bytes, the same errors, at the same point.
 * @throws as `readBlob`; {SystemError} ERR_KOCI_WORKER_DIED
 */
export function readInflated(
  { ring, index, memory, sum }: Inflated,
  blob: BlobSource,
  diffID: Digest,
  control: Control,
  output: BlobOutput,
): number {
  const subject = `layer ${blob.digest}`
  let verdict: Verdict
  try {
    verdict = new RingReader(ring).read(index, control, subject, output.data)
    if (!('error' in verdict) || verdict.complete) output.end()
  } catch (error) {
    new Control(memory).abort()
    // the other thread may be anywhere, or have stopped for a reason that lies behind this one
    if (isAboutData(error)) checkBlob(blob, control)
    throw error
  }
  if ('error' in verdict) throw reviveError(verdict.error)
  if (sum) expectSum(sum, diffID, ring, control, subject)
  return verdict.bytes
}
