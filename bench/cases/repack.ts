// Packing a rootfs again: unchanged, and after four changes; with and without basing the bundle on the new image.
import type { Bench } from '../bench.ts'
import type { Case, CaseResult, Series } from '../case.ts'
import { changeFour, expectChanges } from '../four-changes.ts'
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
      if (changed && (refresh || run === 0)) expected = changeFour(bundle, `${tag}-${run}`)
      return command('--image', `${layout}:${tag}`, ...flags, bundle)
    },
    after: ({ stdout }) => {
      if (isKoci) expectChanges(stdout, expected, variant.name)
    },
  }
}

/** Packing what changed. */
export const benchCase: Case = {
  name: 'repack',
  description: 'repack a rootfs, unchanged and after four changes',
  run,
}
