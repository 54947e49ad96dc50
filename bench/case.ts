// What a case is, and what comes out of one. A case is a file in cases/ that exports `benchCase`; nothing lists them.
import { readdirSync } from 'node:fs'
import path from 'node:path'
import type { Bench } from './bench.ts'
import type { Measurement } from './measure.ts'

/** Something that is measured. */
export interface Case {
  /** For `--only`; the name of its file. */
  readonly name: string
  /** One line, for `--list` and as a heading. */
  readonly description: string
  readonly run: (bench: Bench) => Promise<CaseResult>
}

/** All runs of one contender. */
export interface Series {
  readonly name: string
  readonly runs: readonly Measurement[]
  /** Of each figure its own. */
  readonly median: Measurement
}

/** A figure that isn't a run of a program. */
export interface Rate {
  readonly name: string
  readonly value: number
  readonly unit: string
}

/** A ratio or a time, and how large it may be. */
export interface Check {
  readonly name: string
  readonly value: number
  readonly unit?: string
  /** `value` has to be at most, or at least, this. Without a target it is only told. */
  readonly target?: number
  readonly atLeast?: boolean
  /** Undefined where there is no target, or what was measured is too small to count. */
  readonly met?: boolean
}

/** What a case found. */
export interface CaseResult {
  readonly series: readonly Series[]
  readonly rates?: readonly Rate[]
  readonly checks: readonly Check[]
  /** What one has to know to read the figures: contenders that were left out, and why. */
  readonly notes: readonly string[]
}

/** All cases, by name. */
export async function loadCases(): Promise<Case[]> {
  const directory = path.join(import.meta.dirname, 'cases')
  const files = readdirSync(directory).filter(name => name.endsWith('.ts'))
  const modules = await Promise.all(
    files
      .sort()
      .map(name => import(path.join(directory, name)) as Promise<{ benchCase: Case }>),
  )
  return modules.map(({ benchCase }) => benchCase)
}
