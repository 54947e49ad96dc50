// Merged layers in two stages: while one thread writes a layer, another one inflates those after it. What was inflated
// is used only if, when the layer's turn comes, it is still what would be inflated then; else it is thrown away.
import { isHashedAsBlob } from './blob-reader.ts'
import { Control } from './control.ts'
import { makeSum } from './hash-ahead.ts'
import type { AheadSource, Inflated } from './inflate-ahead.ts'
import type { Layer } from './layer.ts'
import type { Limits } from './limits.ts'
import type { ExtractJob, WorkerPool } from './pool.ts'
import { breakRing, makeRing, stopRing, wakeRing, type Follower } from './ring-memory.ts'

/** When reading ahead begins to pay, and how far it goes; in bytes. Changed by tests. */
export const readAheadBounds: { least: number; hashing: number; budget: number } = {
  /** Of all blobs together; for less, starting a second thread takes longer than it spares. */
  least: 4 * 2 ** 20,
  /** Of all blobs together, for a third thread that hashes what the first one inflates. */
  hashing: 64 * 2 ** 20,
  /** Memory for what was inflated and isn't written yet. */
  budget: 32 * 2 ** 20,
}

/** A layer that is inflated for whoever extracts it. */
export interface Taken {
  readonly blob: ExtractJob['blob']
  readonly inflated: Inflated
}

/** The reading ahead of one run. */
export class ReadAhead {
  readonly #ring: SharedArrayBuffer
  readonly #limits: Limits
  readonly #sources: Map<Layer, AheadSource>
  readonly #ended: Promise<unknown>

  /**
   * Begins with the layers that need extraction, base first. Undefined where it doesn't pay. A layer whose blob isn't
   * there is left out: whether that is an error is seen when its turn comes. `sumsFiles`: whoever takes a layer wants the
   * sums of its files.
   */
  static async start(
    pool: WorkerPool,
    layers: readonly Layer[],
    limits: Limits,
    { signal, sumsFiles }: { readonly signal: AbortSignal; readonly sumsFiles: boolean },
  ): Promise<ReadAhead | undefined> {
    if (pool.maxWorkers < 2) return undefined
    const candidates = layers.filter(({ source, placed }) => !source && !placed)
    const size = candidates.reduce((sum, layer) => sum + layer.size, 0)
    if (size < readAheadBounds.least) return undefined
    const isHashing = size >= readAheadBounds.hashing
    const sources = new Map<Layer, AheadSource>()
    for (const layer of candidates) {
      const source = await sourceOf(layer, isHashing)
      if (source) sources.set(layer, source)
    }
    if (sources.size === 0) return undefined
    const follower = !isHashing ? 'nobody' : sumsFiles ? 'sums' : 'looks'
    return new ReadAhead(pool, sources, limits, follower, signal)
  }

  private constructor(
    pool: WorkerPool,
    sources: Map<Layer, AheadSource>,
    { maxBytes, maxRatio }: Limits,
    follower: Follower,
    signal: AbortSignal,
  ) {
    const ring = makeRing(readAheadBounds.budget, follower)
    const limits = {
      ...(maxBytes === undefined ? {} : { maxBytes }),
      ...(maxRatio === undefined ? {} : { maxRatio }),
    }
    this.#ring = ring
    this.#limits = limits
    this.#sources = sources
    const job = { sources: [...sources.values()], limits, ring }
    const stages = [pool.inflate(job, signal)]
    if (follower !== 'nobody') {
      const hashed = job.sources.map(({ index, diffID, sum }) => ({ index, diffID, sum }))
      stages.push(pool.hash({ hashed, ring, sumsFiles: follower === 'sums' }, signal))
    }
    this.#ended = Promise.all(
      stages.map(stage =>
        stage.catch(() => {
          breakRing(ring)
        }),
      ),
    )
  }

  /** Hands out a layer, once, unless these limits aren't those that it is inflated with. */
  take(layer: Layer, { maxBytes, maxRatio }: Limits): Taken | undefined {
    const source = this.#sources.get(layer)
    if (source === undefined) return undefined
    const limits = this.#limits
    if (maxBytes !== limits.maxBytes || maxRatio !== limits.maxRatio) {
      this.drop(layer)
      return undefined
    }
    this.#sources.delete(layer)
    const { blob, index, memory, sum } = source
    return { blob, inflated: { ring: this.#ring, index, memory, sum } }
  }

  /** Throws away what was inflated of a layer, if nobody took it. */
  drop(layer: Layer): void {
    const source = this.#sources.get(layer)
    if (source === undefined) return
    this.#sources.delete(layer)
    new Control(source.memory).abort()
    wakeRing(this.#ring)
  }

  /** Ends it all; resolves once nothing of it runs any more. */
  async stop(): Promise<void> {
    stopRing(this.#ring)
    await this.#ended
  }
}

async function sourceOf(layer: Layer, isHashing: boolean): Promise<AheadSource | undefined> {
  const { index, digest, compression, diffID } = layer
  try {
    const blob = { ...(await layer.locateBlob()), digest, compression }
    const sum = isHashing && !isHashedAsBlob(blob, diffID) ? makeSum() : undefined
    return { index, blob, diffID, memory: new Control().memory, sum }
  } catch {
    return undefined
  }
}
