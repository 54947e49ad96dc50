// cache() and overlay() together, as whole processes of the command line: cold, warm, eight at once, and repacked.
import type { Bench } from '../bench.ts'
import type { Case, CaseResult, Check, Series } from '../case.ts'
import { changeFour, expectChanges } from '../four-changes.ts'
import { addLayer, blobsOf, makeLayout, type LayerRecipe } from '../make-image.ts'
import { measure, type Command } from '../measure.ts'
import { isRoot, pigzTar, umoci } from '../peers.ts'
import type { Contender } from '../race.ts'
import { skopeoContender } from '../skopeo.ts'
import { directoryEntry, fileEntry } from '../tree-entries.ts'
import { filesLayer } from '../files-layer.ts'

const processes = 8
const notSynced = 'koci, cold, durable=false'
const plain = 'pigz -dc | tar x'

async function run(bench: Bench): Promise<CaseResult> {
  if (!isRoot) return { series: [], checks: [], notes: ['left out: mounting needs root'] }
  const { image } = await bench.corpus()
  await using work = new Work(bench)
  const series = [...(await cold(bench, work, image)), ...(await warm(bench, work, image))]
  const repacked = await repacks(bench, work, image)
  series.push(...repacked.series)
  return {
    series,
    checks: [...(await checksOf(bench, series)), ...repacked.checks],
    notes: [
      `cold: the store is empty, and everything is verified, recorded and synced; tmpfs makes the sync free`,
      `${notSynced}: nobody waits for the disk, so that the difference is what publishing costs`,
      `${processes} at once: as many processes unpack the image into bundles of their own, from one empty store`,
      `${plain} verifies nothing, records nothing, and leaves whiteouts as files`,
    ],
  }
}

/** Bundles and stores of this case, and how koci is called with them. */
class Work implements AsyncDisposable {
  readonly #bench: Bench
  readonly #bundles = new Set<string>()
  readonly #stores: string[] = []

  constructor(bench: Bench) {
    this.#bench = bench
  }

  store(): string {
    const store = this.#bench.newPath('store')
    this.#stores.push(store)
    return store
  }

  unpack(image: string, store: string, bundle: string, durable = true): Command {
    this.#bundles.add(bundle)
    const cache = `cache:dir=${store}${durable ? '' : ',durable=false'}`
    const chain = ['--use', cache, '--use', 'overlay']
    return this.#bench.koci('unpack', ...chain, '--image', image, bundle)
  }

  /** The same by several processes at once. */
  unpackAtOnce(image: string, store: string, bundles: readonly string[]): Command {
    const commands = bundles.map(bundle => this.unpack(image, store, bundle))
    const { program, args } = commands[0] as Command
    const words = [program, ...args.slice(0, -1)]
    const script =
      'pids=; for bundle in $BUNDLES; do "$@" "$bundle" & pids="$pids $!"; done; for pid in $pids; do wait $pid || exit; done'
    return {
      program: 'sh',
      args: ['-c', script, 'sh', ...words],
      env: { BUNDLES: bundles.join(' ') },
    }
  }

  async removeBundle(bundle: string): Promise<void> {
    await measure(this.#bench.koci('umount', bundle), this.#bench.signal)
    this.#bundles.delete(bundle)
    await this.#bench.remove(bundle)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const bundle of this.#bundles)
      // one that wasn't made can't be unmounted; the signal may be what ended the case
      await measure(this.#bench.koci('umount', bundle), new AbortController().signal).catch(
        () => {},
      )
    for (const each of [...this.#bundles, ...this.#stores]) await this.#bench.remove(each)
  }
}

async function cold(bench: Bench, work: Work, image: string): Promise<Series[]> {
  const { layout, refName } = await bench.corpus()
  const blobs = await blobsOf(layout, refName)
  const skopeo = await skopeoContender(bench, layout, refName)
  const { peers } = bench
  return bench.race([
    unpacking(bench, work, 'koci, cold', image, () => work.store(), 1),
    unpacking(bench, work, notSynced, image, () => work.store(), 1, false),
    ...(peers.has('pigz', 'tar')
      ? [bench.making(plain, target => pigzTar(target, blobs), { directory: true })]
      : []),
    ...(skopeo.contender ? [skopeo.contender] : []),
    ...(peers.has('umoci')
      ? [bench.making('umoci', bundle => umoci('unpack', '--image', image, bundle))]
      : []),
    unpacking(
      bench,
      work,
      `koci, cold, ${processes} at once`,
      image,
      () => work.store(),
      processes,
    ),
  ])
}

async function warm(bench: Bench, work: Work, image: string): Promise<Series[]> {
  const count = bench.quick ? 10 : 100
  const many = bench.newPath('layers')
  try {
    {
      await using layout = await makeLayout(many, 'many')
      for (let at = 0; at < count; at += 1) await addLayer(layout, 'many', smallLayer(at))
    }
    const stores = [image, `${many}:many`].map(each => ({ image: each, store: work.store() }))
    for (const { image, store } of stores) {
      const bundle = bench.newPath('bundle')
      await measure(work.unpack(image, store, bundle), bench.signal)
      await work.removeBundle(bundle)
    }
    return await bench.race(
      stores.map(({ image, store }, at) => {
        const name = at === 0 ? 'koci, warm' : `koci, warm, ${count} layers`
        return unpacking(bench, work, name, image, () => store, 1)
      }),
    )
  } finally {
    await bench.remove(many)
  }
}

function unpacking(
  bench: Bench,
  work: Work,
  name: string,
  image: string,
  storeOf: () => string,
  count: number,
  durable = true,
): Contender {
  let bundles: string[] = []
  let store = ''
  return {
    name,
    prepare: () => {
      store = storeOf()
      bundles = Array.from({ length: count }, () => bench.newPath('bundle'))
      const [bundle = ''] = bundles
      return count === 1
        ? work.unpack(image, store, bundle, durable)
        : work.unpackAtOnce(image, store, bundles)
    },
    after: async () => {
      for (const bundle of bundles) await work.removeBundle(bundle)
      if (name.includes('cold')) await bench.remove(store)
    },
  }
}

/** Of the corpus, and of an image that is smaller: what a repack takes must not grow with it. */
async function repacks(
  bench: Bench,
  work: Work,
  image: string,
): Promise<{ series: Series[]; checks: Check[] }> {
  const sizes = bench.quick ? [100, 1000] : [10_000, 100_000]
  const layouts = sizes.map(() => bench.newPath('files'))
  try {
    const images = [{ name: 'the corpus', image }]
    for (const [at, size] of sizes.entries()) {
      const layout = layouts[at] ?? ''
      await using opened = await makeLayout(layout, 'files')
      await addLayer(opened, 'files', filesLayer(size))
      images.push({ name: `${size} files`, image: `${layout}:files` })
    }
    const contenders: Contender[] = []
    for (const { name, image } of images) {
      const bundle = bench.newPath('bundle')
      await measure(work.unpack(image, work.store(), bundle), bench.signal)
      contenders.push(repacking(bench, name, image, bundle, true))
      contenders.push(repacking(bench, name, image, bundle, false))
    }
    const series = await bench.race(contenders)
    const wall = (name: string): number =>
      series.find(each => each.name === name)?.median.wall ?? Number.NaN
    const own = wall('repack, the corpus')
    const [small = Number.NaN, large = Number.NaN] = sizes.map(size =>
      wall(`repack, ${size} files`),
    )
    const checks = [
      await bench.check('wall, repack of the corpus', own, 0.35, { unit: 's' }),
      await bench.check(
        'wall, what a refresh of the corpus adds',
        wall('repack, the corpus, refresh') - own,
        0.15,
        { unit: 's' },
      ),
      await bench.check('wall, repack of ten times the files', large / small, 1.15),
    ]
    return { series, checks }
  } finally {
    for (const layout of layouts) await bench.remove(layout)
  }
}

function repacking(
  bench: Bench,
  name: string,
  image: string,
  bundle: string,
  refresh: boolean,
): Contender {
  const layout = image.slice(0, image.lastIndexOf(':'))
  const full = `repack, ${name}${refresh ? ', refresh' : ''}`
  let expected: string[] = []
  return {
    name: full,
    prepare: run => {
      // the refresh that runs before each that isn't one has taken all changes
      expected = changeFour(bundle, `${full} ${run}`)
      const flags = refresh ? ['--refresh-bundle'] : []
      const tag = full.replaceAll(/\W+/g, '-')
      return bench.koci('repack', '--json', '--image', `${layout}:${tag}`, ...flags, bundle)
    },
    after: ({ stdout }) => {
      if (!refresh) expectChanges(stdout, expected, full)
    },
  }
}

async function checksOf(bench: Bench, series: readonly Series[]): Promise<Check[]> {
  const seconds = async (name: string, target: number): Promise<Check[]> => {
    const wall = series.find(each => each.name.startsWith(name))?.median.wall
    return wall === undefined
      ? []
      : [await bench.check(`wall, ${name}`, wall, target, { unit: 's' })]
  }
  return [
    ...(await bench.ratios(series, 'koci, cold', plain, 0.95)),
    ...(await bench.ratios(series, 'koci, cold', 'skopeo', 1 / 4)),
    ...(await bench.ratios(series, 'koci, cold', 'umoci', 1 / 4)),
    ...(await bench.ratios(series, `koci, cold, ${processes} at once`, 'koci, cold', 1.3)),
    ...(await warmChecks(series, seconds)),
  ]
}

async function warmChecks(
  series: readonly Series[],
  seconds: (name: string, target: number) => Promise<Check[]>,
): Promise<Check[]> {
  const many = series.find(({ name }) => name.startsWith('koci, warm, '))
  return [...(await seconds('koci, warm', 0.3)), ...(many ? await seconds(many.name, 0.5) : [])]
}

function smallLayer(at: number): LayerRecipe {
  return {
    name: `layer ${at}`,
    *entries() {
      yield directoryEntry(`layer-${at}`)
      for (let file = 0; file < 20; file += 1)
        yield fileEntry(`layer-${at}/${file}`, Buffer.from(`${at} ${file}`))
    },
  }
}

/** The chain that keeps layers and mounts them. */
export const benchCase: Case = {
  name: 'overlay',
  description: 'cache() and overlay(): cold, warm, eight at once, repacked',
  run,
}
