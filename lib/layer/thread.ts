// One worker thread, with at most one job. It is no reason for the process to stay alive while it has none.
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { createError } from '../errors.ts'
import type { Answer, Request } from './worker.ts'

/** A job, and how whoever runs it is asked to stop. */
export interface ThreadJob {
  readonly subject: string
  readonly request: Request
  readonly abort: () => void
}

const workerURL = new URL(`./worker${extname(import.meta.url)}`, import.meta.url)

/** A thread of the pool. */
export class Thread {
  readonly #worker: Worker
  readonly #ended: Promise<void>
  readonly #onIdle: () => void
  #job: { readonly job: ThreadJob; readonly settle: PromiseWithResolvers<Answer> } | undefined

  constructor(onIdle: () => void, onEnd: () => void) {
    this.#onIdle = onIdle
    this.#worker = new Worker(workerURL, {
      // the program's own flags would only slow the start down; those of NODE_OPTIONS, by which modules may be found, hold here, too
      execArgv: [],
      // hardly anything is made for each entry; of a layer made to need it, V8 would let 48 MB of garbage gather
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    })
    this.#worker.unref()
    let reason: unknown = 'it exited'
    this.#worker.on('message', (answer: Answer) => {
      this.#answer(answer)
    })
    this.#worker.on('error', error => {
      reason = error
    })
    this.#ended = new Promise(resolve => {
      this.#worker.once('exit', () => {
        onEnd()
        this.#fail(reason)
        resolve()
      })
    })
  }

  /**
   * What the worker answers, errors included.
   * @throws {SystemError} ERR_KOCI_WORKER_DIED
   */
  async run(job: ThreadJob): Promise<Answer> {
    const settle = Promise.withResolvers<Answer>()
    this.#job = { job, settle }
    this.#worker.ref()
    this.#worker.postMessage(job.request, [])
    return settle.promise
  }

  /** Stops the job and ends the thread; resolves once it has ended. */
  async stop(): Promise<void> {
    this.#job?.job.abort()
    this.#worker.ref()
    this.#worker.postMessage(undefined, [])
    await this.#ended
  }

  #answer(answer: Answer): void {
    const running = this.#job
    this.#job = undefined
    this.#worker.unref()
    this.#onIdle()
    running?.settle.resolve(answer)
  }

  #fail(reason: unknown): void {
    const running = this.#job
    this.#job = undefined
    if (running === undefined) return
    const text = reason instanceof Error ? reason.message : String(reason)
    const { subject } = running.job
    running.settle.reject(createError('WORKER_DIED', { subject, reason: text }, reason))
  }
}
