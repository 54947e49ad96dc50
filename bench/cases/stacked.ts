// Every layer into a directory of its own, as a storage driver for overlayfs has it; several at the same time.
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { Bench } from '../bench.ts'
import type { Case, CaseResult } from '../case.ts'
import { addLayer, blobsOf, makeLayout } from '../make-image.ts'
import { measure, type Command } from '../measure.ts'
import { isRoot, pigzTarStacked, umoci } from '../peers.ts'
import { directoryEntry } from '../tree-entries.ts'
import type { Contender } from '../race.ts'

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

/** skopeo into a containers-storage of our own: with overlay where it can, else with vfs, which copies every layer. */
async function skopeoContender(
  bench: Bench,
  layout: string,
  refName: string,
): Promise<{ contender?: Contender; notes: string[] }> {
  if (!bench.peers.has('skopeo')) return { notes: [] }
  if (!isRoot) return { notes: ['skopeo is left out: its storage needs root'] }
  const tiny = bench.newPath('tiny')
  {
    await using image = await makeLayout(tiny, 'tiny')
    await addLayer(image, 'tiny', { name: 'tiny', entries: () => [directoryEntry('tiny')] })
  }
  const notes: string[] = []
  // vfs would write every layer with all below it: the size of the corpus, many times
  for (const driver of bench.quick ? ['overlay', 'vfs'] : ['overlay']) {
    const target = bench.newDirectory('probe')
    try {
      await measure(skopeoCopy(driver, tiny, 'tiny', target), bench.signal)
    } catch (error) {
      bench.signal.throwIfAborted()
      notes.push(`skopeo with ${driver} is left out: ${lastLine(error)}`)
      continue
    } finally {
      await bench.remove(target)
    }
    const contender = bench.making(
      'skopeo',
      target => skopeoCopy(driver, layout, refName, target),
      { directory: true },
    )
    notes.push(`skopeo copies into containers-storage with the driver ${driver}`)
    return { contender, notes }
  }
  return { notes }
}

function skopeoCopy(driver: string, layout: string, refName: string, target: string): Command {
  const [root, runRoot, config] = ['root', 'run', 'storage.conf'].map(name =>
    path.join(target, name),
  ) as [string, string, string]
  mkdirSync(root, { recursive: true })
  writeFileSync(config, `[storage]\ndriver = "${driver}"\n`)
  const storage = `containers-storage:[${driver}@${root}+${runRoot}]bench:latest`
  const args = ['--insecure-policy', 'copy', '--quiet', `oci:${layout}:${refName}`, storage]
  return { program: 'skopeo', args, env: { CONTAINERS_STORAGE_CONF: config } }
}

function lastLine(error: unknown): string {
  return (error as Error).message.trim().split('\n').at(-1) ?? ''
}

/** Unpacking as overlayfs wants it. */
export const benchCase: Case = {
  name: 'stacked',
  description: 'unpack every layer into a directory of its own',
  run,
}
