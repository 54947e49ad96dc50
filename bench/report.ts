// Figures for people: medians in a table for each case, then what they are held against.
import type { CaseResult, Check, Rate, Series } from './case.ts'
import type { Corpus } from './corpus.ts'
import type { Machine } from './machine.ts'
import type { Peer } from './peers.ts'

/** All that a run found; the form of `--json`. Seconds and bytes, where no unit says otherwise. */
export interface Report {
  readonly koci: string
  readonly startedAt: string
  readonly quick: boolean
  readonly runs: number
  /** Whether figures are held against their targets. */
  readonly counts: boolean
  readonly machine: Machine
  readonly peers: readonly Peer[]
  /** Programs that aren't here, and what is lost. */
  readonly missing: readonly string[]
  /** Undefined if no case needed it. */
  readonly corpus: Corpus | undefined
  readonly cases: Readonly<Record<string, CaseResult>>
}

const mb = 1e6

/** The heading of a report. */
export function machineText({ machine, peers, missing, runs }: Omit<Report, 'cases'>): string {
  const { cpu, cores, memory, kernel, node, load } = machine
  return [
    `${cpu}, ${cores} cores, ${Math.round(memory / 2 ** 30)} GiB, Linux ${kernel}, Node ${node}`,
    `load ${load} at the start; medians of ${runs} ${runs === 1 ? 'run' : 'runs'}`,
    ...peers.flatMap(({ name, version }) =>
      version === undefined ? [] : [`${name}: ${version}`],
    ),
    ...missing,
  ].join('\n')
}

/** What the corpus is. */
export function corpusText({ layers, entries, bytes, compressed, tooSmall }: Corpus): string {
  const size = `${Math.round(bytes / mb)} MB, ${Math.round(compressed / mb)} MB as gzip`
  const lines = [`corpus: ${layers.length} layers, ${entries} entries, ${size}`]
  if (tooSmall.length > 0) lines.push(`TOO SMALL TO COUNT: ${tooSmall.join('; ')}`)
  return lines.join('\n')
}

/** One case. */
export function caseText(result: CaseResult): string {
  const { series, rates = [], checks, notes } = result
  return [
    ...table(series),
    ...rates.map(rateLine),
    ...checks.map(checkLine),
    ...notes.map(note => `  (${note})`),
  ].join('\n')
}

function table(series: readonly Series[]): string[] {
  const rows = series.map(({ name, median: { wall, user, sys, peak } }) => [
    name,
    `${wall.toFixed(2)} s`,
    `${(user + sys).toFixed(2)} s`,
    `${Math.round(peak / 2 ** 20)} MiB`,
  ])
  const all = [['', 'wall', 'user + sys', 'peak memory'], ...rows]
  const widths = [0, 1, 2, 3].map(column =>
    Math.max(...all.map(row => row[column]?.length ?? 0)),
  )
  return all.map(([name = '', ...cells]) =>
    [
      `  ${name.padEnd(widths[0] ?? 0)}`,
      ...cells.map((cell, at) => cell.padStart(widths[at + 1] ?? 0)),
    ].join('  '),
  )
}

function rateLine({ name, value, unit }: Rate): string {
  return `  ${name}: ${figure(value)} ${unit}`.trimEnd()
}

function checkLine({ name, value, unit, target, atLeast, met }: Check): string {
  const text = `  ${name}: ${figure(value)}${unit === undefined ? '' : ` ${unit}`}`
  if (target === undefined) return text
  const verdict = met === undefined ? 'not judged' : met ? 'met' : 'MISSED'
  return `${text} (${atLeast === true ? 'at least' : 'at most'} ${figure(target)}: ${verdict})`
}

function figure(value: number): string {
  if (Number.isNaN(value)) return 'none'
  return value >= 100 ? String(Math.round(value)) : value.toFixed(2)
}
