// Waiting for layers that others extract. The kernel tells when a file comes (inotify); it doesn't tell that whoever
// extracts has died, so all who wait look for themselves from time to time, and more often where nothing is told: on a file
// system shared by hosts, or when the user has no inotify instance left.
import { existsSync, watch, type FSWatcher } from 'node:fs'
import path from 'node:path'

const patienceMs = 1_000
const deafPatienceMs = 100

interface Waiter {
  readonly files: readonly string[]
  readonly wake: () => void
}

/** Watches a directory for names; keeps the process alive while somebody waits. */
export class Watch {
  readonly #directory: string
  readonly #waiting = new Set<Waiter>()
  #watcher: FSWatcher | undefined

  constructor(directory: string) {
    this.#directory = directory
  }

  /**
   * Resolves with true when one of these files comes, or if it is there already; with false after a while, and on abort.
   * With `atMostMs`, what is there already doesn't count, since it couldn't be used a moment ago.
   */
  async until(
    files: readonly string[],
    signal: AbortSignal,
    atMostMs?: number,
  ): Promise<boolean> {
    if (signal.aborted) return false
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const giveUp = (): void => resolve(false)
    const waiter = { files, wake: () => resolve(true) }
    this.#waiting.add(waiter)
    this.#watcher ??= this.#start()
    const patience = this.#watcher ? patienceMs : deafPatienceMs
    const timer = setTimeout(giveUp, Math.min(patience, atMostMs ?? Infinity))
    signal.addEventListener('abort', giveUp, { once: true })
    try {
      // what came before the watcher was there isn't told any more
      const isThere = (file: string): boolean => existsSync(path.join(this.#directory, file))
      if (atMostMs === undefined && files.some(isThere)) return true
      return await promise
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', giveUp)
      this.#waiting.delete(waiter)
      if (this.#waiting.size === 0) this.#stop()
    }
  }

  #start(): FSWatcher | undefined {
    try {
      const watcher = watch(this.#directory, (_event, file) => this.#told(file))
      watcher.on('error', () => {
        if (this.#watcher === watcher) this.#stop()
      })
      return watcher
    } catch {
      return undefined
    }
  }

  #stop(): void {
    this.#watcher?.close()
    this.#watcher = undefined
  }

  #told(file: string | null): void {
    for (const { files, wake } of this.#waiting)
      if (file === null || files.includes(file)) wake()
  }
}
