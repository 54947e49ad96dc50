// What is in a store, for people and programs; and removing single layers.
import { statSync } from 'node:fs'
import { createError } from '../../lib/errors.ts'
import { isTrusted, readCompletion, type Completion } from './completion.ts'
import { readLeases } from './lease.ts'
import { mountedLayers } from './staging.ts'
import type { Store } from './store.ts'

/** A stored layer. */
export interface StoredLayer {
  readonly name: string
  readonly diffID: string
  /** Its ChainID, if it was extracted on top of the layers below it. */
  readonly chainID: string | null
  readonly blob: string
  readonly dialect: string | null
  readonly entries: number
  /** What it takes on disk. */
  readonly bytes: number
  /** When it was stored and, to the hour, used last. */
  readonly stored: string
  readonly used: string
  /** Whether it may still be used. */
  readonly trusted: boolean
  /** Paths of the bundles that need it. */
  readonly bundles: readonly string[]
}

/** What a store takes. */
export interface Usage {
  readonly layers: number
  readonly bytes: number
  /** Of these, what bundles need. */
  readonly leased: { readonly layers: number; readonly bytes: number }
}

/** Everything that is complete, or was. */
export async function listLayers(store: Store): Promise<StoredLayer[]> {
  const leases = [...(await readLeases(store)).values()]
  return store.names().flatMap(name => {
    const found = readCompletion(store.completion(name))
    if (!found) return []
    const bundles = leases
      .filter(({ layers }) => layers.includes(name))
      .map(({ bundle }) => bundle)
    return [describe(store, name, found, bundles)]
  })
}

/** How much there is. */
export async function measure(store: Store): Promise<Usage> {
  const layers = await listLayers(store)
  const leased = layers.filter(({ bundles }) => bundles.length > 0)
  return { ...sum(layers), leased: sum(leased) }
}

/**
 * The layers that are called so: by name, or DiffID, either cut short to no less than six digits.
 * @throws {NotFoundError} ERR_KOCI_LAYER_NOT_STORED if there is none
 */
export async function findLayers(store: Store, text: string): Promise<StoredLayer[]> {
  const hex = /^(?:sha(?:256|512):)?([0-9a-f]{6,})$/.exec(text)?.[1]
  const layers = hex === undefined ? [] : await listLayers(store)
  const found = layers.filter(
    ({ name, diffID }) =>
      name.startsWith(text) ||
      diffID.startsWith(text) ||
      diffID.slice(diffID.indexOf(':') + 1).startsWith(text),
  )
  if (found.length > 0) return found
  throw createError('LAYER_NOT_STORED', { subject: text, store: store.path })
}

/**
 * Removes a layer that nobody needs.
 * @throws {ConflictError} ERR_KOCI_LAYER_IN_USE
 */
export async function removeLayer(store: Store, { name }: StoredLayer): Promise<void> {
  using lock = store.tryLock(name, { shared: false })
  const inUse = (users: string): Error =>
    createError('LAYER_IN_USE', { subject: `layer ${name}`, users })
  if (!lock) throw inUse('a running koci')
  // under the lock: nobody can begin to use it any more
  const leases = [...(await readLeases(store)).values()]
  const bundles = leases.filter(({ layers }) => layers.includes(name))
  if (bundles.length > 0) throw inUse(bundles.map(({ bundle }) => bundle).join(', '))
  if (mountedLayers().has(name)) throw inUse('a mount')
  await store.retire(name)
}

function describe(
  store: Store,
  name: string,
  found: Completion,
  bundles: readonly string[],
): StoredLayer {
  const { key, diffID, blob, record, stored } = found
  return {
    name,
    diffID,
    chainID: key?.of === 'chain' ? key.id : null,
    blob,
    dialect: key?.dialect ?? null,
    entries: record.entries,
    bytes: record.bytes,
    stored,
    used: new Date(statSync(store.completion(name)).mtimeMs).toISOString(),
    trusted: isTrusted(found),
    bundles,
  }
}

function sum(layers: readonly StoredLayer[]): { layers: number; bytes: number } {
  return {
    layers: layers.length,
    bytes: layers.reduce((total, { bytes }) => total + bytes, 0),
  }
}
