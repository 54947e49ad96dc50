// What one run has of the store. An unpack begins with the longest chain of the image's layers that is there, and keeps each
// chain that it extracts on top; a repack has the new layer extracted on top of the bundle's base.
import { lstatSync } from 'node:fs'
import { resetTreeRoot } from '../../lib/bundle/rootfs.ts'
import type { Bundle } from '../../lib/bundle/bundle.ts'
import type { Change } from '../../lib/change.ts'
import type { Context, DeltaContext, LayerContext, RefreshContext } from '../../lib/context.ts'
import { createError, wrapError } from '../../lib/errors.ts'
import {
  createSnapshot,
  createSubvolume,
  destroySubvolume,
  fileSystemID,
  hasNested,
  makeReadOnly,
} from '../../lib/fs/btrfs.ts'
import type { Layer, LayerReport } from '../../lib/layer/layer.ts'
import { keyOf } from './key.ts'
import { listSnapshotChanges } from './list-changes.ts'
import type { Chain, Store } from './store.ts'

/** The name under which the driver places layers, and bundles remember their bases. */
export const driverName = 'btrfs'

/** What a bundle remembers; JSON. */
export interface State {
  /** The snapshot with which the rootfs is compared. */
  readonly base: string
  /** Reports of the image's layers, if the base is just what they make; null if it isn't. */
  readonly reports: readonly LayerReport[] | null
}

/** What the driver keeps with a bundle; undefined if that isn't sound. */
export function recallState(bundle: Bundle): State | undefined {
  const state = bundle.recall(driverName) as State | undefined
  const isSound =
    typeof state?.base === 'string' &&
    /^[0-9a-f]{32}$/.test(state.base) &&
    (state.reports === null || Array.isArray(state.reports))
  return isSound ? state : undefined
}

/** An unpack. */
export class UnpackRun {
  readonly #store: Store
  /** How many layers the rootfs began with. */
  #found = 0
  /** Reports of the layers that are in the rootfs, as long as there is nothing else in it. */
  #reports: LayerReport[] | undefined = []
  readonly #chains: Chain[] = []

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
  take({ layer, layers, extraction, rootfs }: LayerContext): boolean {
    if (layer.index === 0) {
      const found = layers
        .map(({ chainID }) => this.#store.look(keyOf(chainID, extraction)))
        .findLast(each => each !== undefined)
      if (!found) return false
      destroySubvolume(rootfs)
      createSnapshot(this.#store.snapshot(found.snapshot), rootfs, { readOnly: false })
      this.#found = found.reports.length
      this.#reports = [...found.reports]
    }
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

  /** Runs what extracts a layer into the rootfs, and keeps what is there then. */
  async extract(ctx: LayerContext, next: () => Promise<void>): Promise<void> {
    const { layer, extraction, rootfs } = ctx
    this.assertPrefix(ctx.layers)
    const isOurs = layer.target === undefined && layer.placed === undefined
    await next()
    const { placed } = layer
    const isWhole = isOurs && isUntouched(layer) && placed?.dir === undefined
    if (!isWhole || placed?.report?.entries === undefined) this.#reports = undefined
    if (!this.#reports || !placed?.report) return
    this.#reports.push(placed.report)
    const snapshot = this.#store.nameSnapshot()
    createSnapshot(rootfs, this.#store.snapshot(snapshot), { readOnly: true })
    const key = keyOf(layer.chainID, extraction)
    this.#chains.push({ key, snapshot, reports: [...this.#reports] })
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
  async finish({ bundle, extraction, defer, rootfs, layers }: Context): Promise<void> {
    const base = this.#store.nameSnapshot()
    createSnapshot(rootfs, this.#store.snapshot(base), { readOnly: true })
    defer(() => this.#store.removeBase(base))
    await this.#store.publish(this.#chains, { snapshot: base, bundle: bundle.path })
    const isWhole = this.#reports?.length === layers.length && extraction.variants.length === 0
    const state: State = { base, reports: (isWhole && this.#reports) || null }
    bundle.keep(driverName, state)
  }
}

/** A repack, or the listing of changes. */
export class RepackRun {
  readonly #store: Store
  readonly state: State
  /** The rootfs as it was when changes were listed, and the list. */
  #listed: { readonly snapshot: string; readonly changes: readonly Change[] } | undefined
  /** The old base with the new layer on top. */
  #produced: string | undefined
  #reports: readonly LayerReport[] | null = null

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
    const snapshot = this.#store.nameSnapshot()
    const target = this.#store.snapshot(snapshot)
    createSnapshot(this.#store.snapshot(this.state.base), target, { readOnly: false })
    layer.target = target
    layer.dialect = 'plain'
    await next()
    const { placed } = layer
    if (!isUntouched(layer) || placed?.dir !== target || !placed.report) return
    makeReadOnly(target)
    this.#produced = snapshot
    if (!this.state.reports || extraction.variants.length > 0) return
    this.#reports = [...this.state.reports, placed.report]
    const key = keyOf(layer.chainID, extraction)
    await this.#store.publish([{ key, snapshot, reports: this.#reports }])
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
    await this.#store.publish([], { snapshot: base, bundle: bundle.path })
    const state: State = { base, reports: this.#reports }
    bundle.keep(driverName, state)
    bundle.discard(() => this.#store.removeBase(this.state.base))
  }

  /** Whether each change that was listed was packed as it was then, and none was left out by masks or filters. */
  #isAllPacked({ packed, packedHashes }: RefreshContext): boolean {
    const { changes = [], snapshot = '' } = this.#listed ?? {}
    if (changes.length !== packed.length) return false
    const listed = new Map(changes.map(each => [each.rawPath.toString('latin1'), each.kind]))
    const root = Buffer.from(`${this.#store.snapshot(snapshot)}/`)
    return packed.every(({ kind, rawPath }) => {
      if (listed.get(rawPath.toString('latin1')) !== kind) return false
      if (kind === 'D') return true
      // a path in a snapshot that nobody else can change, nor reach
      const stat = lstatSync(Buffer.concat([root, rawPath]), { bigint: true })
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
