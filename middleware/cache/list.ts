// What is in a store, for people and programs; and removing single layers.
import { createError } from '../../lib/errors.ts'
import type { StoredLayer } from '../../lib/stored-layers.ts'
import { isTrusted, readCompletion, type Completion } from './completion.ts'
import { readAllLeases, readLeases } from './lease.ts'
import { mountedLayers } from './staging.ts'
import type { Store } from './store.ts'

/** Everything that is complete, or was. */
export async function listLayers(store: Store): Promise<StoredLayer[]> {
  const leases = [...(await readLeases(store)).values()]
  return store.names().flatMap(name => {
    const found = readCompletion(store.completion(name))
    const usedMs = store.usedMs(name)
    if (!found || usedMs === undefined) return []
    const bundles = leases
      .filter(({ layers }) => layers.includes(name))
      .map(({ bundle }) => bundle)
    return [describe(name, found, usedMs, bundles)]
  })
}

/**
 * Removes a layer that nobody needs.
 * @throws {ConflictError} ERR_KOCI_LAYER_IN_USE; {UnsupportedError} ERR_KOCI_READ_ONLY
 */
export async function removeLayer(store: Store, { name }: StoredLayer): Promise<void> {
  store.assertWritable()
  using lock = store.tryLock(name, { shared: false })
  const inUse = (users: string): Error =>
    createError('LAYER_IN_USE', { subject: `layer ${name}`, users })
  if (!lock) throw inUse('a running koci')
  // under the lock: nobody can begin to use it any more
  const { leases, damaged } = await readAllLeases(store)
  const bundles = [...leases.values()].filter(({ layers }) => layers.includes(name))
  if (bundles.length > 0) throw inUse(bundles.map(({ bundle }) => bundle).join(', '))
  const [unread] = damaged
  if (unread !== undefined)
    throw inUse(`a bundle perhaps, since the lease ${store.lease(unread)} is damaged`)
  if (mountedLayers().has(name)) throw inUse('a mount')
  await store.retire(name)
}

function describe(
  name: string,
  found: Completion,
  usedMs: number,
  bundles: readonly string[],
): StoredLayer {
  const { key, diffID, blob, record, stored } = found
  return {
    name,
    driver: 'cache',
    diffID,
    chainID: key?.of === 'chain' ? key.id : null,
    blob,
    dialect: key?.dialect ?? null,
    entries: record.entries,
    bytes: record.bytes,
    stored,
    used: new Date(usedMs).toISOString(),
    trusted: isTrusted(found),
    bundles,
  }
}
