// Who extracts a layer: in one process one at a time by a promise, between processes by the lock of its name. Nobody who
// waits holds anything: no worker, no lock, no place in the queue.
import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { createError } from '../../lib/errors.ts'
import type { Lock } from '../../lib/fs/lock.ts'
import type { Store } from './store.ts'

/** The right to extract a layer. To be disposed of, whatever came of it. */
export interface Claim extends Disposable {
  /** Exclusive, until it is shared. */
  readonly lock: Lock
}

/** By path of the lock: what this process is extracting. */
const flights = new Map<string, Promise<void>>()

/**
 * Claims are for layers that are about to be worked on: as many at a time as keep all workers busy while others are synced.
 * Further ones are left to other processes that want them, too.
 */
export class Claims {
  #free = 2 * Math.min(availableParallelism(), 4) + 1
  readonly #waiting: (() => void)[] = []

  /**
   * Waits for the right to extract a layer. Undefined, as soon as `take` could take what somebody else extracted; it isn't
   * called while the lock is held, `isComplete` is.
   * @throws {SystemError} ERR_KOCI_ABORTED
   */
  async wait(
    store: Store,
    name: string,
    { take, isComplete }: { take: () => boolean; isComplete: () => boolean },
    signal: AbortSignal,
  ): Promise<Claim | undefined> {
    const id = `${store.path}/${name}`
    for (let pauseMs = 1; ;) {
      signal.throwIfAborted()
      if (take()) return undefined
      const flight = flights.get(id)
      if (flight) {
        await settledOrAborted(flight, signal)
        continue
      }
      await this.#enter()
      const lock = flights.has(id) ? undefined : store.tryLock(name, { shared: false })
      if (lock) {
        if (!isComplete()) return this.#claim(id, lock)
        // completed between the look and the lock
        lock.release()
        this.#leave()
        continue
      }
      this.#leave()
      await sleep(pauseMs, undefined, { signal }).catch((error: unknown) => {
        throw createError('ABORTED', { subject: id }, error)
      })
      pauseMs = Math.min(pauseMs * 2, 50)
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
