// What one run has of the store. An unpack begins with the longest chain of the image's layers that is there, and keeps each
// chain that it extracts on top; a repack has the new layer extracted on top of the bundle's base.
import { lstatSync } from 'node:fs'
import { resetTreeRoot } from '../../lib/bundle/rootfs.ts'
import type { ChangeList } from '../../lib/change-list.ts'
import type { Context, DeltaContext, LayerContext, RefreshContext } from '../../lib/context.ts'
import { createError, wrapError } from '../../lib/errors.ts'
import {
  createSnapshot,
  createSubvolume,
  destroySubvolume,
  fileSystemID,
  hasNested,
} from '../../lib/fs/btrfs.ts'
import type { Extraction } from '../../lib/layer/extraction.ts'
import type { Layer, LayerReport } from '../../lib/layer/layer.ts'
import { keyOf, nameOfKey, type ChainKey } from './key.ts'
import { listSnapshotChanges } from './list-changes.ts'
import type { Chain } from './names.ts'
import { driverName, type State } from './state.ts'
import type { Store } from './store.ts'

/** An unpack. */
export class UnpackRun {
  readonly #store: Store
  /** How many layers the rootfs began with. */
  #found = 0
  /** Reports of the layers that are in the rootfs, as long as there is nothing else in it. */
  #reports: LayerReport[] | undefined = []
  readonly #chains: Chain[] = []
  /** Chains that nobody else makes meanwhile. */
  #claimed: readonly string[] = []

  constructor(store: Store) {
    this.#store = store
  }

  /** Makes the rootfs, still empty. */
  async begin({ bundle, extraction, defer, rootfs }: Context): Promise<void> {
    if (fileSystemID(bundle.path) !== this.#store.fileSystem)
      throw createError('UNSUPPORTED_PLATFORM', {
        subject: bundle.path,
        reason: `it is on another btrfs than ${this.#store.path}, and snapshots can't go there - give btrfs() a dir on this one`,
      })
    await bundle.claim('rootfs')
    defer(() => destroySubvolume(rootfs))
    createSubvolume(rootfs)
    try {
      await resetTreeRoot(rootfs, extraction)
    } catch (error) {
      throw wrapError(error, rootfs)
    }
  }

  /** Whether the layer is in the rootfs; the first one to be looked for puts all of them there. */
  async take(ctx: LayerContext): Promise<boolean> {
    const { layer } = ctx
    if (layer.index === 0) await this.#restore(ctx)
    if (layer.index >= this.#found) return false
    if (layer.taints.length > 0)
      throw createError('LAYER_SHARED', {
        subject: `layer ${layer.digest}`,
        by: driverName,
        reason: layer.taints.join('; '),
      })
    layer.place({ by: driverName, verified: true, report: this.#reports?.[layer.index] })
    return true
  }

  /** Makes the rootfs a snapshot of the longest chain that is there; the longer ones nobody else makes from now on. */
  async #restore({ layers, extraction, rootfs, signal }: LayerContext): Promise<void> {
    const keys = layers.map(({ chainID }) => keyOf(chainID, extraction))
    for (;;) {
      const found = this.#longest(keys)
      const missing = keys.slice(found?.reports.length ?? 0)
      if (!(await this.#store.claim(missing, signal))) continue
      this.#claimed = missing.map(nameOfKey)
      if (!found) return
      destroySubvolume(rootfs)
      createSnapshot(this.#store.snapshot(found.snapshot), rootfs, { readOnly: false })
      this.#found = found.reports.length
      this.#reports = [...found.reports]
      return
    }
  }

  #longest(keys: readonly ChainKey[]): Chain | undefined {
    for (const key of keys.toReversed()) {
      const found = this.#store.use(key)
      if (found) return found
    }
    return undefined
  }

  /** Runs what extracts a layer into the rootfs, and keeps what is there then. */
  async extract(ctx: LayerContext, next: () => Promise<void>): Promise<void> {
    const { layer, extraction, rootfs } = ctx
    this.assertPrefix(ctx.layers)
    const isOurs = layer.target === undefined && layer.placed === undefined
    await next()
    const { placed } = layer
    const isWhole = isOurs && isUntouched(layer) && placed?.dir === undefined
    if (!isWhole || placed?.report?.entries === undefined) this.#reports = undefined
    if (!this.#reports || !placed?.report) {
      // it won't be there for those who wait
      this.#store.letGo(this.#claimed.slice(this.#chains.length))
      this.#claimed = []
      return
    }
    this.#reports.push(placed.report)
    const snapshot = this.#store.nameSnapshot()
    createSnapshot(rootfs, this.#store.snapshot(snapshot), { readOnly: true })
    const below = ctx.layers.slice(0, layer.index + 1)
    this.#chains.push(describeChain(this.#store, below, extraction, snapshot, this.#reports))
  }

  /** What is in the rootfs from the beginning nobody else may put there again. */
  assertPrefix(layers: readonly Layer[]): void {
    const other = layers.slice(0, this.#found).find(({ placed }) => placed?.by !== driverName)
    if (!other) return
    throw createError('CLOBBER', {
      subject: `layer ${other.digest}, which is in a snapshot`,
      remedy: `${other.placed?.by} must not place it again; use one store`,
    })
  }

  /** Makes everything count: the chains, and the base of the bundle. */
  async finish({ bundle, extraction, defer, rootfs, layers, signal }: Context): Promise<void> {
    const base = this.#store.nameSnapshot()
    createSnapshot(rootfs, this.#store.snapshot(base), { readOnly: true })
    defer(() => this.#store.removeBase(base))
    // before it has a name: until the bundle says that it is its base, it looks as if it were that of one that is gone
    await this.#store.holdNew(base, signal)
    const isWhole = this.#reports?.length === layers.length && extraction.variants.length === 0
    const top = layers.at(-1)
    await this.#store.publish(this.#chains, {
      ...this.#store.identify(base),
      bundle: bundle.path,
      chain: isWhole && top ? nameOfKey(keyOf(top.chainID, extraction)) : null,
    })
    const state: State = { base, reports: (isWhole && this.#reports) || null }
    bundle.keep(driverName, state)
  }
}

/** A repack, or the listing of changes. */
export class RepackRun {
  readonly #store: Store
  readonly state: State
  /** The rootfs as it was when changes were listed, and the list. */
  #listed: { readonly snapshot: string; readonly changes: ChangeList } | undefined
  /** The old base with the new layer on top. */
  #produced: string | undefined
  #reports: readonly LayerReport[] | null = null
  /** Its name, if it is kept. */
  #chain: string | null = null

  constructor(store: Store, state: State) {
    this.#store = store
    this.state = state
  }

  /** Lists what changed. False, with a warning, if it can't be told. */
  async list(ctx: DeltaContext): Promise<boolean> {
    const { rootfs, signal } = ctx
    const obstacle = (reason: string): false => {
      const message = `changes can't be listed from snapshots, so the next driver is asked: ${reason}`
      ctx.warn({ code: 'SNAPSHOTS_NOT_COMPARED', message })
      return false
    }
    if (lstatSync(rootfs).ino !== 256) return obstacle('the rootfs is no subvolume any more')
    if (hasNested(rootfs)) return obstacle('there are subvolumes in the rootfs')
    const snapshot = this.#store.nameSnapshot()
    createSnapshot(rootfs, this.#store.snapshot(snapshot), { readOnly: true })
    const pair = {
      older: this.#store.snapshot(this.state.base),
      newer: this.#store.snapshot(snapshot),
    }
    const answer = await listSnapshotChanges(pair, this.#store.snapshot(''), signal)
    if ('obstacle' in answer) return obstacle(answer.obstacle)
    this.#listed = { snapshot, changes: answer.changes }
    ctx.changes = answer.changes
    return true
  }

  /** Runs what extracts the new layer, on top of the base, and keeps what comes of it. */
  async extract(ctx: LayerContext, next: () => Promise<void>): Promise<void> {
    const { layer, extraction } = ctx
    const isTaken = layer.target !== undefined || layer.placed !== undefined
    if (isTaken) return next()
    const target = this.#store.snapshot(this.#store.nameSnapshot())
    createSnapshot(this.#store.snapshot(this.state.base), target, { readOnly: false })
    layer.target = target
    layer.dialect = 'plain'
    await next()
    const { placed } = layer
    if (!isUntouched(layer) || placed?.dir !== target || !placed.report) return
    const snapshot = this.#store.nameSnapshot()
    createSnapshot(target, this.#store.snapshot(snapshot), { readOnly: true })
    this.#produced = snapshot
    if (!this.state.reports || extraction.variants.length > 0) return
    this.#reports = [...this.state.reports, placed.report]
    const layers = [...ctx.layers.slice(0, layer.index), layer]
    const chain = describeChain(this.#store, layers, extraction, snapshot, this.#reports)
    this.#chain = nameOfKey(chain.key)
    // so that it isn't collected before the bundle has it
    this.#store.hold(this.#chain)
    await this.#store.publish([chain])
  }

  /**
   * Gives the bundle a new base: the rootfs as it was listed, if all of that was packed, so that the two share their files;
   * else the old base with the new layer.
   */
  async refresh(ctx: RefreshContext): Promise<void> {
    const { bundle, layers, newLayers } = ctx
    if (newLayers.length === layers.length) return
    const source = this.#isAllPacked(ctx) ? this.#listed?.snapshot : this.#produced
    if (source === undefined)
      throw createError('CLOBBER', {
        subject: `layer ${newLayers.at(-1)?.digest}`,
        remedy: 'another store took it; use btrfs() without one to refresh a bundle',
      })
    const base = this.#store.nameSnapshot()
    createSnapshot(this.#store.snapshot(source), this.#store.snapshot(base), { readOnly: true })
    ctx.defer(() => this.#store.removeBase(base))
    const { path } = bundle
    const chain = this.#chain
    await this.#store.holdNew(base, ctx.signal)
    await this.#store.publish([], { ...this.#store.identify(base), bundle: path, chain })
    const state: State = { base, reports: this.#reports }
    bundle.keep(driverName, state)
    bundle.discard(() => this.#store.removeBase(this.state.base))
  }

  /** Whether each change that was listed was packed as it was then, and none was left out by masks or filters. */
  #isAllPacked({ packed, packedHashes, packedRecord }: RefreshContext): boolean {
    if (!this.#listed) return packed.length === 0
    const { changes, snapshot } = this.#listed
    if (changes.length !== packed.length) return false
    const root = Buffer.from(`${this.#store.snapshot(snapshot)}/`)
    const listed = changes[Symbol.iterator]()
    // both are sorted
    return Iterator.from(packed).every(({ kind, rawPath }, row) => {
      const { value: each } = listed.next()
      if (each?.kind !== kind || !each.rawPath.equals(rawPath)) return false
      if (kind === 'D') return true
      // a path in a snapshot that nobody else can change, nor reach
      const stat = lstatSync(Buffer.concat([root, rawPath]), { bigint: true })
      // everything that can be changed of an entry moves its ctime
      const columns = packedRecord?.columns
      if (columns?.ino[row] !== stat.ino || columns.ctime[row] !== stat.ctimeNs) return false
      if (!stat.isFile()) return true
      const hash = packedHashes.get(stat.ino)
      return hash?.size === Number(stat.size) && hash.mtime === stat.mtimeNs
    })
  }
}

/** Whether a layer was extracted just now, verified, and left as it is. */
function isUntouched({ extracted, placed, taints }: Layer): boolean {
  return extracted && placed?.verified === true && taints.length === 0
}

/** The layers are those of the chain, base first; so are their reports. */
function describeChain(
  store: Store,
  layers: readonly Layer[],
  extraction: Extraction,
  snapshot: string,
  reports: readonly LayerReport[],
): Chain {
  const { chainID, digest } = layers.at(-1) as Layer
  return {
    ...store.identify(snapshot),
    key: keyOf(chainID, extraction),
    diffIDs: layers.map(({ diffID }) => diffID),
    reports: [...reports],
    blob: digest,
    stored: new Date().toISOString(),
  }
}
