// One run of an application, from its options to its end: the signal, the undo list, what is to be closed.
// The order at the end is the point: abort, settle everything in flight, undo in reverse, then close.
import { randomUUID } from 'node:crypto'
import type { Koci } from './application.ts'
import type { Shared } from './context.ts'
import { blameCulprit } from './blame.ts'
import { createError, isError, wrapError } from './errors.ts'
import type { Warning } from './events.ts'
import { WorkerPool } from './layer/pool.ts'

/** What a run has beside its contexts. */
export class Run {
  readonly app: Koci
  readonly id: string = randomUUID()
  readonly pool: WorkerPool = new WorkerPool()
  readonly #controller = new AbortController()
  readonly #undo: (() => unknown)[] = []
  readonly #closers: (() => unknown)[] = []

  constructor(app: Koci) {
    this.app = app
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** What all contexts of the run are made with. */
  get shared(): Pick<Shared, 'app' | 'run' | 'signal' | 'defer' | 'closing' | 'warn'> {
    const { app, id, signal, defer, closing, warn } = this
    return { app, run: id, signal, defer, closing, warn }
  }

  readonly abort = (reason: unknown): void => {
    this.#controller.abort(reason)
  }

  readonly defer = (undo: () => unknown): void => {
    this.#undo.push(undo)
  }

  /** Registers what is to be closed at the end, come what may; last registered, first closed. */
  readonly closing = (close: () => unknown): void => {
    this.#closers.push(close)
  }

  readonly warn = (warning: Warning): void => {
    if (this.app.strict)
      throw createError('STRICT', { subject: warning.code, reason: warning.message })
    this.app.tell('warning', { run: this.id, ...warning })
  }

  /** Runs middleware for all of these at once; the first failure aborts the run, and all are settled before it is thrown. */
  async all<T>(items: readonly T[], each: (item: T) => Promise<void>): Promise<void> {
    const outcomes = await Promise.allSettled(
      items.map(item =>
        each(item).catch(error => {
          this.abort(error)
          throw error
        }),
      ),
    )
    const failure = outcomes.find(outcome => outcome.status === 'rejected')
    if (failure) throw this.signal.aborted ? this.signal.reason : failure.reason
  }

  /** What was deferred by now is undone only once this has gone well: it may not be gone while metadata on disk names it. */
  seal(restore: () => Promise<void>): void {
    const sealed = this.#undo.splice(0)
    this.defer(async () => {
      await restore()
      this.#undo.push(...sealed)
    })
  }

  /** Undoes what was deferred, last first; what can't be undone is reported, and the rest is undone all the same. */
  async undo(): Promise<void> {
    await drain(this.#undo, error =>
      this.app.tell('warning', {
        run: this.id,
        code: 'UNDO_FAILED',
        message: messageOf(error),
      }),
    )
  }

  async close(): Promise<void> {
    this.closing(() => this.pool.close())
    await drain(this.#closers, () => {})
  }
}

/**
 * Does something as one run of the application: freezes its chain, follows the caller's signal, and ends in order.
 * Whatever is thrown is a `KociError`; an abort by the caller is ERR_KOCI_ABORTED.
 */
export async function runOnce<T>(
  app: Koci,
  subject: string,
  signal: AbortSignal | undefined,
  body: (run: Run) => Promise<T>,
): Promise<T> {
  app.freeze()
  const run = new Run(app)
  const follow = (): void => run.abort(createError('ABORTED', { subject }, signal?.reason))
  signal?.addEventListener('abort', follow, { once: true })
  if (signal?.aborted) follow()
  try {
    run.signal.throwIfAborted()
    return await body(run)
  } catch (thrown) {
    const error = firstOf(thrown)
    run.abort(error)
    await run.undo()
    // an abort doesn't hide that the image was made already
    const isTold = signal?.aborted && !isError(error, 'NOT_REFRESHED')
    const cause = isTold ? run.signal.reason : error
    app.tell('run:failed', { run: run.id, error: cause })
    throw wrapError(blameCulprit(cause), subject)
  } finally {
    signal?.removeEventListener('abort', follow)
    await run.close()
  }
}

async function drain(list: (() => unknown)[], failed: (error: unknown) => void): Promise<void> {
  for (let step = list.pop(); step; step = list.pop()) {
    try {
      await step()
    } catch (error) {
      failed(error)
    }
  }
}

/** What failed first, where something failed because of it when it was disposed of. */
function firstOf(error: unknown): unknown {
  const isSuppressed = error instanceof Error && error.name === 'SuppressedError'
  return isSuppressed ? firstOf((error as SuppressedError).suppressed) : error
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
