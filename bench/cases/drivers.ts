// Every storage driver on the same image, each on a new file system of its own: the first unpack, further ones, repacks.
import path from 'node:path'
import type { Bench } from '../bench.ts'
import type { Case, CaseResult, Check, Series } from '../case.ts'
import { changeFour, expectChanges } from '../four-changes.ts'
import { filesLayer } from '../files-layer.ts'
import { mountLoop } from '../loop-mount.ts'
import { addLayer, makeLayout } from '../make-image.ts'
import { measure, type Command } from '../measure.ts'
import { isRoot } from '../peers.ts'
import type { Contender } from '../race.ts'

/** A chain of drivers, and the file system it is measured on. */
interface Setup {
  readonly name: string
  readonly type: 'btrfs' | 'xfs'
  /** With the directory of its store. */
  readonly chain: (store: string) => readonly string[]
  /** It keeps layers, so that further unpacks find them. */
  readonly keeps: boolean
}

const setups: readonly Setup[] = [
  { name: 'plain, XFS', type: 'xfs', chain: () => [], keeps: false },
  { name: 'plain, btrfs', type: 'btrfs', chain: () => [], keeps: false },
  { name: 'cache, XFS', type: 'xfs', chain: store => [`cache:dir=${store}`], keeps: true },
  { name: 'cache, btrfs', type: 'btrfs', chain: store => [`cache:dir=${store}`], keeps: true },
  {
    name: 'cache + overlay, XFS',
    type: 'xfs',
    chain: store => [`cache:dir=${store}`, 'overlay'],
    keeps: true,
  },
  { name: 'btrfs', type: 'btrfs', chain: store => [`btrfs:dir=${store}`], keeps: true },
]

async function run(bench: Bench): Promise<CaseResult> {
  if (!isRoot) return { series: [], checks: [], notes: ['left out: mounting needs root'] }
  const { layout, image } = await bench.corpus()
  const places: Place[] = []
  const notes = [
    'each on a new file system in a file in the same place; what was written is synced before each run, unmeasured',
    'cold: nothing is there; everything is verified, and what is kept is synced',
    'cache alone merges stored layers: on both file systems files are cloned, not copied',
  ]
  try {
    for (const setup of setups) {
      const mounted = await mountLoop(bench, setup.type)
      if (typeof mounted === 'string') notes.push(`left out: ${setup.name}: ${mounted}`)
      else places.push(new Place(bench, setup, mounted.home, mounted.path))
    }
    const series = await bench.race(
      places.map(place => place.unpacking('cold', image)),
      1,
    )
    const keeping = places.filter(({ setup }) => setup.keeps)
    series.push(...(await bench.race(keeping.map(place => place.unpacking('warm', image)))))
    const both = [true, false]
    // the refresh that runs before each that isn't one takes all changes
    const repacks = places.flatMap(place => both.map(each => place.repacking(layout, each)))
    series.push(...(await bench.race(repacks)))
    const grown = await growing(bench, places)
    return {
      series: [...series, ...grown.series],
      checks: [...(await checksOf(bench, series)), ...grown.checks],
      notes,
    }
  } finally {
    for (const place of places) await place.remove()
  }
}

/** A file system with a driver's store and bundles. */
class Place {
  readonly setup: Setup
  readonly #bench: Bench
  readonly #home: string
  readonly #directory: string
  readonly #bundles: string[] = []

  constructor(bench: Bench, setup: Setup, home: string, directory: string) {
    this.#bench = bench
    this.setup = setup
    this.#home = home
    this.#directory = directory
  }

  unpacking(name: string, image: string): Contender {
    return {
      name: `${this.setup.name}, ${name}`,
      prepare: async () => {
        const bundle = path.join(this.#directory, `bundle-${this.#bundles.length}`)
        this.#bundles.push(bundle)
        await this.#sync()
        return this.#unpack(image, bundle)
      },
    }
  }

  /** Of the bundle that was made first, or of an image of its own. */
  repacking(
    layout: string,
    refresh: boolean,
    own?: { name: string; bundle: string },
  ): Contender {
    const what = own ? `repack of ${own.name}` : 'repack'
    const name = `${this.setup.name}, ${what}${refresh ? ', refresh' : ''}`
    let expected: string[] = []
    return {
      name,
      prepare: async run => {
        const bundle = own?.bundle ?? this.#bundles[0] ?? ''
        expected = changeFour(bundle, `${name} ${run}`)
        await this.#sync()
        const tag = name.replaceAll(/\W+/g, '-')
        const flags = refresh ? ['--refresh-bundle'] : []
        return this.#bench.koci(
          'repack',
          '--json',
          '--image',
          `${layout}:${tag}`,
          ...flags,
          bundle,
        )
      },
      after: ({ stdout }) => {
        if (!refresh) expectChanges(stdout, expected, name)
      },
    }
  }

  async unpack(image: string): Promise<string> {
    const bundle = path.join(this.#directory, `bundle-${this.#bundles.length}`)
    this.#bundles.push(bundle)
    await measure(this.#unpack(image, bundle), this.#bench.signal)
    return bundle
  }

  remove(): Promise<void> {
    return this.#bench.remove(this.#home)
  }

  #unpack(image: string, bundle: string): Command {
    const chain = this.setup.chain(path.join(this.#directory, 'store'))
    const uses = chain.flatMap(each => ['--use', each])
    return this.#bench.koci('unpack', ...uses, '--image', image, bundle)
  }

  async #sync(): Promise<void> {
    await measure({ program: 'sync', args: ['-f', this.#directory] }, this.#bench.signal)
  }
}

/** Of images that differ in size only: what a repack from snapshots takes must not grow with it. */
async function growing(
  bench: Bench,
  places: readonly Place[],
): Promise<{ series: Series[]; checks: Check[] }> {
  const place = places.find(({ setup }) => setup.name === 'btrfs')
  if (!place) return { series: [], checks: [] }
  const sizes = bench.quick ? [100, 1000] : [10_000, 100_000]
  const layouts = sizes.map(() => bench.newPath('files'))
  try {
    const contenders: Contender[] = []
    for (const [at, size] of sizes.entries()) {
      const layout = layouts[at] ?? ''
      await using opened = await makeLayout(layout, 'files')
      await addLayer(opened, 'files', filesLayer(size))
      const bundle = await place.unpack(`${layout}:files`)
      const own = { name: `${size} files`, bundle }
      for (const refresh of [true, false])
        contenders.push(place.repacking(layout, refresh, own))
    }
    const series = await bench.race(contenders)
    const [small = Number.NaN, large = Number.NaN] = series
      .filter(({ name }) => !name.endsWith(', refresh'))
      .map(({ median }) => median.wall)
    return {
      series,
      checks: [
        await bench.check('wall, btrfs, repack of ten times the files', large / small, 1.15),
      ],
    }
  } finally {
    for (const layout of layouts) await bench.remove(layout)
  }
}

async function checksOf(bench: Bench, series: readonly Series[]): Promise<Check[]> {
  const wall = (name: string): number | undefined =>
    series.find(each => each.name === name)?.median.wall
  const seconds = async (
    what: string,
    value: number | undefined,
    target: number,
  ): Promise<Check[]> =>
    value === undefined
      ? []
      : [await bench.check(`wall, ${what}`, value, target, { unit: 's' })]
  const repack = wall('btrfs, repack')
  const refreshed = wall('btrfs, repack, refresh')
  const added = repack === undefined || refreshed === undefined ? undefined : refreshed - repack
  return [
    ...(await seconds('btrfs, warm', wall('btrfs, warm'), 0.35)),
    ...(await seconds('btrfs, repack', repack, 0.6)),
    ...(await seconds('what a refresh adds with btrfs', added, 0.15)),
    ...(await bench.ratios(series, 'cache, XFS, warm', 'plain, XFS, cold')),
    ...(await bench.ratios(series, 'cache, btrfs, warm', 'plain, btrfs, cold')),
    ...(await bench.ratios(series, 'btrfs, warm', 'plain, btrfs, cold')),
    ...(await bench.ratios(series, 'cache + overlay, XFS, warm', 'plain, XFS, cold')),
  ]
}

/** What one chooses between. */
export const benchCase: Case = {
  name: 'drivers',
  description: 'each storage driver on the same image: cold, warm, repacked',
  run,
}
