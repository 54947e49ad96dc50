// koci cache ls: the layers of a store, one a line.
import type { Command } from '../../command.ts'
import { dir, size, withStores } from './store.ts'

export const list: Command = {
  positionals: [],
  options: { dir },
  notes: 'Name, size, when it was used last, DiffID, and how many bundles need it.',
  examples: ['koci cache ls', 'koci cache ls --dir /var/cache/koci --json'],

  async run(args, session) {
    const layers = await withStores(args, session, async stores =>
      (await Promise.all(stores.map(store => store.list()))).flat(),
    )
    if (session.json) return session.printJson(layers)
    for (const { name, driver, bytes, used, diffID, chainID, bundles, trusted } of layers) {
      const notes = [
        ...(driver === 'btrfs' ? ['snapshot'] : []),
        ...(chainID === null || chainID === diffID ? [] : ['on top of others']),
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
