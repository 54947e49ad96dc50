// overlay(): every layer is a lower directory of a real mount at `<bundle>/rootfs`. Layers extract in parallel, a rootfs is
// there as soon as its layers are, and what changed is in the upper directory.
import type { Bundle } from '../../lib/bundle/bundle.ts'
import type { Context, LayerContext } from '../../lib/context.ts'
import type { Next } from '../../lib/compose.ts'
import type { Driver } from '../../lib/driver.ts'
import { createError } from '../../lib/errors.ts'
import { overlayObstacle } from '../../lib/fs/mount.ts'
import { readPrivileges } from '../../lib/fs/privileges.ts'
import { driverName, Home, layerKey } from './home.ts'
import { assertFree, findMount, mountRootfs, unmountRootfs } from './mounting.ts'
import { extractOnTop } from './on-top.ts'
import { refreshUpper } from './refresh.ts'
import { planStack } from './stack.ts'
import { listUpper } from './upper-changes.ts'

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
      assertCanMount(ctx)
      const { inUserNamespace } = readPrivileges()
      const dialect = inUserNamespace ? 'overlay-user' : 'overlay-trusted'
      ctx.extraction.choose(driverName, 'stacked', dialect)
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
      const { layer } = ctx
      if (layer.target === undefined) await extractHere(ctx, next, homeOf(ctx))
      else if (layer.needsBelow === undefined) await next()
      else await extractOnTop(ctx, next, homeOf(ctx), layer.target)
    },

    async mount(ctx, next) {
      if (!isOurs(ctx)) return next()
      mountRootfs(ctx, homeOf(ctx))
    },

    async unmount(ctx, next) {
      if (isOurs(ctx)) unmountRootfs(ctx)
      await next()
    },

    async delta(ctx, next) {
      if (!isOurs(ctx)) return next()
      const { layers, extraction, signal } = ctx
      const home = homeOf(ctx)
      findMount(ctx.rootfs, home)
      const stack = planStack(layers, extraction, home)
      const { dialect } = extraction
      ctx.changes = await listUpper({ upper: home.upper, stack, dialect, signal })
    },

    async pack(ctx, next) {
      // what is packed is read through the mount
      if (isOurs(ctx)) mountRootfs(ctx, homeOf(ctx))
      await next()
    },

    async repack(ctx, next) {
      if (!isOurs(ctx)) return next()
      const mount = findMount(ctx.rootfs, homeOf(ctx))
      // it would fail in the end
      if (mount && ctx.options.refresh) assertFree(mount, ctx.rootfs)
      try {
        await next()
      } finally {
        if (!mount && !ctx.options.refresh) unmountRootfs(ctx)
      }
    },

    async refresh(ctx, next) {
      await next()
      if (isOurs(ctx)) await refreshUpper(ctx, homeOf(ctx), durable)
    },
  }
}

function isOurs({ extraction }: Context): boolean {
  return extraction.chosenBy === driverName
}

/** Before anything is made. */
function assertCanMount({ bundle }: Context): void {
  const missing = overlayObstacle()
  if (missing === undefined) return
  throw createError('UNSUPPORTED_PLATFORM', {
    subject: bundle.path,
    reason: `overlay() needs ${missing} - run koci as root or by unshare -Urm, or leave overlay() out: layers are then merged into one directory`,
  })
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
    if (layer.needsBelow === undefined) await next()
    else await extractOnTop(ctx, next, home, target)
    if (layer.placed?.dir === target && layer.placed.report)
      home.keepLayer(key, layer.placed.report)
  })()
  home.extractions.set(key, extraction)
  await extraction
}
