// Cases of the catalogue that another test tries: that it is still there.
import { readFileSync } from 'node:fs'
import path from 'node:path'

const tests = path.resolve(import.meta.dirname, '..')

/** What is tried, in which file under `test`, and words of the test's name. */
export type Elsewhere = readonly [what: string, file: string, words: string]

/** Fails for each that has gone. */
export async function expectElsewhere(
  t: { ok(found: unknown, what: string): unknown },
  rows: readonly Elsewhere[],
): Promise<void> {
  for (const [what, file, words] of rows)
    t.ok(readFileSync(path.join(tests, file), 'utf8').includes(words), `${what}: ${file}`)
}
