// Threads that extract layers. Started when there is work for them, kept for the next layer, and no reason for the
// process to stay alive while they are idle. Never terminated: descriptors opened over FFI would stay open.
import { availableParallelism } from 'node:os'
import { createError, reviveError } from '../errors.ts'
import type { StoredJob, StoredResult } from './apply-stored.ts'
import { Control, type Counters } from './control.ts'
import type { ExtractJob, ExtractResult } from './extract.ts'
import { FileHashes } from './file-hashes.ts'
import type { HashJob } from './hash-ahead.ts'
import type { AheadJob, Inflated } from './inflate-ahead.ts'
import { stopRing, wakeRing } from './ring-memory.ts'
import { Thread, type ThreadJob } from './thread.ts'
import type { Answer } from './worker.ts'

export type { Counters } from './control.ts'
export type { ExtractJob, ExtractResult } from './extract.ts'

/** How many threads. */
export interface PoolOptions {
  /** Default and upper bound: the number of processors, at most 4. */
  readonly maxWorkers?: number | undefined
}

/** How one extraction is watched and stopped. */
export interface ExtractOptions {
  /** The extraction is then stopped, and the promise settles once it has. */
  readonly signal?: AbortSignal | undefined
  /** Called when the job is taken on, with numbers that grow from then on. */
  readonly onStart?: ((counters: Counters) => void) | undefined
  /** By whom the layer is inflated, if it is already. */
  readonly inflated?: Inflated | undefined
}

/** Extracts layers in worker threads: as many at a time as there are workers, the others wait in order. */
export class WorkerPool {
  readonly #maxWorkers: number
  readonly #threads = new Set<Thread>()
  readonly #idle: Thread[] = []
  readonly #waiting: Array<{ start: (thread: Thread) => void; cancel: () => void }> = []
  /** Threads beside those that there may be at most. */
  #extra = 0
  #closed: Promise<void> | undefined

  constructor(options: PoolOptions = {}) {
    const most = Math.min(availableParallelism(), 4)
    this.#maxWorkers = Math.max(1, Math.min(options.maxWorkers ?? most, most))
  }

  /** How many jobs can run at the same time. */
  get maxWorkers(): number {
    return this.#maxWorkers
  }

  /**
   * Extracts a layer. Two jobs with the same target must not run at the same time.
   * When the promise settles, nothing of the job runs any more.
   * @throws {KociError} as `extractBlob`, with the layer's digest as `details.layer`; ERR_KOCI_ABORTED by the signal or
   * `close()`; ERR_KOCI_WORKER_DIED
   */
  async extract(job: ExtractJob, options: ExtractOptions = {}): Promise<ExtractResult> {
    const { signal, onStart, inflated } = options
    const control = new Control()
    const answer = await this.#run(
      {
        subject: `layer ${job.blob.digest}`,
        request: { job, memory: control.memory, inflated },
        abort: () => {
          control.abort()
          if (inflated) wakeRing(inflated.ring)
        },
      },
      signal,
      () => onStart?.(inflated ? new Staged(new Control(inflated.memory), control) : control),
    )
    if ('error' in answer) throw reviveError(answer.error)
    const { result, hashes } = answer as Extract<Answer, { result: unknown }>
    return hashes === undefined
      ? result
      : { ...result, hashes: FileHashes.fromTransferable(hashes) }
  }

  /**
   * Applies a stored layer to a tree. As `extract` otherwise.
   * @throws {KociError} as `applyStored`, with the layer's digest as `details.layer`; ERR_KOCI_ABORTED; ERR_KOCI_WORKER_DIED
   */
  async applyStored(job: StoredJob, options: ExtractOptions = {}): Promise<StoredResult> {
    const control = new Control()
    const answer = await this.#run(
      {
        subject: `layer ${job.digest}`,
        request: { stored: job, memory: control.memory },
        abort: () => {
          control.abort()
        },
      },
      options.signal,
      () => options.onStart?.(control),
    )
    if ('error' in answer) throw reviveError(answer.error)
    const { applied, hashes } = answer as Extract<Answer, { applied: unknown }>
    return hashes === undefined
      ? applied
      : { ...applied, hashes: FileHashes.fromTransferable(hashes) }
  }

  /**
   * Has a thread read ahead; resolves once it is through, or was told to stop by `stopRing()` or `close()`.
   * @throws {SystemError} ERR_KOCI_ABORTED if it wasn't begun; ERR_KOCI_WORKER_DIED
   */
  async inflate(job: AheadJob, signal?: AbortSignal): Promise<void> {
    const abort = (): void => {
      stopRing(job.ring)
    }
    await this.#run({ subject: 'layers to be inflated', request: job, abort }, signal)
  }

  /**
   * Has a thread hash what passes through the ring, beside the others: it has less to do than they. Resolves and throws as
   * {@link WorkerPool.inflate}.
   */
  async hash(job: HashJob, signal?: AbortSignal): Promise<void> {
    const abort = (): void => {
      stopRing(job.ring)
    }
    this.#extra += 1
    try {
      await this.#run({ subject: 'layers to be hashed', request: job, abort }, signal)
    } finally {
      this.#extra -= 1
    }
  }

  async #run(job: ThreadJob, signal?: AbortSignal, onStart?: () => void): Promise<Answer> {
    const aborted = (): Error =>
      createError('ABORTED', { subject: job.subject }, signal?.reason)
    if (this.#closed !== undefined || signal?.aborted === true) throw aborted()
    const { promise: started, resolve, reject } = Promise.withResolvers<Thread>()
    const waiter = {
      start: resolve,
      cancel: () => {
        reject(aborted())
      },
    }
    const onAbort = (): void => {
      job.abort()
      const at = this.#waiting.indexOf(waiter)
      if (at < 0) return
      this.#waiting.splice(at, 1)
      waiter.cancel()
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      this.#waiting.push(waiter)
      this.#assign()
      const thread = await started
      if (this.#closed !== undefined) throw aborted()
      onStart?.()
      return await thread.run(job)
    } finally {
      signal?.removeEventListener('abort', onAbort)
      this.#assign()
    }
  }

  /** Stops what runs, cancels what waits, and ends the threads; resolves once all have ended. */
  close(): Promise<void> {
    this.#closed ??= this.#stop()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #stop(): Promise<void> {
    for (const waiter of this.#waiting.splice(0)) waiter.cancel()
    await Promise.all([...this.#threads].map(thread => thread.stop()))
  }

  /** Gives waiting jobs to idle threads, or to new ones. */
  #assign(): void {
    while (this.#waiting.length > 0) {
      let thread = this.#idle.pop()
      if (thread === undefined) {
        if (this.#threads.size >= this.#maxWorkers + this.#extra) return
        thread = this.#startThread()
      }
      this.#waiting.shift()?.start(thread)
    }
  }

  #startThread(): Thread {
    const thread = new Thread(
      () => {
        this.#idle.push(thread)
      },
      () => {
        this.#threads.delete(thread)
        const at = this.#idle.indexOf(thread)
        if (at >= 0) this.#idle.splice(at, 1)
      },
    )
    this.#threads.add(thread)
    return thread
  }
}

/** How far an extraction in two stages is. */
class Staged implements Counters {
  readonly #first: Counters
  readonly #second: Counters

  constructor(first: Counters, second: Counters) {
    this.#first = first
    this.#second = second
  }

  get read(): number {
    return this.#first.read
  }

  get bytes(): number {
    return this.#first.bytes
  }

  get entries(): number {
    return this.#second.entries
  }

  get fileBytes(): number {
    return this.#second.fileBytes
  }
}
