// How generated tests are run: so many images in CI, more if the environment says so, and from a seed that is told.
import * as fc from 'fast-check'
import { ciSeed } from './seed.ts'

const { env } = process
const factor = Number(env['KOCI_DIFFERENTIAL_FACTOR'] ?? 1)
const wanted = env['KOCI_DIFFERENTIAL_SEED']
const usual = ciSeed ?? Date.now() % 2 ** 31

/** That many in CI; KOCI_DIFFERENTIAL_FACTOR times as many if it is set. */
export function bound(runs: number): number {
  return Math.ceil(runs * factor)
}

/**
 * Checks a property, by other values each time, but for CI, unless there is a fixed seed (for other programs, whose oddities are not
 * ours to find one by one). A failure tells the smallest image found, and KOCI_DIFFERENTIAL_SEED to see it again.
 */
export async function differential<Values>(
  property: fc.IAsyncPropertyWithHooks<Values>,
  runs: number,
  fixedSeed: number = usual,
): Promise<void> {
  const seed = Number(wanted ?? fixedSeed)
  await fc.assert(property, {
    numRuns: bound(runs),
    seed,
    interruptAfterTimeLimit: bound(60) * 1000,
    reporter: details => {
      if (!details.failed) return
      throw new Error(
        `KOCI_DIFFERENTIAL_SEED=${seed} path ${details.counterexamplePath}: ${fc.stringify(details.counterexample)}\n` +
          String(details.errorInstance),
      )
    },
  })
}
