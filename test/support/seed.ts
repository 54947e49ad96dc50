// For tests that generate values by themselves: in CI from one seed, since a change is judged there by what it changes, not by
// luck. Elsewhere by other values each time; a failure tells the seed.
import * as fc from 'fast-check'

/** Of all generated tests in CI; undefined elsewhere. */
export const ciSeed: number | undefined = process.env['CI'] === 'true' ? 20_261_124 : undefined

if (ciSeed !== undefined) fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: ciSeed })
