// What one run has of the store: the layers that it uses, each locked against removal until the run ends. By then the lease
// of the bundle protects what the bundle needs.
import type { LayerRecordSummary } from '../../lib/bundle/layer-record.ts'
import type { Context, LayerContext } from '../../lib/context.ts'
import { createError, wrapError } from '../../lib/errors.ts'
import { bootID } from '../../lib/fs/boot-id.ts'
import { acquireLock, type Lock } from '../../lib/fs/lock.ts'
import type { Layer, Placement } from '../../lib/layer/layer.ts'
import type { Digest } from '../../lib/oci/digest.ts'
import { Claims } from './claims.ts'
import type { Completion } from './completion.ts'
import { randomName } from './files.ts'
import {
  degradedKey,
  dialectToStore,
  formatVersion,
  keysOf,
  keyToKeep,
  nameOfKey,
  ownView,
  type LayerKey,
} from './key.ts'
import { isLeased, readLease, recallLease, writeLease, removeLease } from './lease.ts'
import type { Staging } from './staging.ts'
import {
  clearLayerDirectory,
  makeLayerDirectory,
  type LayerFiles,
  type Store,
} from './store.ts'

/** The name under which the driver places layers, and bundles remember their leases. */
export const driverName = 'cache'

type OwnLayer = Pick<Completion, 'diffID' | 'index'> & { readonly name: string }

/** The store as one run of the application sees it. */
export class StoreRun {
  readonly store: Store
  readonly #durable: boolean
  readonly #claims: Claims
  readonly #held = new Map<string, Lock>()
  /** Under which the bundle has its lease. */
  readonly #leaseID: string
  readonly #isLeased: boolean
  /** Says that the bundle is being worked on: until it is complete, it looks as if it were gone. */
  #leaseLock: Lock | undefined
  /** What only this bundle may use: few, if any. Looked for once, since every layer asks. */
  #own: readonly OwnLayer[] | undefined

  constructor(ctx: Context, store: Store, durable: boolean) {
    this.store = store
    this.#claims = new Claims(store)
    this.#durable = durable
    const leaseID = recallLease(ctx.bundle.recall(driverName))
    this.#leaseID = leaseID ?? randomName()
    this.#isLeased = leaseID !== undefined
    ctx.closing(() => {
      for (const [name, lock] of this.#held) {
        // what came to nothing is no use of it
        if (!ctx.signal.aborted) store.touch(name)
        lock.release()
      }
      this.#leaseLock?.release()
      store.close()
    })
  }

  /** Places the layer, if the store has it. No blob is opened. */
  take({ layer, extraction }: LayerContext): boolean {
    const named = (key: LayerKey): boolean =>
      this.#takeName(layer, nameOfKey(key), () => this.store.lookUp(key))
    // what only this bundle may use is what it was made with
    return (
      this.#ownLayers().some(
        own => isSameLayer(own, layer) && this.#takeName(layer, own.name),
      ) || keysOf(layer, extraction).some(key => named(key) || named(degradedKey(key)))
    )
  }

  /** Runs what extracts the layer, with a target in the store, and keeps what comes of it. */
  async extract(ctx: LayerContext, next: () => Promise<void>): Promise<void> {
    const { layer, extraction, signal } = ctx
    const key = keyToKeep(layer, extraction)
    const keys = [key, degradedKey(key)]
    const name = nameOfKey(key)
    using claim = await this.#claims.wait(
      {
        name,
        names: keys.map(nameOfKey),
        take: () => this.take(ctx),
        isComplete: () => keys.some(each => this.store.lookUp(each) !== undefined),
      },
      signal,
    )
    if (!claim) return
    try {
      using staging = await this.store.stage()
      const files = await this.#prepare(staging, ctx)
      await next()
      // otherwise somebody else has it, and may keep it
      if (layer.placed?.dir === files.tree) await this.#keep(ctx, staging, files, claim.lock)
    } finally {
      if (this.#held.get(name) !== claim.lock) claim.lock.release()
    }
  }

  /** Has the store remember that the bundle needs these layers, and the bundle under which name it does. */
  async lease(ctx: Context, layers: readonly Layer[] = ctx.layers): Promise<void> {
    const { store } = this
    const names = layers.flatMap(({ placed }) => store.nameOf(placed?.dir) ?? [])
    if (names.length === 0 || !store.writable) return
    const id = this.#leaseID
    // what failed is mounted again, whatever the signal says by then
    const limit = ctx.signal.aborted ? { timeoutMs: 10_000 } : { signal: ctx.signal }
    this.#leaseLock ??= await acquireLock(store.lockFile(id), { shared: true, ...limit })
    const lease = { format: 1, bundle: ctx.bundle.path, layers: [...new Set(names)] } as const
    // before it is written: it may be there although it couldn't be synced
    if (!isLeased(store, id)) ctx.defer(() => removeLease(store, id))
    await writeLease(store, id, lease, this.#durable)
    if (!this.#isLeased) ctx.bundle.keep(driverName, { lease: id })
    this.#own = undefined
  }

  async #prepare(staging: Staging, { layer, extraction }: LayerContext): Promise<LayerFiles> {
    const { makeTreeRoot } = await import('../../lib/bundle/rootfs.ts')
    const files = makeLayerDirectory(staging)
    try {
      await makeTreeRoot(files.tree, extraction)
    } catch (error) {
      throw wrapError(error, files.tree)
    }
    layer.target = files.tree
    layer.dialect = dialectToStore(extraction)
    // on top of others it is extracted into something else than the target, and is recorded afterwards
    if (layer.needsBelow === undefined) layer.recordTo = files.record
    return files
  }

  /** Publishes what was extracted: for everybody only if it is the layer, the whole layer and nothing but the layer. */
  async #keep(
    ctx: LayerContext,
    staging: Staging,
    files: LayerFiles,
    lock: Lock,
  ): Promise<void> {
    const { layer, extraction, signal } = ctx
    const { placed, diffID, digest: blob, index } = layer
    clearLayerDirectory(staging)
    const record = layer.recorded ?? (await writeRecord(files, diffID, signal))
    const report = placed?.report ?? { entries: 0, bytes: 0 }
    const base = keyToKeep(layer, extraction)
    const key = (report.degraded?.length ?? 0) > 0 ? degradedKey(base) : base
    const isWhole =
      layer.extracted &&
      placed?.verified === true &&
      layer.taints.length === 0 &&
      extraction.recalled === undefined
    const completion: Completion = {
      format: formatVersion,
      ...(isWhole ? { key } : { key: null, lease: this.#leaseID }),
      diffID,
      blob,
      index,
      stored: new Date().toISOString(),
      durable: this.#durable,
      boot: bootID(),
      view: ownView(),
      record,
      report,
    }
    const name = isWhole ? nameOfKey(key) : randomName()
    // the claim's lock is of the name that the layer should have had
    const own = name === nameOfKey(base) ? lock : await this.#lock(name, false, signal)
    try {
      await this.store.publish(staging, name, completion)
    } catch (error) {
      own.release()
      throw error
    }
    this.#held.set(name, own.share() ? own : await this.#lock(name, true, signal))
    if (!this.store.look(name))
      throw createError('INVALID_STORE', {
        subject: this.store.tree(name),
        reason: 'it was removed the moment it was there',
      })
    layer.move(this.store.tree(name), driverName, this.#shareOf(name, completion))
  }

  #takeName(
    layer: Layer,
    name: string,
    look: () => Completion | undefined = () => this.store.look(name),
  ): boolean {
    const { store } = this
    if (!store.has(name)) return false
    const lock = this.#held.get(name) ?? store.tryLock(name, { shared: true })
    if (!lock) return false
    const found = look()
    if (!found) {
      lock.release()
      this.#held.delete(name)
      return false
    }
    this.#held.set(name, lock)
    layer.key = name
    const { report } = found
    const dir = store.tree(name)
    layer.place({ dir, by: driverName, verified: true, report, ...this.#shareOf(name, found) })
    return true
  }

  #ownLayers(): readonly OwnLayer[] {
    return (this.#own ??= this.#leasedNames().flatMap(name => {
      const found = this.store.look(name)
      if (found?.key !== null || found.lease !== this.#leaseID) return []
      return [{ name, diffID: found.diffID, index: found.index }]
    }))
  }

  #leasedNames(): readonly string[] {
    return this.#isLeased ? (readLease(this.store, this.#leaseID)?.layers ?? []) : []
  }

  #shareOf(name: string, found: Completion): Pick<Placement, 'loadRecord' | 'shared'> {
    return { loadRecord: () => this.store.load(name, found), shared: found.key !== null }
  }

  async #lock(name: string, shared: boolean, signal: AbortSignal): Promise<Lock> {
    return acquireLock(this.store.lockFile(name), { shared, signal })
  }
}

function isSameLayer(one: OwnLayer, { diffID, index }: Layer): boolean {
  return one.diffID === diffID && one.index === index
}

async function writeRecord(
  { tree, record }: LayerFiles,
  diffID: Digest,
  signal: AbortSignal,
): Promise<LayerRecordSummary> {
  const { writeLayerRecord } = await import('../../lib/bundle/layer-record.ts')
  return writeLayerRecord(tree, record, diffID, { signal })
}
