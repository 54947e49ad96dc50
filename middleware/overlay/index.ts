// overlay(): every layer is a lower directory of a real mount at `<bundle>/rootfs`. Layers extract in parallel, a rootfs is
// there as soon as its layers are, and what changed is in the upper directory.
import type { Bundle } from '../../lib/bundle/bundle.ts'
import type { Context, LayerContext } from '../../lib/context.ts'
import type { Next } from '../../lib/compose.ts'
import type { Driver } from '../../lib/driver.ts'
import { createError } from '../../lib/errors.ts'
import { overlayObstacle } from '../../lib/fs/mount.ts'
import { readPrivileges } from '../../lib/fs/privileges.ts'
import { assertNothingBeneath } from './beneath.ts'
import { driverName, Home, layerKey } from './home.ts'
import {
  assertFree,
  assertUpperFree,
  findMount,
  mountRootfs,
  unmountRootfs,
} from './mounting.ts'
import { layersGone, unlessShown } from './shown.ts'
import { planStack } from './stack.ts'

/** How bundles are kept. */
export interface OverlayOptions {
  /** A refresh waits until what is left in the upper directory is on disk. @default true */
  readonly durable?: boolean | undefined
}

/**
 * Stacks layers instead of merging them, and mounts them by overlayfs. Needs the privilege to mount: root's, or that of a
 * user namespace (`unshare -Urm`).
 * @example
 * const app = new Koci().use(overlay())
 * await app.unpack({ image: 'images:alpine', bundle: 'bundle' })
 */
export function overlay(options: OverlayOptions = {}): Driver {
  const { durable = true } = options
  const homes = new WeakMap<Bundle, Home>()
  const homeOf = ({ bundle }: Context): Home => {
    let home = homes.get(bundle)
    if (!home) homes.set(bundle, (home = new Home(bundle)))
    return home
  }
  return {
    name: driverName,
    recipe: { options: { ...options } },
    options: {
      durable: { type: 'boolean', description: 'a refresh syncs what stays; default true' },
    },
    explain: () => {
      const missing = overlayObstacle()
      const reason = missing === undefined ? '' : `, but can't here: it needs ${missing}`
      return `mounts layers at rootfs, and reads changes off the upper directory${reason}`
    },

    async unpack(ctx, next) {
      const { inUserNamespace } = readPrivileges()
      const dialect = inUserNamespace ? 'overlay-user' : 'overlay-trusted'
      ctx.extraction.choose(driverName, 'stacked', dialect)
      assertCanMount(', or leave overlay() out: layers are then merged into one directory')
      await ctx.bundle.claim(driverName)
      homeOf(ctx).make()
      await next()
    },

    async locate(ctx, next) {
      if (!isOurs(ctx)) return next()
      const { layer } = ctx
      const home = homeOf(ctx)
      const key = layerKey(layer)
      const report = home.layerReport(key)
      if (!report) return next()
      const dir = home.layerDirectory(key)
      layer.place({ dir, by: driverName, verified: true, report })
    },

    async layer(ctx, next) {
      if (!isOurs(ctx)) return next()
      const { target } = ctx.layer
      if (target === undefined) await extractHere(ctx, next, homeOf(ctx))
      else await extractInto(ctx, next, homeOf(ctx), target)
    },

    async mount(ctx, next) {
      if (!isOurs(ctx)) return next()
      assertLegible(ctx)
      mountAgain(ctx, homeOf(ctx))
    },

    async unmount(ctx, next) {
      if (isOurs(ctx)) unmountRootfs(ctx, homeOf(ctx))
      await next()
    },

    async delta(ctx, next) {
      if (!isOurs(ctx)) return next()
      assertLegible(ctx)
      const { listUpper } = await import('./upper-changes.ts')
      const { layers, extraction, signal } = ctx
      const home = homeOf(ctx)
      const mount = findMount(ctx.rootfs, home)
      if (!mount) assertNothingBeneath(ctx.rootfs)
      const stack = planStack(layers, extraction, home)
      const { dialect } = extraction
      try {
        ctx.changes = await listUpper({ upper: home.upper, stack, dialect, signal })
      } catch (error) {
        if (!mount) throw error
        if (!home.hasLowers(layers)) throw layersGone(ctx.rootfs, error)
        throw unlessShown(error, mount)
      }
    },

    async pack(ctx, next) {
      // what is packed is read through the mount; all of it is in the upper directory, so that any mount of it will do
      if (isOurs(ctx) && !findMount(ctx.rootfs, homeOf(ctx))) mountAgain(ctx, homeOf(ctx))
      await next()
      if (!isOurs(ctx) || ctx.extraction.dialect !== 'overlay-user' || !ctx.entries) return
      const { linkNames } = await import('./link-names.ts')
      ctx.entries = linkNames(ctx.entries, homeOf(ctx).upper)
    },

    async repack(ctx, next) {
      if (!isOurs(ctx)) return next()
      const mount = findMount(ctx.rootfs, homeOf(ctx))
      // it would fail in the end
      if (mount && ctx.options.refresh) assertFree(mount, ctx.rootfs)
      else if (!mount) assertUpperFree(homeOf(ctx), ctx.rootfs)
      try {
        await next()
      } finally {
        if (!mount && !ctx.options.refresh) unmountRootfs(ctx, homeOf(ctx))
      }
    },

    async refresh(ctx, next) {
      await next()
      if (!isOurs(ctx)) return
      const { refreshUpper } = await import('./refresh.ts')
      // found out now, it is taken back: the mount comes last
      assertNothingBeneath(ctx.rootfs)
      assertUpperFree(homeOf(ctx), ctx.rootfs)
      await refreshUpper(ctx, homeOf(ctx), durable)
    },
  }
}

function isOurs({ extraction }: Context): boolean {
  return extraction.chosenBy === driverName
}

/** Marks that this process can't see would be taken for none. */
function assertLegible({ extraction, bundle }: Context): void {
  if (extraction.dialect !== 'overlay-trusted' || readPrivileges().storesTrusted) return
  throw createError('UNSUPPORTED_PLATFORM', {
    subject: bundle.path,
    reason:
      'it was made by root, with attributes that only root sees, outside of user namespaces - run koci so',
  })
}

/** Before anything is made. */
function assertCanMount(otherwise = ''): void {
  const missing = overlayObstacle()
  if (missing === undefined) return
  const reason = `it needs ${missing} - run koci as root or by unshare -Urm${otherwise}`
  throw createError('UNSUPPORTED_PLATFORM', { subject: 'overlay()', reason })
}

/** Mounts a bundle that is there, unless it is mounted. */
function mountAgain(ctx: Context, home: Home): void {
  if (!findMount(ctx.rootfs, home)) assertCanMount()
  mountRootfs(ctx, home)
}

async function extractInto(
  ctx: LayerContext,
  next: Next,
  home: Home,
  target: string,
): Promise<void> {
  if (ctx.layer.needsBelow === undefined) return next()
  const { extractOnTop } = await import('./on-top.ts')
  await extractOnTop(ctx, next, home, target)
}

/** Extracts a layer into the bundle, since no store wants it. */
async function extractHere(ctx: LayerContext, next: Next, home: Home): Promise<void> {
  const { layer } = ctx
  const key = layerKey(layer)
  const before = home.extractions.get(key)
  if (before) {
    // the same layer is in the image twice
    await before
    const report = home.layerReport(key)
    if (report)
      layer.place({ dir: home.layerDirectory(key), by: driverName, verified: true, report })
    return
  }
  const extraction = (async () => {
    const target = home.makeLayer(key)
    layer.target = target
    await extractInto(ctx, next, home, target)
    if (layer.placed?.dir === target && layer.placed.report)
      home.keepLayer(key, layer.placed.report)
  })()
  home.extractions.set(key, extraction)
  await extraction
}
