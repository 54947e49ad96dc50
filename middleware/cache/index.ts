// cache(): a store of extracted layers, shared by any number of processes and bundles. It finds what is there before any
// blob is opened, has the rest extracted into a private directory of the store, and publishes it once it is verified and
// on disk.
import type { Context } from '../../lib/context.ts'
import type { Driver } from '../../lib/driver.ts'
import { findStore } from './directory.ts'
import { keyToKeep, nameOfKey } from './key.ts'
import { checkOptions, type CacheOptions } from './options.ts'
import { driverName, StoreRun } from './run.ts'
import { Store } from './store.ts'

export type { CacheOptions } from './options.ts'

/**
 * Keeps extracted layers, and finds them again.
 *
 * **Guarantees** that a layer which is found was extracted by a koci of this user from bytes with this DiffID, with the same
 * options, wholly, and that nothing is removed while a run or a bundle's lease needs it. **Does not protect against** programs
 * of the user, or root, that change what is stored: `koci cache verify` finds that.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION at once
 * @example
 * app.use(cache({ dir: '/var/cache/koci' })).use(overlay())
 */
export function cache(options: CacheOptions = {}): Driver {
  const { dir, durable } = checkOptions(options)
  /** By the one object that all contexts of a run share. */
  const runs = new WeakMap<object, StoreRun>()
  const runOf = (ctx: Context): StoreRun => {
    const run = runs.get(ctx.state) ?? new StoreRun(ctx, Store.make(dir), durable)
    runs.set(ctx.state, run)
    return run
  }
  return {
    name: driverName,
    recipe: { options: { ...options, ...(options.dir === undefined ? {} : { dir }) } },
    options: {
      dir: { type: 'string', description: 'where the store is' },
      durable: {
        type: 'boolean',
        description:
          'false: layers count only until the next boot, and nobody waits for the disk',
      },
    },
    explain: () => `keeps extracted layers in ${dir}, and finds them there`,

    async locate(ctx, next) {
      // looking for layers makes no store
      const isThere = runs.has(ctx.state) || findStore(dir) !== undefined
      // somebody who is going to change it needs one that is nobody else's
      const found = isThere && ctx.layer.taints.length === 0 && runOf(ctx).take(ctx)
      if (found) return
      ctx.layer.key = nameOfKey(keyToKeep(ctx.layer, ctx.extraction))
      await next()
    },

    async layer(ctx, next) {
      const { layer } = ctx
      const run = runOf(ctx)
      // a tree that is the layer on top of others is right for stacks only
      const isApplied = layer.needsBelow !== undefined && !isStacked(ctx)
      const isKept =
        !layer.placed && layer.taints.length === 0 && run.store.writable && !isApplied
      await (isKept ? run.extract(ctx, next) : next())
    },

    async mount(ctx, next) {
      if (isStacked(ctx)) await runOf(ctx).lease(ctx)
      await next()
    },

    // a driver that mounts ends the step: where it is the outer one, nobody would ask us
    async unpack(ctx, next) {
      await next()
      if (isStacked(ctx)) await runOf(ctx).lease(ctx)
    },

    async refresh(ctx, next) {
      await next()
      // both, since a kill may leave the bundle on either
      if (isStacked(ctx)) await runOf(ctx).lease(ctx, [...ctx.layers, ...ctx.newLayers])
    },

    async repack(ctx, next) {
      // otherwise nobody would name a target, and it would be extracted into the rootfs
      if (runOf(ctx).store.writable && !ctx.extraction.recalled) ctx.keepLayer = true
      await next()
    },
  }
}

function isStacked({ extraction }: Context): boolean {
  return extraction.layering === 'stacked'
}
