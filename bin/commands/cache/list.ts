// koci cache ls: the layers of a store, one a line.
import type { Command } from '../../command.ts'
import { dir, openStore, size } from './store.ts'

export const list: Command = {
  positionals: [],
  options: { dir },
  notes: 'Name, size, when it was used last, DiffID, and how many bundles need it.',
  examples: ['koci cache ls', 'koci cache ls --dir /var/cache/koci --json'],

  async run(args, session) {
    const store = await openStore(args)
    const { listLayers } = await import('../../../middleware/cache/list.ts')
    const layers = await listLayers(store)
    if (session.json) return session.printJson(layers)
    for (const { name, bytes, used, diffID, chainID, bundles, trusted } of layers) {
      const notes = [
        ...(chainID === null ? [] : ['on top of others']),
        ...(bundles.length === 0
          ? []
          : [`${bundles.length} bundles`.replace(/^(1 .*)s$/, '$1')]),
        ...(trusted ? [] : ['outdated']),
      ]
      const columns = [name, size(bytes).padStart(10), used.slice(0, 16), diffID.slice(0, 19)]
      session.print([...columns, notes.join(', ')].join('  ').trimEnd())
    }
  },
}
