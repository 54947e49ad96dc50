// koci cache du: what a store takes.
import type { Command } from '../../command.ts'
import { dir, openStore, size } from './store.ts'

export const usage: Command = {
  positionals: [],
  options: { dir },
  notes: 'Sizes are what the files take in blocks of 4 KiB, holes included.',
  examples: ['koci cache du', 'koci cache du --json'],

  async run(args, session) {
    const store = await openStore(args)
    const { measure } = await import('../../../middleware/cache/list.ts')
    const found = await measure(store)
    if (session.json) return session.printJson({ store: store.path, ...found })
    const row = (what: string, { layers, bytes }: { layers: number; bytes: number }): void =>
      session.print(`${size(bytes).padStart(10)}  ${String(layers).padStart(6)}  ${what}`)
    row('layers', found)
    row('of these needed by bundles', found.leased)
  },
}
