// koci cache rm: removes one layer.
import type { Command } from '../../command.ts'
import { dir, openStore } from './store.ts'

export const remove: Command = {
  positionals: ['layer'],
  options: { dir },
  notes:
    'A name as koci cache ls shows it, or a DiffID, which may mean several; either\n' +
    'may be cut short. Refused while a bundle, a mount or a running koci needs it.',
  examples: ['koci cache rm 0f3a2b', 'koci cache rm sha256:5b7a'],

  async run(args, session) {
    const [text = ''] = args.positionals
    const store = await openStore(args)
    const { findLayers, removeLayer } = await import('../../../middleware/cache/list.ts')
    const layers = await findLayers(store, text)
    for (const layer of layers) await removeLayer(store, layer)
    if (session.json) session.printJson(layers.map(({ name }) => name))
  },
}
