// Leases: which layers a bundle needs. They go by the bundle's own id, which is in its koci.json and moves with it; the path
// in a lease only tells where it was seen last.
import { existsSync, readFileSync, rmSync } from 'node:fs'
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

/** Reads a lease; undefined if there is none, or it is damaged. */
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

/** Whether there is a lease, sound or not. */
export function isLeased(store: Store, id: string): boolean {
  return existsSync(store.lease(id))
}

/** Writes a lease, unless it says so already. */
export async function writeLease(
  store: Store,
  id: string,
  lease: Lease,
  durable: boolean,
): Promise<void> {
  const before = readLease(store, id)
  if (JSON.stringify(before) !== JSON.stringify(lease))
    await store.write(store.lease(id), JSON.stringify(lease), durable)
}

/** Removes a lease; one that isn't there is no error. */
export function removeLease(store: Store, id: string): void {
  rmSync(store.lease(id), { force: true })
}

/** All leases, by the ids of their bundles. */
export async function readLeases(store: Store): Promise<Map<string, Lease>> {
  return (await readAllLeases(store)).leases
}

/** All leases, and the ids of those that can't be read: whatever they say is needed. */
export async function readAllLeases(
  store: Store,
): Promise<{ leases: Map<string, Lease>; damaged: string[] }> {
  const leases = new Map<string, Lease>()
  const damaged: string[] = []
  for (const file of await namesIn(path.join(store.path, 'leases'))) {
    const id = path.basename(file, '.json')
    if (!namePattern.test(id)) continue
    const lease = readLease(store, id)
    if (lease) leases.set(id, lease)
    else if (isLeased(store, id)) damaged.push(id)
  }
  return { leases, damaged }
}
