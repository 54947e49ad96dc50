// SIGINT and SIGTERM: the first stops the run, which then undoes what it has begun; the second ends the program at once.
import { constants } from 'node:os'

const caught = ['SIGINT', 'SIGTERM'] as const

/** The signal for a run, and which of the operating system's signals came, if one did. */
export interface Interruption {
  readonly signal: AbortSignal
  /** 128 + the signal's number, as shells have it; undefined if none came. */
  readonly exitCode: number | undefined
}

/** Begins to listen; for the rest of the program's life. */
export function listenForSignals(): Interruption {
  const controller = new AbortController()
  let exitCode: number | undefined
  for (const name of caught)
    process.on(name, () => {
      const code = 128 + constants.signals[name]
      if (exitCode !== undefined) process.exit(code)
      exitCode = code
      controller.abort(name)
    })
  return {
    signal: controller.signal,
    get exitCode() {
      return exitCode
    },
  }
}
