// koci explain: what an unpack would do, and why.
import type { Explanation, LayerPlan } from '../../lib/explain.ts'
import { printable } from '../../lib/text.ts'
import type { ChainPart } from '../chain/compose-chain.ts'
import type { Command } from '../command.ts'
import { hang } from '../hang.ts'
import { bundleLayout, chain, image, platform } from '../options.ts'
import { readChain, readPlatform } from '../read-options.ts'
import type { Session } from '../session.ts'
import { sizeOf } from '../size-of.ts'
import { usageError } from '../usage-error.ts'

export const explain: Command = {
  positionals: [],
  options: {
    image: { ...image, required: false },
    bundle: {
      type: 'text',
      description: 'a bundle that is there, instead of an image',
      value: 'path',
    },
    platform,
    layout: bundleLayout,
    rootless: { type: 'switch', description: 'as unpack --rootless would have it' },
    ...chain,
  },
  notes:
    'Shows the chain and who put each driver there, which layers are found and which\n' +
    'would be extracted, where the rootfs comes from, and who would list changes.\n' +
    'Nothing is extracted. Hooks that look layers up are run.',
  examples: [
    'koci explain --image images:alpine',
    'koci explain --image images:alpine --use cache --use overlay --json',
    'koci explain --bundle bundle',
  ],

  async run(args, session) {
    const image = args.text('image')
    const bundle = args.text('bundle')
    const layout = args.text('layout')
    if ((image === undefined) === (bundle === undefined))
      throw usageError('explain', 'needs either --image=layout[:tag] or --bundle=path')
    if (bundle === undefined && layout !== undefined)
      throw usageError('--layout', 'goes together with --bundle')
    const wishes = { ...readChain(args), bundle }
    const chain = await session.chain(wishes)
    const app = await session.compose(chain)
    const { explainBundle, explainUnpack } = await import('../../lib/explain.ts')
    const { signal } = session
    const rootless = args.has('rootless')
    const found =
      bundle === undefined
        ? await explainUnpack(app, {
            image: image ?? '',
            platform: readPlatform(args),
            rootless,
            signal,
          })
        : await explainBundle(app, { bundle, layout, signal })
    if (session.json) session.printJson(toJson(found, chain.parts))
    else print(found, chain.parts, session)
  },
}

function print(found: Explanation, chain: readonly ChainPart[], session: Session): void {
  const say = (term: string, text: string, column = 12): void => {
    for (const line of hang(term, column, text)) session.print(line)
  }
  const { extraction, rootfs, layers, drivers, extractors, listers, obstacle } = found
  if (obstacle) say('impossible', obstacle.message)
  const { layering, dialect, chosenBy } = extraction
  const chosen = chosenBy === undefined ? 'nobody chose otherwise' : `chosen by ${chosenBy}`
  say('layering', `${layering}, ${chosen}${dialect === 'plain' ? '' : ` (${dialect})`}`)
  say(
    'rootfs',
    layering === 'merged'
      ? 'a tree that layers are applied to in order'
      : `a mount of the layers at ${rootfs === undefined ? 'BUNDLE/rootfs' : printable(rootfs)}, which ${chosenBy ?? 'nobody'} sees to`,
  )
  say('changes', `listed by the first of these that can: ${listers.join(', ') || 'nobody'}`)
  const files = new Map(chain.flatMap(({ from, file }) => (file ? [[from, file]] : [])))
  for (const [from, file] of files) say(from, file)
  session.print('')
  session.print('chain, outermost first')
  const longest = Math.max(...drivers.map(({ name }) => name.length))
  const column = Math.min(Math.max(12, longest + 4), 24)
  for (const [at, { name, says }] of drivers.entries())
    say(`  ${name}`, `(${chain[at]?.from ?? 'default'}) ${says}`, column)
  session.print('')
  session.print(`layers, base first${layers.length === 0 ? ': none' : ''}`)
  for (const plan of layers) {
    const { index, digest, size } = plan.layer
    const text = `${digest.slice(0, 19)} ${sizeOf(size).padStart(9)}  ${fateOf(plan, extractors)}`
    for (const line of hang(`  ${index}`, 6, text)) session.print(line)
  }
}

function fateOf({ layer, foundBy, dir }: LayerPlan, extractors: readonly string[]): string {
  if (foundBy !== undefined)
    return `found by ${foundBy}${dir === undefined ? ', in the rootfs' : ` in ${dir}`}`
  const through = extractors.length === 0 ? '' : `, through ${extractors.join(', ')}`
  return `to be extracted${through}${layer.key === undefined ? '' : `, as ${layer.key}`}`
}

function toJson(found: Explanation, chain: readonly ChainPart[]): unknown {
  const { extraction, rootfs, layers, drivers, extractors, mounters, listers, obstacle } = found
  return {
    ...(obstacle && { obstacle }),
    extraction,
    chain: drivers.map((driver, at) => {
      const { from, file } = chain[at] ?? { from: 'default' }
      return { ...driver, from, file: file ?? null }
    }),
    layers: layers.map(({ layer, foundBy, dir }) => {
      const { index, digest, size, diffID, chainID, placed } = layer
      return {
        index,
        digest,
        size,
        diffID,
        chainID,
        key: layer.key ?? null,
        found: foundBy !== undefined,
        by: foundBy ?? null,
        dir: dir ?? null,
        entries: placed?.report?.entries ?? null,
      }
    }),
    extractors,
    rootfs: rootfs ?? null,
    mounters,
    listers,
  }
}
