// Contenders run alternately, so that what else happens on the machine hits all of them.
import type { Series } from './case.ts'
import { measure, medianOf, type Command, type Finished } from './measure.ts'

/** One way to do the work. */
export interface Contender {
  readonly name: string
  /** Called before each run, unmeasured; what it returns is run and measured. */
  readonly prepare: (run: number) => Promise<Command> | Command
  /** Called after each run, unmeasured: checks what was made, and removes it. */
  readonly after?: (finished: Finished) => Promise<void> | void
}

/** Runs every contender, then every one again, as often as asked. Throws what the first failing command says. */
export async function race(
  contenders: readonly Contender[],
  runs: number,
  signal: AbortSignal,
): Promise<Series[]> {
  const finished = contenders.map((): Finished[] => [])
  for (let run = 0; run < runs; run += 1)
    for (const [at, { prepare, after }] of contenders.entries()) {
      const result = await measure(await prepare(run), signal)
      await after?.(result)
      finished[at]?.push(result)
    }
  return contenders.map(({ name }, at) => {
    const runs = (finished[at] ?? []).map(({ wall, user, sys, peak }) => ({
      wall,
      user,
      sys,
      peak,
    }))
    return { name, runs, median: medianOf(runs) }
  })
}
