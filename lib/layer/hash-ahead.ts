// A stage between the two of merged extraction: hashes what is inflated, in the ring, so that neither the thread that
// inflates need do it nor the one that writes. A layer's sum is left in memory of its own, where whoever has read the layer
// to its end waits for it; those of its files with the slots in which they end.
import { createHash, hash as sumOf, type Hash } from 'node:crypto'
import { createError } from '../errors.ts'
import { algorithmOf, toDigest, type Digest } from '../oci/digest.ts'
import type { Control } from './control.ts'
import { RingFollower } from './ring.ts'
import { ringState, throwIfLeft } from './ring-memory.ts'
import type { TarHandler, TarHeader } from './tar-header.ts'
import { TarReader } from './tar-reader.ts'

/** A layer whose uncompressed bytes are to be hashed; plain data. */
export interface HashSource {
  /** The layer's place in the image. */
  readonly index: number
  readonly diffID: Digest
  /** Of `makeSum()`; without it only files are hashed. */
  readonly sum?: SharedArrayBuffer | undefined
}

/** What the thread that hashes is told. */
export interface HashJob {
  readonly hashed: readonly HashSource[]
  readonly ring: SharedArrayBuffer
  /** Whether files are hashed, too. */
  readonly sumsFiles: boolean
}

const patienceMs = 50
const longestSum = 64

/** Memory for a sum that isn't known yet. */
export function makeSum(): SharedArrayBuffer {
  return new SharedArrayBuffer(4 + longestSum)
}

/** Hashes the layers that pass through the ring, until it is stopped. */
export function hashAhead({ hashed, ring, sumsFiles }: HashJob): void {
  const sources = new Map(hashed.map(source => [source.index, source]))
  const follower = new RingFollower(ring)
  let current: number | undefined
  let hash: Hash | undefined
  let files: FileSums | undefined
  follower.follow((index, chunk) => {
    const source = sources.get(index)
    if (source === undefined) return
    if (index !== current) {
      current = index
      hash = source.sum && createHash(algorithmOf(source.diffID))
      files = sumsFiles ? new FileSums(follower) : undefined
    }
    if (chunk === undefined) {
      if (source.sum && hash) leaveSum(source.sum, hash.digest())
      return
    }
    hash?.update(chunk)
    files?.push(chunk)
  })
}

/**
 * Whether a file's sum is left in the ring: not that of a sparse one, which may be many times as long as what there is of it
 * in the ring, and which whoever writes it checks against limits first.
 */
export function isSummedAhead({ type, size, sparse }: TarHeader): boolean {
  return type === 'file' && size > 0 && !sparse
}

/** Leaves the sums of the files of one layer. */
class FileSums implements TarHandler {
  readonly #follower: RingFollower
  readonly #reader = new TarReader(this)
  #isReadable = true
  #header: TarHeader | undefined
  #sum: Buffer | undefined
  #hash: Hash | undefined

  constructor(follower: RingFollower) {
    this.#follower = follower
  }

  /** What can't be read is an error for whoever writes it, who reads the same. */
  push(chunk: Buffer): void {
    if (!this.#isReadable) return
    try {
      this.#reader.push(chunk)
    } catch {
      this.#isReadable = false
    }
  }

  entry(header: TarHeader): void {
    this.#header = isSummedAhead(header) ? header : undefined
    this.#sum = undefined
    this.#hash = undefined
  }

  data(chunk: Buffer): void {
    if (this.#header === undefined) return
    if (chunk.length === this.#header.size) this.#sum = sumOf('sha256', chunk, 'buffer')
    else {
      this.#hash ??= createHash('sha256')
      this.#hash.update(chunk)
    }
  }

  endEntry(): void {
    if (this.#header !== undefined) this.#follower.leaveSum(this.#sum ?? this.#hash?.digest())
  }
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
