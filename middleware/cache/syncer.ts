// Writing out the file system of a store, once for all layers that wait for it. One descriptor for the whole run, opened
// before anything is written: syncfs(2) reports errors since then, each only once, so after the first one nothing is
// trusted any more that this run writes.
import { close, O_DIRECTORY, O_RDONLY, open, syncfsLater } from '../../lib/fs/libc.ts'

/** Syncs a file system for many. */
export class Syncer {
  readonly #fd: number
  #failure: unknown
  #running: Promise<void> = Promise.resolve()
  #next: Promise<void> | undefined

  constructor(directory: string) {
    this.#fd = open(directory, O_RDONLY | O_DIRECTORY)
  }

  /** Resolves once all that was written before the call is on disk; rejects if anything of this run can't be. */
  sync(): Promise<void> {
    // one that is under way may have passed by what was written last
    this.#next ??= this.#running.then(() => this.#start())
    return this.#next
  }

  /** To be called when nobody waits any more. */
  close(): void {
    close(this.#fd)
  }

  async #start(): Promise<void> {
    const running = this.#sync()
    this.#running = running.catch(() => {})
    this.#next = undefined
    await running
  }

  async #sync(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    try {
      await syncfsLater(this.#fd)
    } catch (error) {
      this.#failure = error
      throw error
    }
  }
}
