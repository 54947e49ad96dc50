// The store as `koci cache` has it: each chain counts as what its topmost layer added.
import { createError } from '../../lib/errors.ts'
import type { LayerStore, StoredLayer } from '../../lib/stored-layers.ts'
import { basesOf, bytesOf, collect } from './collect.ts'
import type { Chain } from './names.ts'
import { driverName } from './state.ts'
import { Store } from './store.ts'
import { verify } from './verify.ts'

/** Opens the store in a directory; undefined if there is none. It isn't made. @throws what `Store.open` throws */
export async function findLayerStore(
  dir: string,
  signal: AbortSignal,
): Promise<LayerStore | undefined> {
  const store = await Store.find(dir, signal)
  return (
    store && {
      driver: driverName,
      path: store.path,
      list: async () =>
        [...store.chains()].flatMap(([name, chain]) => describe(store, name, chain) ?? []),
      collect: options => collect(store, options),
      verify: options => verify(store, options),
      remove: async layer => remove(store, layer),
      close: () => store.close(),
    }
  )
}

/** Undefined for what was removed meanwhile. */
function describe(store: Store, name: string, chain: Chain): StoredLayer | undefined {
  const usedMs = store.usedMs(name)
  if (usedMs === undefined) return undefined
  const { key, diffIDs, reports, blob, stored } = chain
  return {
    name,
    driver: driverName,
    diffID: diffIDs.at(-1) ?? '',
    chainID: key.chain,
    blob,
    dialect: null,
    entries: reports.at(-1)?.entries ?? 0,
    bytes: bytesOf(chain),
    stored,
    used: new Date(usedMs).toISOString(),
    trusted: store.isSound(chain),
    bundles: basesOf(store, name).map(({ bundle }) => bundle),
  }
}

function remove(store: Store, { name }: StoredLayer): void {
  using lock = store.tryAlone(name)
  const inUse = (users: string): Error =>
    createError('LAYER_IN_USE', { subject: `snapshot ${name}`, users })
  if (!lock) throw inUse('a running koci')
  const bundles = basesOf(store, name).map(({ bundle }) => bundle)
  if (bundles.length > 0) throw inUse(bundles.join(', '))
  const found = store.chain(name)
  if (found) store.removeChain(name, found)
}
