// A stage beside the two of merged extraction: hashes what is inflated, in the ring, so that the thread that inflates
// need not. A layer's sum is left in memory of its own, where whoever has read the layer to its end waits for it.
import { createHash, type Hash } from 'node:crypto'
import { createError } from '../errors.ts'
import { algorithmOf, toDigest, type Digest } from '../oci/digest.ts'
import type { Control } from './control.ts'
import { RingFollower, ringState, throwIfLeft } from './ring.ts'

/** A layer whose uncompressed bytes are to be hashed; plain data. */
export interface HashSource {
  /** The layer's place in the image. */
  readonly index: number
  readonly diffID: Digest
  /** Of `makeSum()`. */
  readonly sum: SharedArrayBuffer
}

/** What the thread that hashes is told. */
export interface HashJob {
  readonly hashed: readonly HashSource[]
  readonly ring: SharedArrayBuffer
}

const patienceMs = 50
const longestSum = 64

/** Memory for a sum that isn't known yet. */
export function makeSum(): SharedArrayBuffer {
  return new SharedArrayBuffer(4 + longestSum)
}

/** Hashes the layers that pass through the ring, until it is stopped. */
export function hashAhead({ hashed, ring }: HashJob): void {
  const sources = new Map(hashed.map(source => [source.index, source]))
  let current: number | undefined
  let hash: Hash | undefined
  new RingFollower(ring).follow((index, chunk) => {
    const source = sources.get(index)
    if (source === undefined) return
    if (index !== current) {
      current = index
      hash = createHash(algorithmOf(source.diffID))
    }
    if (chunk !== undefined) hash?.update(chunk)
    else if (hash) leaveSum(source.sum, hash.digest())
  })
}

/**
 * Waits for the sum of a layer that was read to its end, and compares it.
 * @throws {IntegrityError} ERR_KOCI_DIFF_ID_MISMATCH; {SystemError} ERR_KOCI_ABORTED, ERR_KOCI_WORKER_DIED
 */
export function expectSum(
  sum: SharedArrayBuffer,
  diffID: Digest,
  ring: SharedArrayBuffer,
  control: Control,
  subject: string,
): void {
  const length = new Int32Array(sum, 0, 1)
  for (let known = 0; (known = Atomics.load(length, 0)) === 0;) {
    control.throwIfAborted(subject)
    throwIfLeft(ringState(ring), subject)
    Atomics.wait(length, 0, known, patienceMs)
  }
  const found = toDigest(algorithmOf(diffID), Buffer.from(sum, 4, length[0]).toString('hex'))
  if (found !== diffID)
    throw createError('DIFF_ID_MISMATCH', { subject, found, expected: diffID })
}

function leaveSum(memory: SharedArrayBuffer, sum: Buffer): void {
  sum.copy(Buffer.from(memory, 4))
  const length = new Int32Array(memory, 0, 1)
  Atomics.store(length, 0, sum.length)
  Atomics.notify(length, 0)
}
