// The store as `koci cache` has it.
import type { LayerStore } from '../../lib/stored-layers.ts'
import { collect } from './collect.ts'
import { listLayers, removeLayer } from './list.ts'
import { Store } from './store.ts'
import { verify } from './verify.ts'

/** Opens the store in a directory; undefined if there is none. It isn't made. @throws what `Store.find` throws */
export function findLayerStore(dir: string): LayerStore | undefined {
  const store = Store.find(dir)
  return (
    store && {
      driver: 'cache',
      path: store.path,
      list: () => listLayers(store),
      collect: options => collect(store, options),
      verify: options => verify(store, options),
      remove: layer => removeLayer(store, layer),
      close: () => store.close(),
    }
  )
}
