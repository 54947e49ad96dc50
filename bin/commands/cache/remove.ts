// koci cache rm: removes one layer.
import { createError } from '../../../lib/errors.ts'
import { layersCalled } from '../../../lib/stored-layers.ts'
import type { Command } from '../../command.ts'
import { dir, withStores } from './store.ts'

export const remove: Command = {
  positionals: ['layer'],
  options: { dir },
  notes:
    'A name as koci cache ls shows it, or a DiffID, which may mean several; either\n' +
    'may be cut short. Refused while a bundle, a mount or a running koci needs it.',
  examples: ['koci cache rm 0f3a2b', 'koci cache rm sha256:5b7a'],

  async run(args, session) {
    const [text = ''] = args.positionals
    const names = await withStores(args, session, async stores => {
      const found = await Promise.all(
        stores.map(async store => ({ store, layers: layersCalled(await store.list(), text) })),
      )
      const store = stores.map(({ path }) => path).join(' or ')
      if (found.every(({ layers }) => layers.length === 0))
        throw createError('LAYER_NOT_STORED', { subject: text, store })
      for (const { store, layers } of found)
        for (const layer of layers) await store.remove(layer)
      return found.flatMap(({ layers }) => layers.map(({ name }) => name))
    })
    if (session.json) session.printJson(names)
  },
}
