// Packing a rootfs again: unchanged, and after four changes; with and without basing the bundle on the new image.
import { appendFileSync, chmodSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { BenchError } from '../bench-error.ts'
import type { Bench } from '../bench.ts'
import type { Case, CaseResult, Series } from '../case.ts'
import { manyRoot } from '../corpus.ts'
import { measure, type Command } from '../measure.ts'
import { umoci } from '../peers.ts'
import type { Contender } from '../race.ts'

/** A bundle and the program that it is of. */
interface Subject {
  readonly name: string
  readonly bundle: string
  readonly command: (...args: string[]) => Command
  /** Whether it can say what it packed. */
  readonly isKoci: boolean
}

/** One way to repack. */
interface Variant {
  readonly name: string
  readonly changed: boolean
  readonly refresh: boolean
  readonly target: number
}

// without a refresh the changes of the last run before it stay in the bundle: so that variant comes last
const variants: readonly Variant[] = [
  { name: 'unchanged', changed: false, refresh: false, target: 1.2 },
  { name: 'unchanged, refresh', changed: false, refresh: true, target: 1.2 },
  { name: '4 changes, refresh', changed: true, refresh: true, target: 1.6 },
  { name: '4 changes', changed: true, refresh: false, target: 1.6 },
]

async function run(bench: Bench): Promise<CaseResult> {
  const { layout, image } = await bench.corpus()
  const subjects: Subject[] = [
    {
      name: 'koci',
      bundle: bench.newPath('bundle'),
      command: (...args) => bench.koci('repack', '--json', ...args),
      isKoci: true,
    },
  ]
  if (bench.peers.has('umoci'))
    subjects.push({
      name: 'umoci',
      bundle: bench.newPath('bundle'),
      command: (...args) => umoci('repack', ...args),
      isKoci: false,
    })
  const series: Series[] = []
  try {
    for (const { bundle, isKoci } of subjects) {
      const args = ['--image', image, bundle] as const
      const command = isKoci ? bench.koci('unpack', ...args) : umoci('unpack', ...args)
      await measure(command, bench.signal)
    }
    for (const variant of variants)
      series.push(
        ...(await bench.race(subjects.map(subject => contender(layout, subject, variant)))),
      )
  } finally {
    for (const { bundle } of subjects) await bench.remove(bundle)
  }
  const checks = variants.map(async ({ name, target }) => {
    const koci = series.find(each => each.name === `koci, ${name}`)?.median.wall ?? Number.NaN
    return [
      await bench.check(`wall, koci, ${name}`, koci, target, { unit: 's' }),
      ...(await bench.ratios(series, `koci, ${name}`, `umoci, ${name}`)),
    ]
  })
  return {
    series,
    checks: (await Promise.all(checks)).flat(),
    notes: [
      'whole processes, start included; the four: a file appended to, one new, one removed, one with another mode',
      'umoci reads and hashes every file; koci trusts size and times, as its record allows',
    ],
  }
}

function contender(layout: string, subject: Subject, variant: Variant): Contender {
  const { name, bundle, command, isKoci } = subject
  const { changed, refresh } = variant
  const tag = `${name}-${variant.name.replaceAll(/\W+/g, '-')}`
  const flags = refresh ? ['--refresh-bundle'] : []
  let expected: string[] = []
  return {
    name: `${name}, ${variant.name}`,
    prepare: run => {
      // without a refresh the first run's changes are there for all
      if (changed && (refresh || run === 0)) expected = change(bundle, `${tag}-${run}`)
      return command('--image', `${layout}:${tag}`, ...flags, bundle)
    },
    after: ({ stdout }) => {
      if (isKoci) expectChanges(stdout, expected, variant.name)
    },
  }
}

let changes = 0

/** Makes four changes that nobody made before; returns the paths. */
function change(bundle: string, text: string): string[] {
  const number = changes++
  const directory = (digit: number): string =>
    `${manyRoot}/${Math.floor(number / 40) % 2}${digit}`
  const name = String(number % 40)
  const paths = [
    `${directory(0)}/${name}`,
    `${directory(1)}/new-${number}`,
    `${directory(2)}/${name}`,
    `${directory(3)}/${name}`,
  ]
  const [appended = '', added = '', removed = '', changed = ''] = paths.map(file =>
    path.join(bundle, 'rootfs', file),
  )
  appendFileSync(appended, text)
  writeFileSync(added, text)
  rmSync(removed)
  chmodSync(changed, 0o600)
  return paths
}

/** A repack that is fast because it overlooks something isn't. */
function expectChanges(stdout: string, expected: readonly string[], variant: string): void {
  const { changes } = JSON.parse(stdout) as { changes: { path: string }[] }
  const found = new Set(changes.map(each => each.path))
  const overlooked = expected.filter(file => !found.has(file))
  const files = [...found].filter(file => /\/(new-)?\d+\/(new-)?\d+$/.test(file))
  if (overlooked.length > 0 || files.length !== expected.length)
    throw new BenchError(
      `koci, ${variant}: found ${files.join(', ') || 'nothing'} of ${expected.join(', ') || 'nothing'}`,
    )
}

/** Packing what changed. */
export const benchCase: Case = {
  name: 'repack',
  description: 'repack a rootfs, unchanged and after four changes',
  run,
}
