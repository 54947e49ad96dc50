// How cost grows with size: three sizes of the same thing, and the slope of a line through them in a double logarithmic
// plot. 1 means proportional. What koci takes for an image without layers is subtracted first.
import type { LayerEntry } from '../../lib/layer/layer-writer.ts'
import type { Bench } from '../bench.ts'
import type { Case, CaseResult, Check, Rate, Series } from '../case.ts'
import { addLayer, makeLayout, type LayerRecipe } from '../make-image.ts'
import { directoryEntry, fileEntry, whiteoutEntry } from '../tree-entries.ts'

/** One dimension. */
interface Dimension {
  readonly name: string
  readonly sizes: readonly number[]
  readonly quickSizes: readonly number[]
  readonly layers: (size: number) => LayerRecipe[]
}

const perDirectory = 100
const dimensions: readonly Dimension[] = [
  {
    name: 'layers',
    sizes: [10, 32, 100],
    quickSizes: [2, 4, 8],
    layers: size => Array.from({ length: size }, (_, at) => equalLayer(at)),
  },
  {
    name: 'entries',
    sizes: [10_000, 100_000, 1_000_000],
    quickSizes: [100, 300, 1000],
    layers: size => [filesLayer('entries', size)],
  },
  {
    name: 'whiteouts',
    sizes: [1000, 10_000, 100_000],
    quickSizes: [10, 30, 100],
    layers: size => [
      filesLayer('to be removed', size),
      { name: 'whiteouts', entries: () => names(size).map(whiteoutEntry) },
    ],
  },
]

async function run(bench: Bench): Promise<CaseResult> {
  const empty = await unpackSeries(bench, 'nothing', [])
  const series: Series[] = [empty]
  const rates: Rate[] = []
  const checks: Check[] = []
  for (const { name, sizes, quickSizes, layers } of dimensions) {
    const chosen = bench.quick ? quickSizes : sizes
    const found: Series[] = []
    for (const size of chosen)
      found.push(await unpackSeries(bench, `${size} ${name}`, layers(size)))
    series.push(...found)
    const above = (pick: (series: Series) => number): number =>
      slope(
        chosen,
        found.map(each => pick(each) - pick(empty)),
      )
    const wall = above(({ median }) => median.wall)
    const cpu = above(({ median }) => median.user + median.sys)
    rates.push(
      { name: `exponent of CPU time, ${name}`, value: cpu, unit: '' },
      {
        name: `exponent of peak memory, ${name}`,
        value: above(({ median }) => median.peak),
        unit: '',
      },
    )
    checks.push(await bench.check(`exponent of wall time, ${name}`, wall, 1.1))
  }
  return {
    series,
    rates,
    checks,
    notes: [
      'exponent: slope of the least-squares line through log(figure - figure of an empty image) over log(size)',
      'peak memory mustn’t grow with layers or bytes: its exponent is told, and is nonsense where nothing grows',
    ],
  }
}

async function unpackSeries(
  bench: Bench,
  name: string,
  layers: readonly LayerRecipe[],
): Promise<Series> {
  const directory = bench.newPath('scaling')
  try {
    {
      await using layout = await makeLayout(directory, 'scaling')
      for (const layer of layers) await addLayer(layout, 'scaling', layer)
    }
    const [series] = await bench.race([
      bench.making(name, bundle =>
        bench.koci('unpack', '--image', `${directory}:scaling`, bundle),
      ),
    ])
    return series as Series
  } finally {
    await bench.remove(directory)
  }
}

/** NaN where a figure isn't above that of the empty image: there is nothing then that could grow. */
export function slope(sizes: readonly number[], figures: readonly number[]): number {
  const x = sizes.map(Math.log)
  const y = figures.map(Math.log)
  const mean = (numbers: readonly number[]): number =>
    numbers.reduce((sum, number) => sum + number, 0) / numbers.length
  const [meanX, meanY] = [mean(x), mean(y)]
  const over = x.map((value, at) => (value - meanX) * ((y[at] ?? Number.NaN) - meanY))
  return mean(over) / mean(x.map(value => (value - meanX) ** 2))
}

/** A megabyte in fifty files. */
function equalLayer(at: number): LayerRecipe {
  return {
    name: `layer ${at}`,
    *entries() {
      yield directoryEntry(`layer-${at}`)
      for (let file = 0; file < 50; file += 1)
        yield fileEntry(`layer-${at}/${file}`, Buffer.alloc(20_000, `${at} ${file} `))
    },
  }
}

/** Empty files, so that nothing but their number counts. */
function filesLayer(name: string, size: number): LayerRecipe {
  return {
    name,
    *entries(): Generator<LayerEntry> {
      for (let at = 0; at < size; at += 1) {
        if (at % perDirectory === 0) yield directoryEntry(directoryOf(at))
        yield fileEntry(`${directoryOf(at)}/${at}`, Buffer.alloc(0))
      }
    },
  }
}

function names(size: number): Buffer[] {
  return Array.from({ length: size }, (_, at) => Buffer.from(`${directoryOf(at)}/${at}`))
}

function directoryOf(at: number): string {
  return `d${Math.floor(at / perDirectory)}`
}

/** Whether cost is proportional to size. */
export const benchCase: Case = {
  name: 'scaling',
  description: 'time and memory against the number of layers, entries and whiteouts',
  run,
}
