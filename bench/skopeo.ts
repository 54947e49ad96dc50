// skopeo as a contender: it copies an image into a containers-storage of its own, and so extracts its layers.
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { Bench } from './bench.ts'
import { addLayer, makeLayout } from './make-image.ts'
import { measure, type Command } from './measure.ts'
import { isRoot } from './peers.ts'
import type { Contender } from './race.ts'
import { directoryEntry } from './tree-entries.ts'

/** skopeo into a containers-storage of our own: with overlay where it can, else with vfs, which copies every layer. */
export async function skopeoContender(
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
