// koci cache du: what a store takes.
import { measureLayers } from '../../../lib/stored-layers.ts'
import type { Command } from '../../command.ts'
import { dir, size, withStores } from './store.ts'

export const usage: Command = {
  positionals: [],
  options: { dir },
  notes: 'Sizes are what the files take in blocks of 4 KiB, holes included.',
  examples: ['koci cache du', 'koci cache du --json'],

  async run(args, session) {
    const found = await withStores(args, session, stores =>
      Promise.all(
        stores.map(async store => ({
          driver: store.driver,
          store: store.path,
          ...measureLayers(await store.list()),
        })),
      ),
    )
    if (session.json) return session.printJson(found)
    const row = (what: string, { layers, bytes }: { layers: number; bytes: number }): void =>
      session.print(`${size(bytes).padStart(10)}  ${String(layers).padStart(6)}  ${what}`)
    for (const each of found) {
      row(each.driver === 'btrfs' ? 'snapshots' : 'layers', each)
      row('of these needed by bundles', each.leased)
    }
  },
}
