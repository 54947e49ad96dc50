// The command line as it is: layers into one tree, everything verified, files hashed, the record written.
import { bsdtar, pigzTar, umoci } from '../peers.ts'
import type { Bench } from '../bench.ts'
import type { Case, CaseResult } from '../case.ts'
import { blobsOf } from '../make-image.ts'

const plain = 'pigz -dc | tar x'

async function run(bench: Bench): Promise<CaseResult> {
  const { layout, refName, image } = await bench.corpus()
  const blobs = await blobsOf(layout, refName)
  const contenders = [
    bench.making('koci', bundle => bench.koci('unpack', '--image', image, bundle)),
    bench.peers.has('pigz', 'tar') &&
      bench.making(plain, target => pigzTar(target, blobs), { directory: true }),
    bench.peers.has('bsdtar') &&
      bench.making('bsdtar', target => bsdtar(target, blobs), { directory: true }),
    bench.peers.has('umoci') &&
      bench.making('umoci', bundle => umoci('unpack', '--image', image, bundle)),
  ].filter(contender => contender !== false)
  const series = await bench.race(contenders)
  const peak = series[0]?.median.peak ?? Number.NaN
  return {
    series,
    checks: [
      ...(await bench.ratios(series, 'koci', plain, 1)),
      ...(await bench.ratios(series, 'koci', 'bsdtar')),
      ...(await bench.ratios(series, 'koci', 'umoci', 1 / 4)),
      await bench.check('peak memory of koci', peak / 2 ** 20, 350, { unit: 'MiB' }),
    ],
    notes: ['tar and bsdtar verify nothing, record nothing, and leave whiteouts as files'],
  }
}

/** Unpacking as everybody does. */
export const benchCase: Case = {
  name: 'merged',
  description: 'unpack into one tree: the command line as it is',
  run,
}
