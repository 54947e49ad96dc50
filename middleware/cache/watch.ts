// Waiting for layers that others extract. All who wait in a run share one timer: a stat a tick, and a listing when something
// has changed. A hundred waiters that each looked for themselves would cost more than the extraction they wait for.
import { readdirSync, statSync } from 'node:fs'

const tickMs = 10
/** After so long somebody who waits looks whether the one who extracts has died. */
const patienceMs = 300

interface Waiter {
  readonly files: readonly string[]
  readonly deadline: number
  readonly signal: AbortSignal
  readonly resolve: () => void
}

/** Watches a directory for names. */
export class Watch {
  readonly #directory: string
  readonly #waiting = new Set<Waiter>()
  #timer: NodeJS.Timeout | undefined
  #changed = 0n

  constructor(directory: string) {
    this.#directory = directory
  }

  /** Resolves when the directory changes and has one of these files then, after a while in any case, and on abort. */
  until(files: readonly string[], signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiting.add({ files, signal, resolve, deadline: performance.now() + patienceMs })
    if (this.#timer === undefined) {
      this.#changed = this.#time()
      this.#timer = setInterval(() => this.#tick(), tickMs)
    }
    return promise
  }

  #tick(): void {
    const time = this.#time()
    const present = time === this.#changed ? undefined : this.#names()
    this.#changed = time
    const now = performance.now()
    for (const waiter of this.#waiting) {
      const { files, signal, deadline, resolve } = waiter
      const isThere = present !== undefined && files.some(file => present.has(file))
      if (!isThere && now < deadline && !signal.aborted) continue
      this.#waiting.delete(waiter)
      resolve()
    }
    if (this.#waiting.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #time(): bigint {
    return statSync(this.#directory, { bigint: true, throwIfNoEntry: false })?.mtimeNs ?? 0n
  }

  #names(): Set<string> {
    try {
      return new Set(readdirSync(this.#directory))
    } catch {
      // whoever waits finds out that the store is gone
      return new Set()
    }
  }
}
