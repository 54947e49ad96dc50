// Garbage collection. A bundle needs its base, and the chain that this is the same as takes no room of its own meanwhile; a
// chain stays as long as one on top of it does, for the same reason. So those on top go first. What a running process has
// locked is never taken, and that a bundle is gone is believed only after it was missed several times.
import { rmSync } from 'node:fs'
import { bundleKeeps, isGone, missAgain } from '../../lib/bundle/missing.ts'
import { wrapError } from '../../lib/errors.ts'
import { chainIDs } from '../../lib/oci/chain-id.ts'
import type { CollectOptions, CollectReport, RemovedLayer } from '../../lib/stored-layers.ts'
import { nameOfKey } from './key.ts'
import { namesIn, type Base, type Chain } from './names.ts'
import { driverName } from './state.ts'
import type { Store } from './store.ts'

/** Removes bases of bundles that are gone, chains that aren't sound; and, if asked, others that nobody uses now. */
export async function collect(
  store: Store,
  options: CollectOptions = {},
): Promise<CollectReport> {
  try {
    return await new Collection(store, options).run()
  } catch (error) {
    throw wrapError(error, store.path)
  }
}

/** What the topmost layer of a chain added. */
export function bytesOf({ reports }: Chain): number {
  const top = reports.at(-1)
  return top?.fileBytes ?? top?.bytes ?? 0
}

interface Candidate {
  readonly name: string
  readonly chain: Chain
  readonly bytes: number
  /** Itself, or the last of those on top of it. */
  used: number
}

class Collection {
  readonly #store: Store
  readonly #options: CollectOptions
  readonly #now: number
  readonly #removed: RemovedLayer[] = []
  readonly #busy: string[] = []

  constructor(store: Store, options: CollectOptions) {
    this.#store = store
    this.#options = options
    this.#now = options.now ?? Date.now()
  }

  async run(): Promise<CollectReport> {
    const store = this.#store
    const leasesRemoved = await this.#dropBases()
    for (const name of namesIn(`${store.path}/chains`)) {
      const chain = store.chain(name)
      if (!chain || !store.isSound(chain)) this.#remove(name, 0, 'incomplete')
    }
    const all = this.#candidates()
    const { keepBytes = Infinity, olderThanMs = Infinity } = this.#options
    let bytes = all.reduce((sum, each) => sum + each.bytes, 0)
    /** Names of chains that others stand on. */
    const carrying = new Set<string>()
    let layers = all.length
    for (const each of all) {
      const { name, chain, used } = each
      const reason =
        this.#now - used > olderThanMs ? 'age' : bytes > keepBytes ? 'size' : undefined
      const isKept =
        reason === undefined || carrying.has(name) || !this.#remove(name, each.bytes, reason)
      if (isKept) for (const below of namesBelow(chain)) carrying.add(below)
      else [bytes, layers] = [bytes - each.bytes, layers - 1]
    }
    this.#removeLocks()
    return {
      removed: this.#removed,
      bytesRemoved: this.#removed.reduce((sum, each) => sum + each.bytes, 0),
      layers,
      bytes,
      leasesRemoved,
      busy: this.#busy,
      stagingRemoved: store.leftovers,
    }
  }

  /** Those first that weren't used for longest, and of these the ones on top; what is from the future was used just now. */
  #candidates(): Candidate[] {
    const found = new Map<string, Candidate>()
    for (const [name, chain] of this.#store.chains()) {
      const usedMs = this.#store.usedMs(name)
      if (usedMs === undefined) continue
      const used = Math.min(usedMs, this.#now)
      found.set(name, { name, chain, bytes: bytesOf(chain), used })
    }
    for (const { chain, used } of found.values())
      for (const name of namesBelow(chain)) {
        const below = found.get(name)
        if (below) below.used = Math.max(below.used, used)
      }
    return [...found.values()].sort(
      (a, b) => a.used - b.used || b.chain.diffIDs.length - a.chain.diffIDs.length,
    )
  }

  /** Removes a chain, unless somebody needs it; under the lock everything is looked at again. */
  #remove(name: string, bytes: number, reason: RemovedLayer['reason']): boolean {
    const store = this.#store
    const isComplete = reason !== 'incomplete'
    if (isComplete && basesOf(store, name).length > 0) return false
    using lock = store.tryAlone(name)
    if (!lock) {
      this.#busy.push(name)
      return false
    }
    const chain = store.chain(name)
    if (isComplete ? basesOf(store, name).length > 0 : chain && store.isSound(chain))
      return false
    if (chain) store.removeChain(name, chain)
    else rmSync(store.chainFile(name), { force: true })
    this.#removed.push({ name, bytes, reason })
    return true
  }

  /** Removes locks of what isn't there: whoever locks one meanwhile notices that it is gone. */
  #removeLocks(): void {
    const store = this.#store
    const known = new Set([...store.chains().keys(), ...store.bases().keys()])
    store.removeLocks(name => known.has(name))
  }

  async #dropBases(): Promise<number> {
    const store = this.#store
    let count = 0
    for (const [name, seen] of store.bases()) {
      if (isBundleThere(name, seen) && !seen.missed) continue
      // of a bundle that is being made, or is somewhere else and used there
      using lock = store.tryAlone(name)
      // who worked on it may have ended between the look and the lock
      const base = lock && store.base(name)
      const { missed, ...rest } = base ?? seen
      const again = missAgain(missed, this.#now)
      const isThere = isBundleThere(name, rest)
      const isToGo =
        !isThere && (this.#options.dropMissing === true || isGone(again, this.#now))
      if (!base) {
        if (!lock && isToGo) this.#busy.push(name)
      } else if (isToGo) {
        store.removeBase(name)
        count += 1
      } else await store.rewriteBase(name, isThere ? rest : { ...rest, missed: again })
    }
    return count
  }
}

/** The bundles whose base is the same as a chain. */
export function basesOf(store: Store, chain: string): Base[] {
  // read anew each time: between the last look and the lock a run may have ended
  return [...store.bases().values()].filter(base => base.chain === chain)
}

function namesBelow({ key, diffIDs }: Chain): string[] {
  return chainIDs(diffIDs)
    .slice(0, -1)
    .map(chain => nameOfKey({ ...key, chain }))
}

function isBundleThere(name: string, { bundle }: Base): boolean {
  return bundleKeeps(bundle, driverName, kept => isBase(kept, name))
}

function isBase(kept: unknown, name: string): boolean {
  return (kept as { readonly base?: unknown } | undefined)?.base === name
}
