// hooks(): the executables of a hooks.toml, run where the proposal wants them. A thin adapter: each hook is a step of the
// contract that every driver has, so that what a script can do and what a program can do are the same.
import { lstat, mkdir } from 'node:fs/promises'
import { assertMounted } from '../../lib/bundle/mounted.ts'
import type { Context } from '../../lib/context.ts'
import type { Driver } from '../../lib/driver.ts'
import { createError } from '../../lib/errors.ts'
import { isMountPoint } from '../../lib/fs/mount-table.ts'
import type { Layer } from '../../lib/layer/layer.ts'
import { ask, assertRootfs, callOf, runAll } from './ask.ts'
import { assertList, encodeChange, toChanges } from './delta-list.ts'
import type { HookName } from './hook-names.ts'
import { findHooksFile } from './find-hooks-file.ts'
import { readHooksFile, type HookCommand, type HooksFile } from './hooks-file.ts'
import { lookUp } from './look-up.ts'
import { move, placeFound } from './placement.ts'
import { assertEmpty, refused } from './reply.ts'
import { describeRefresh, stateName } from './request.ts'
import { runHook } from './run-hook.ts'
import { NamedList, Spool } from './spool.ts'

export { findHooksFile } from './find-hooks-file.ts'

/** Which file. */
export interface HooksOptions {
  /** @default the user's or the system's: see `findHooksFile()` */
  readonly file?: string
}

const name = 'hooks'
/** A list of that many bytes names some hundred million files. */
const maxListBytes = 8 * 2 ** 30

/** The layer that was extracted last in a run, by what the run's contexts share. */
const newest = new WeakMap<Context['state'], Layer>()

/**
 * Runs the commands of a hooks file.
 * @throws {UsageError} ERR_KOCI_UNTRUSTED, {FormatError} ERR_KOCI_INVALID_HOOKS, {SystemError} ERR_KOCI_IO at once for a file
 * that is named, otherwise when it is run
 */
export function hooks(options: HooksOptions = {}): Driver {
  return {
    name,
    options: { file: { type: 'string', description: 'the hooks.toml to be used' } },
    recipe: false,
    ...(options.file === undefined ? withDefault() : withFile(readHooksFile(options.file))),
  }
}

/** Whoever only asks for the options must not be told what is wrong with a file: that comes when it is to be used. */
function withDefault(): Partial<Driver> {
  try {
    const file = findHooksFile()
    if (file !== undefined) return withFile(readHooksFile(file))
    const reason = 'there is none in ~/.config/koci or /etc/koci - name one'
    throw createError('INVALID_OPTION', { subject: 'hooks.toml', reason })
  } catch (error) {
    const fail = (): never => {
      throw error
    }
    return {
      explain: () => `can't run: ${(error as Error).message}`,
      unpack: fail,
      repack: fail,
    }
  }
}

function withFile({ path, chosen, commands }: HooksFile): Partial<Driver> {
  const of = (hook: HookName): readonly HookCommand[] => commands[hook] ?? []
  const skip = of('unpack.ociv1.layer.try-skip')
  const before = of('unpack.ociv1.layer.pre-extract')
  const after = of('unpack.ociv1.layer.post-extract')
  const mount = of('unpack.ociv1.rootfs.mount')
  const unmount = of('unpack.ociv1.rootfs.unmount')
  const config = of('unpack.ociv1.runtime-config')
  const list = of('repack.ociv1.layer.delta-list')
  const refresh = of('repack.ociv1.layer.refresh-bundle')
  const stacks = chosen?.layering === 'stacked'

  return {
    explain: () => `runs the commands of ${path}: ${Object.keys(commands).join(', ')}`,

    async unpack(ctx, next) {
      if (chosen) ctx.extraction.choose(name, chosen.layering, chosen.dialect)
      await mkdir(await ctx.bundle.claim(stateName), { mode: 0o700 })
      await next()
    },

    ...(skip.length > 0 && {
      async locate(ctx, next) {
        const found = await lookUp(ctx, skip)
        if (!found) return next()
        placeFound(ctx, found.command, found.reply)
      },
    }),

    ...((before.length > 0 || after.length > 0) && {
      async layer(ctx, next) {
        const { layer } = ctx
        if (layer.needsBelow !== undefined) ctx.defer(() => runAll(unmount, ctx))
        for (const command of before) {
          const { target, dialect } = (await ask(command, ctx, layer)) ?? {}
          // on top of the layers below, these are to be seen in it
          if (target !== undefined && layer.needsBelow === undefined)
            await assertEmpty(command, target)
          if (target !== undefined) layer.target = target
          if (dialect !== undefined) layer.dialect = dialect
        }
        await next()
        if (stacks) assertComplete(layer)
        for (const command of after) move(command, layer, await ask(command, ctx, layer))
        newest.set(ctx.state, layer)
      },
    }),

    ...(mount.length > 0 && {
      async mount(ctx, next) {
        if (!stacks) await next()
        else if (isMountPoint(ctx.rootfs)) return
        for (const command of mount) await ask(command, ctx)
        if (stacks) assertMount(ctx, true, 'nothing is mounted there after its hooks')
      },
    }),

    ...(unmount.length > 0 && {
      async unmount(ctx, next) {
        if (!stacks || ((await isThere(ctx.rootfs)) && isMountPoint(ctx.rootfs))) {
          await runAll(unmount, ctx)
          if (stacks) assertMount(ctx, false, 'it is still mounted after its hooks')
        }
        await next()
      },
    }),

    ...(config.length > 0 && {
      async config(ctx, next) {
        await next()
        for (const command of config) {
          const { runtimeConfig } = ctx
          const reply = await ask(command, ctx, undefined, { runtimeConfig })
          ctx.runtimeConfig = reply?.runtimeConfig ?? runtimeConfig
        }
      },
    }),

    ...(stacks && {
      async repack(ctx, next) {
        // a store of layers wants the new one, too
        ctx.keepLayer ||= skip.length > 0 && before.length > 0
        await next()
      },
    }),

    ...(list.length > 0 && {
      async delta(ctx, next) {
        assertMounted(ctx)
        for (const command of list) {
          const spool = await Spool.create()
          try {
            const call = callOf(command, ctx)
            const output = (chunk: Buffer): Promise<void> => spool.write(chunk)
            if (await runHook(command, { ...call, output, maxOutput: maxListBytes })) {
              await assertRootfs(ctx, command)
              await assertList(command, ctx, spool)
              ctx.quality = 'superset'
              ctx.changes = toChanges(command, ctx, spool)
              return
            }
          } catch (error) {
            await spool.close()
            if (!command.fallback || ctx.signal.aborted) throw error
            const message = `the next lister is asked: ${(error as Error).message}`
            ctx.warn({ code: 'HOOK_FALLBACK', message })
            continue
          }
          await spool.close()
        }
        await next()
      },
    }),

    ...(refresh.length > 0 && {
      async refresh(ctx, next) {
        await next()
        await using packed = await NamedList.create(ctx.packed, encodeChange)
        for (const command of refresh) {
          const { committed } = ctx
          const layer = newest.get(ctx.state)
          const isNewest = layer?.digest === committed.layers.at(-1)?.descriptor.digest
          const reply = await ask(command, ctx, undefined, describeRefresh(ctx, packed.path))
          if (layer && isNewest) move(command, layer, reply)
          else if (reply?.dir !== undefined)
            throw refused(command, 'there is no new layer that its dir could be for')
        }
      },
    }),
  }
}

/**
 * Scripts mount the layers' directories as they are. What wouldn't show the same as layers that were applied in order is
 * extracted on top of those below it instead.
 * @throws {UsageError} ERR_KOCI_NEEDS_BELOW, which the runner catches
 */
function assertComplete({ index, digest, needsBelow, placed }: Layer): void {
  const { missing = [], hollow = [], opaque = false } = placed?.report?.stacking ?? {}
  if (index === 0 || needsBelow !== undefined) return
  const [first] = [...missing, ...hollow]
  if (first === undefined && !opaque) return
  const path = Buffer.from(first ?? '', 'latin1')
  const reason = opaque
    ? 'its root hides everything below it'
    : `it has no entry for the directory ${path.toString()}, which shows what is below it`
  throw createError('NEEDS_BELOW', { subject: digest, reason })
}

function assertMount({ rootfs }: Context, wanted: boolean, reason: string): void {
  if (isMountPoint(rootfs) !== wanted)
    throw createError('MOUNT_FAILED', { subject: rootfs, reason })
}

async function isThere(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined
}
