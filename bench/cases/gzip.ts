// Compressing a large layer: on all cores, and on one.
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { availableParallelism } from 'node:os'
import type { Bench } from '../bench.ts'
import type { Case, CaseResult } from '../case.ts'
import { withLayers } from '../make-image.ts'
import type { Command } from '../measure.ts'
import type { Contender } from '../race.ts'

const size = { full: 600_000_000, quick: 4_000_000 }

async function run(bench: Bench): Promise<CaseResult> {
  const bytes = bench.quick ? size.quick : size.full
  const tar = bench.newPath('layer.tar')
  const written = await writeTar(bench, tar, bytes)
  const cores = availableParallelism()
  const onOneCore = (command: Command): Command =>
    bench.peers.has('taskset')
      ? { program: 'taskset', args: ['-c', '0', command.program, ...command.args] }
      : command
  const contender = (name: string, command: Command): Contender => ({
    name,
    prepare: () => command,
  })
  const pigz = (...args: string[]): Command => ({
    program: 'sh',
    args: ['-c', 'exec pigz "$@" >/dev/null', 'sh', '-6', '-c', ...args, tar],
  })
  const contenders = [
    contender(`koci, ${cores} cores`, bench.program('compress', tar, String(cores))),
    contender('koci, 1 core', onOneCore(bench.program('compress', tar, '1'))),
  ]
  if (bench.peers.has('pigz'))
    contenders.push(
      contender(`pigz, ${cores} cores`, pigz('-p', String(cores))),
      contender('pigz, 1 core', onOneCore(pigz('-p', '1'))),
    )
  try {
    const series = await bench.race(contenders)
    const [all = Number.NaN, one = Number.NaN] = series.map(({ median }) => median.wall)
    const isLarge = written >= bytes && cores === 2
    return {
      series,
      rates: [{ name: `koci, ${cores} cores`, value: written / 1e6 / all, unit: 'MB/s' }],
      checks: [
        await bench.check(
          `speed on ${cores} cores, of one`,
          one / all,
          isLarge ? 1.7 : undefined,
          {
            atLeast: true,
          },
        ),
        ...(await bench.ratios(series, `koci, ${cores} cores`, `pigz, ${cores} cores`)),
      ],
      notes: [
        `${Math.round(written / 1e6)} MB of the corpus as tar, level 6, to nowhere; starts included`,
        ...(isLarge ? [] : ['the target is for 600 MB on two cores']),
      ],
    }
  } finally {
    await bench.remove(tar)
  }
}

/** Tars of layers, until there is enough. */
async function writeTar(bench: Bench, file: string, bytes: number): Promise<number> {
  const { layout, refName } = await bench.corpus()
  const output = createWriteStream(file)
  let written = 0
  await withLayers(layout, refName, async layers => {
    for (const layer of layers)
      for await (const chunk of layer.open()) {
        if (written >= bytes) return
        const part = chunk.subarray(0, bytes - written)
        written += part.length
        // the chunk is used again
        if (!output.write(Buffer.from(part))) await once(output, 'drain')
      }
  })
  output.end()
  await once(output, 'close')
  return written
}

/** How well cores are used. */
export const benchCase: Case = {
  name: 'gzip',
  description: 'compress 600 MB on all cores, and on one',
  run,
}
