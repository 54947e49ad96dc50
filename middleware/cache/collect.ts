// Garbage collection. What a bundle has a lease for, what a running process has locked, and what is mounted is never taken,
// whatever the clock says; that a bundle is gone is believed only after it was missed several times.
import { rmSync } from 'node:fs'
import { uptime } from 'node:os'
import path from 'node:path'
import { bundleKeeps, isGone, missAgain } from '../../lib/bundle/missing.ts'
import { wrapError } from '../../lib/errors.ts'
import { bootID } from '../../lib/fs/boot-id.ts'
import type { CollectOptions, CollectReport, RemovedLayer } from '../../lib/stored-layers.ts'
import type { Completion } from './completion.ts'
import { namesIn } from './files.ts'
import {
  readAllLeases,
  readLease,
  recallLease,
  removeLease,
  writeLease,
  type Lease,
} from './lease.ts'
import { mountedLayers, reclaimStaging } from './staging.ts'
import { namePattern, type Store } from './store.ts'

interface Candidate {
  readonly name: string
  readonly bytes: number
  readonly used: number
  /** It wasn't there before. */
  readonly since: number
  readonly isPrivate: boolean
}

/**
 * Removes what nobody needs: what dead processes left, layers that aren't complete, those of bundles that are gone; and, if
 * asked, others that nobody uses now.
 * @throws {UnsupportedError} ERR_KOCI_READ_ONLY; {SystemError} ERR_KOCI_IO
 */
export async function collect(
  store: Store,
  options: CollectOptions = {},
): Promise<CollectReport> {
  store.assertWritable()
  try {
    return await new Collection(store, options).run()
  } catch (error) {
    throw wrapError(error, store.path)
  }
}

class Collection {
  readonly #store: Store
  readonly #options: CollectOptions
  readonly #now: number
  readonly #removed: RemovedLayer[] = []
  readonly #busy: string[] = []
  readonly #mounted: ReadonlySet<string> = mountedLayers()

  constructor(store: Store, options: CollectOptions) {
    this.#store = store
    this.#options = options
    this.#now = options.now ?? Date.now()
  }

  async run(): Promise<CollectReport> {
    const store = this.#store
    const stagingRemoved = await reclaimStaging(path.join(store.path, 'staging'))
    const leasesRemoved = await this.#dropLeases()
    await this.#removeIncomplete()
    const { keepBytes = Infinity, olderThanMs = Infinity } = this.#options
    const all = this.#candidates()
    let bytes = all.reduce((sum, each) => sum + each.bytes, 0)
    let layers = all.length
    for (const each of all) {
      const reason = each.isPrivate
        ? 'bundle gone'
        : this.#now - Math.max(each.used, each.since) > olderThanMs
          ? 'age'
          : bytes > keepBytes
            ? 'size'
            : undefined
      if (reason === undefined) continue
      if (!(await this.#remove(each.name, each.bytes, reason))) continue
      bytes -= each.bytes
      layers -= 1
    }
    await this.#removeLocks()
    const { damaged } = await readAllLeases(store)
    return {
      removed: this.#removed,
      bytesRemoved: this.#removed.reduce((sum, each) => sum + each.bytes, 0),
      layers,
      bytes,
      leasesRemoved,
      busy: this.#busy,
      stagingRemoved,
      damagedLeases: damaged.map(id => store.lease(id)),
    }
  }

  /** Complete layers, those first that weren't used for longest; what is from the future was used just now. */
  #candidates(): Candidate[] {
    const found = this.#store.names().flatMap((name): Candidate[] => {
      const completion = this.#store.look(name)
      if (!completion) return []
      const mtimeMs = this.#store.usedMs(name)
      if (mtimeMs === undefined) return []
      return [
        {
          name,
          bytes: completion.record.bytes,
          used: Math.min(mtimeMs, this.#now),
          since: this.#since(completion),
          isPrivate: completion.key === null,
        },
      ]
    })
    return found.sort((a, b) => a.used - b.used)
  }

  /** What was stored in this boot is no older than the boot, by the clock that nobody can set. */
  #since({ boot }: Completion): number {
    return boot === bootID() ? this.#now - uptime() * 1000 : -Infinity
  }

  async #removeIncomplete(): Promise<void> {
    const names = new Set(
      (await namesIn(path.join(this.#store.path, 'layers'))).map(name => name.slice(0, 32)),
    )
    for (const name of names)
      if (namePattern.test(name) && !this.#store.look(name))
        await this.#remove(name, 0, 'incomplete')
  }

  /** Removes a layer, unless somebody needs it; under the lock everything is looked at again. */
  async #remove(name: string, bytes: number, reason: RemovedLayer['reason']): Promise<boolean> {
    const isComplete = reason !== 'incomplete'
    if (isComplete && (this.#mounted.has(name) || (await this.#isLeased(name)))) return false
    using lock = this.#store.tryLock(name, { shared: false })
    const isNeeded = isComplete
      ? await this.#isLeased(name)
      : this.#store.look(name) !== undefined
    if (!lock || isNeeded) {
      if (!lock) this.#busy.push(name)
      return false
    }
    await this.#store.retire(name)
    this.#removed.push({ name, bytes, reason })
    return true
  }

  async #isLeased(name: string): Promise<boolean> {
    // read anew each time: between the last look and the lock a run may have ended
    const { leases, damaged } = await readAllLeases(this.#store)
    return damaged.length > 0 || leases.values().some(({ layers }) => layers.includes(name))
  }

  /** Removes locks of layers that aren't there: whoever locks one meanwhile notices that it is gone. */
  async #removeLocks(): Promise<void> {
    const names = new Set(this.#store.names())
    for (const name of await namesIn(path.join(this.#store.path, 'locks'))) {
      if (names.has(name) || !namePattern.test(name)) continue
      using lock = this.#store.tryLock(name, { shared: false })
      if (lock && !this.#store.look(name)) rmSync(this.#store.lockFile(name), { force: true })
    }
  }

  async #dropLeases(): Promise<number> {
    let count = 0
    const { leases, damaged } = await readAllLeases(this.#store)
    if (this.#options.dropMissing === true)
      for (const id of damaged) {
        using lock = this.#store.tryLock(id, { shared: false })
        if (!lock || readLease(this.#store, id)) continue
        removeLease(this.#store, id)
        count += 1
      }
    for (const [id, seen] of leases) {
      if (isBundleThere(id, seen) && !seen.missed) continue
      // of a bundle that is being made, or is somewhere else and used there
      using lock = this.#store.tryLock(id, { shared: false })
      // who worked on it may have ended between the look and the lock
      const lease = lock && readLease(this.#store, id)
      if (!lease) continue
      const { missed, ...rest } = lease
      const again = missAgain(missed, this.#now)
      if (isBundleThere(id, lease)) await writeLease(this.#store, id, rest, false)
      else if (this.#options.dropMissing === true || isGone(again, this.#now)) {
        removeLease(this.#store, id)
        count += 1
      } else await writeLease(this.#store, id, { ...rest, missed: again }, false)
    }
    return count
  }
}

function isBundleThere(id: string, { bundle }: Lease): boolean {
  return bundleKeeps(bundle, 'cache', kept => recallLease(kept) === id)
}
