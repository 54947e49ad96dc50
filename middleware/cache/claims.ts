// Who extracts a layer: in one process one at a time by a promise, between processes by the lock of its name. Nobody who
// waits holds anything: no worker, no lock, no place in the queue.
import { availableParallelism } from 'node:os'
import path from 'node:path'
import type { Lock } from '../../lib/fs/lock.ts'
import type { Store } from './store.ts'
import { Watch } from './watch.ts'

/** The right to extract a layer. To be disposed of, whatever came of it. */
export interface Claim extends Disposable {
  /** Exclusive, until it is shared. */
  readonly lock: Lock
}

/** By path of the lock: what this process is extracting. */
const flights = new Map<string, Promise<void>>()

/** A layer to be waited for. */
export interface Wanted {
  /** Of its lock. */
  readonly name: string
  /** Under which it may be stored in the end. */
  readonly names: readonly string[]
  /** Takes what is there; not called while the lock is held. */
  readonly take: () => boolean
  readonly isComplete: () => boolean
}

/**
 * Where one process can't keep all processors busy it claims no more layers at a time than it can work on while others are
 * synced: the rest is left to other processes that want them, too. Elsewhere these would only be in its way.
 */
const most = availableParallelism() > 4 ? 9 : Infinity

/** A layer that is there can be taken when who made it is done with syncing it; looked for after so long, then twice as long. */
const shortestPauseMs = 10

/** The claims of one run. */
export class Claims {
  readonly #store: Store
  readonly #watch: Watch
  #free = most
  readonly #waiting: (() => void)[] = []

  constructor(store: Store) {
    this.#store = store
    this.#watch = new Watch(path.join(store.path, 'layers'))
  }

  /**
   * Waits for the right to extract a layer; undefined as soon as what somebody else extracted could be taken.
   * @throws {SystemError} ERR_KOCI_ABORTED
   */
  async wait(wanted: Wanted, signal: AbortSignal): Promise<Claim | undefined> {
    const { name, names, take, isComplete } = wanted
    const id = `${this.#store.path}/${name}`
    const files = names.map(each => `${each}.json`)
    for (let pauseMs: number | undefined; ;) {
      signal.throwIfAborted()
      if (take()) return undefined
      const flight = flights.get(id)
      if (flight) {
        await settledOrAborted(flight, signal)
        continue
      }
      await this.#enter()
      const lock = flights.has(id) ? undefined : this.#store.tryLock(name, { shared: false })
      if (lock) {
        if (!isComplete()) return this.#claim(id, lock)
        // completed between the look and the lock
        lock.release()
        this.#leave()
        continue
      }
      this.#leave()
      const isTold = await this.#watch.until(files, signal, pauseMs)
      // that the lock is shared now isn't told; and what is there may be of no use, if another boot left it
      if (isTold) pauseMs = shortestPauseMs
      else if (pauseMs !== undefined) pauseMs *= 2
    }
  }

  #claim(id: string, lock: Lock): Claim {
    const { promise, resolve } = Promise.withResolvers<void>()
    flights.set(id, promise)
    return {
      lock,
      [Symbol.dispose]: () => {
        flights.delete(id)
        this.#leave()
        resolve()
      },
    }
  }

  async #enter(): Promise<void> {
    if (this.#free > 0) this.#free -= 1
    else await new Promise<void>(resolve => this.#waiting.push(resolve))
  }

  #leave(): void {
    const next = this.#waiting.shift()
    if (next) next()
    else this.#free += 1
  }
}

async function settledOrAborted(flight: Promise<void>, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const wake = (): void => resolve()
  signal.addEventListener('abort', wake, { once: true })
  try {
    await Promise.race([flight, promise])
  } finally {
    signal.removeEventListener('abort', wake)
  }
}
