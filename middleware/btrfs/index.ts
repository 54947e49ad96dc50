// btrfs(): the rootfs is a snapshot of the longest chain of layers that is there already, each chain that is extracted is
// kept as a snapshot, and the kernel tells what changed since.
import path from 'node:path'
import type { Context } from '../../lib/context.ts'
import type { Driver } from '../../lib/driver.ts'
import { createError } from '../../lib/errors.ts'
import { defaultStoreDirectory } from '../../lib/fs/store-directory.ts'
import { RepackRun, UnpackRun } from './run.ts'
import { driverName, recallState } from './state.ts'
import { Store } from './store.ts'

/** Options of `btrfs()`. */
export interface BtrfsOptions {
  /**
   * The store, which is made if it isn't there: on the btrfs on which the bundles are.
   * @default that of `cache()`: /var/lib/koci for root, otherwise $XDG_CACHE_HOME/koci or ~/.cache/koci
   */
  readonly dir?: string | undefined
}

/**
 * Keeps chains of layers as snapshots, and lists changes from the file system's own knowledge.
 *
 * **Guarantees** that a snapshot which is found was extracted by a koci of this user from layers with these DiffIDs, with the
 * same options, wholly. **Does not protect against** programs of the user, or root, that make a snapshot writable.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION at once
 * @example
 * app.use(btrfs({ dir: '/var/lib/koci-snapshots' }))
 */
export function btrfs(options: BtrfsOptions = {}): Driver {
  const dir = checkOptions(options)
  // by the one object that all contexts of a run share
  const unpacks = new WeakMap<object, UnpackRun>()
  const repacks = new WeakMap<object, RepackRun>()
  const open = async ({ signal, closing }: Context): Promise<Store> => {
    const store = await Store.open(dir, signal)
    closing(() => store.close())
    return store
  }
  const repackOf = async (ctx: Context): Promise<RepackRun | undefined> => {
    const known = repacks.get(ctx.state)
    const state = recallState(ctx.bundle)
    if (known || !state || ctx.extraction.chosenBy !== driverName) return known
    const store = await open(ctx)
    if (!store.useBase(state.base)) {
      const message = `the snapshot that the bundle is compared with isn't in ${store.path} any more, or was changed`
      ctx.warn({ code: 'SNAPSHOTS_NOT_COMPARED', message })
      return undefined
    }
    const run = new RepackRun(store, state)
    repacks.set(ctx.state, run)
    return run
  }
  return {
    name: driverName,
    recipe: { options: { dir } },
    options: {
      dir: { type: 'string', description: 'where the store is, on the btrfs of the bundles' },
    },
    explain: () =>
      `starts from the longest chain of layers in ${dir}, keeps the others there, and lists changes from snapshots`,

    async unpack(ctx, next) {
      ctx.extraction.choose(driverName, 'merged', 'plain')
      const run = new UnpackRun(await open(ctx))
      unpacks.set(ctx.state, run)
      await run.begin(ctx)
      await next()
      await run.finish(ctx)
    },

    async locate(ctx, next) {
      if (!(await unpacks.get(ctx.state)?.take(ctx))) await next()
    },

    async layer(ctx, next) {
      const run = unpacks.get(ctx.state) ?? repacks.get(ctx.state)
      await (run ? run.extract(ctx, next) : next())
    },

    async mount(ctx, next) {
      unpacks.get(ctx.state)?.assertPrefix(ctx.layers)
      await next()
    },

    async repack(ctx, next) {
      const run = await repackOf(ctx)
      if (run && (run.state.reports || ctx.options.refresh)) ctx.keepLayer = true
      await next()
    },

    async delta(ctx, next) {
      const run = await repackOf(ctx)
      if (!(await run?.list(ctx))) await next()
    },

    async refresh(ctx, next) {
      await next()
      await repacks.get(ctx.state)?.refresh(ctx)
    },
  }
}

function checkOptions({ dir, ...unknown }: BtrfsOptions): string {
  for (const name of Object.keys(unknown)) throw invalid(name, 'there is dir')
  if (dir !== undefined && (typeof dir !== 'string' || dir === '' || dir.includes('\0')))
    throw invalid('dir', `${JSON.stringify(dir)} is not a path`)
  return path.resolve(dir ?? defaultStoreDirectory('btrfs option dir'))
}

function invalid(name: string, reason: string): Error {
  return createError('INVALID_OPTION', { subject: `btrfs option ${name}`, reason })
}
