// Every layer into a directory of its own, as a storage driver for overlayfs has it; several at the same time.
import type { Bench } from '../bench.ts'
import type { Case, CaseResult } from '../case.ts'
import { blobsOf } from '../make-image.ts'
import { pigzTarStacked, umoci } from '../peers.ts'
import type { Contender } from '../race.ts'
import { skopeoContender } from '../skopeo.ts'

const two = 'pigz -dc | tar x, two at a time'
const one = 'pigz -dc | tar x, one by one'

async function run(bench: Bench): Promise<CaseResult> {
  const { layout, refName, image } = await bench.corpus()
  const blobs = await blobsOf(layout, refName)
  const skopeo = await skopeoContender(bench, layout, refName)
  const plain = (name: string, jobs: number): Contender =>
    bench.making(name, target => pigzTarStacked(target, blobs, jobs), { directory: true })
  const contenders = [
    bench.making('koci', target => bench.program('stacked', image, target)),
    ...(bench.peers.has('pigz', 'tar') ? [plain(two, 2), plain(one, 1)] : []),
    ...(skopeo.contender ? [skopeo.contender] : []),
    ...(bench.peers.has('umoci')
      ? [bench.making('umoci', bundle => umoci('unpack', '--image', image, bundle))]
      : []),
  ]
  const series = await bench.race(contenders)
  return {
    series,
    checks: [
      ...(await bench.ratios(series, 'koci', two, 0.85)),
      ...(await bench.ratios(series, 'koci', one)),
      ...(await bench.ratios(series, 'koci', 'skopeo')),
      ...(await bench.ratios(series, 'koci', 'umoci', 1 / 4)),
    ],
    notes: [
      'koci verifies digests and DiffIDs here, too, but nobody asks for hashes of files or a record',
      'umoci can’t stack: it is the unpack into one tree',
      ...skopeo.notes,
    ],
  }
}

/** Unpacking as overlayfs wants it. */
export const benchCase: Case = {
  name: 'stacked',
  description: 'unpack every layer into a directory of its own',
  run,
}
