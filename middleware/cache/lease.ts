// Leases: which layers a bundle needs. They go by the bundle's own id, which is in its koci.json and moves with it; the path
// in a lease only tells where it was seen last.
import { readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import type { Missed } from '../../lib/bundle/missing.ts'
import { parseJson } from '../../lib/oci/json.ts'
import { isMissing, namesIn } from './files.ts'
import { namePattern, type Store } from './store.ts'

/** What a lease says; JSON. */
export interface Lease {
  readonly format: 1
  /** Absolute path of the bundle when it was last worked on. */
  readonly bundle: string
  /** Names of the layers that it needs, base first. */
  readonly layers: readonly string[]
  /** How often, and since when, gc didn't find the bundle there. */
  readonly missed?: Missed | undefined
}

/** The id of a bundle's lease, from what the bundle keeps for the driver; undefined if it has none. */
export function recallLease(kept: unknown): string | undefined {
  const { lease } = (kept ?? {}) as { lease?: unknown }
  return typeof lease === 'string' && namePattern.test(lease) ? lease : undefined
}

/** Reads a lease; undefined if there is none. One that is damaged is no lease either. */
export function readLease(store: Store, id: string): Lease | undefined {
  const file = store.lease(id)
  try {
    const lease = parseJson(readFileSync(file), file) as Lease
    const isSound =
      lease.format === 1 &&
      typeof lease.bundle === 'string' &&
      Array.isArray(lease.layers) &&
      lease.layers.every(name => typeof name === 'string' && namePattern.test(name))
    return isSound ? lease : undefined
  } catch (error) {
    if (isMissing(error) || (error as Error).name === 'FormatError') return undefined
    throw error
  }
}

/** Writes a lease, unless it says so already. Tells whether there was none. */
export async function writeLease(
  store: Store,
  id: string,
  lease: Lease,
  durable: boolean,
): Promise<boolean> {
  const before = readLease(store, id)
  if (JSON.stringify(before) !== JSON.stringify(lease))
    await store.write(store.lease(id), JSON.stringify(lease), durable)
  return before === undefined
}

/** Removes a lease; one that isn't there is no error. */
export function removeLease(store: Store, id: string): void {
  rmSync(store.lease(id), { force: true })
}

/** All leases, by the ids of their bundles. */
export async function readLeases(store: Store): Promise<Map<string, Lease>> {
  const leases = new Map<string, Lease>()
  for (const file of await namesIn(path.join(store.path, 'leases'))) {
    const id = path.basename(file, '.json')
    const lease = namePattern.test(id) ? readLease(store, id) : undefined
    if (lease) leases.set(id, lease)
  }
  return leases
}
