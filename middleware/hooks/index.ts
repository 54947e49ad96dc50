// hooks(): the executables of a hooks.toml, run where the proposal wants them. A thin adapter: each hook is a step of the
// contract that every driver has, so that what a script can do and what a program can do are the same.
import { lstat, mkdir } from 'node:fs/promises'
import { assertMounted } from '../../lib/bundle/mounted.ts'
import type { Context, LayerContext, RefreshContext } from '../../lib/context.ts'
import type { Driver } from '../../lib/driver.ts'
import { createError } from '../../lib/errors.ts'
import { isMountPoint } from '../../lib/fs/mount-table.ts'
import type { Layer } from '../../lib/layer/layer.ts'
import { assertList, encodeChange, toChanges } from './delta-list.ts'
import type { HookName } from './hook-names.ts'
import { findHooksFile } from './find-hooks-file.ts'
import { readHooksFile, type HookCommand, type HooksFile } from './hooks-file.ts'
import { assertEmpty, maxReplyBytes, readReply, refused, type Reply } from './reply.ts'
import { argumentsOf, describeLayer, documentOf, stateName } from './request.ts'
import { runHook, type HookCall } from './run-hook.ts'
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
/** Of layers that are looked up at the same time. */
const maxParallel = 4

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

/** Asks the commands in order who has the layer; all layers at once, if the file says so. */
async function lookUp(
  ctx: LayerContext,
  commands: readonly HookCommand[],
): Promise<Found | undefined> {
  const { layer, layers, state } = ctx
  if (!commands.some(({ parallel }) => parallel) || layer.needsBelow !== undefined)
    return firstAnswer(ctx, layer, commands)
  let running = lookUps.get(state)
  if (running?.layers !== layers) {
    running = { layers, answers: startAll(ctx, commands) }
    lookUps.set(state, running)
    const { answers } = running
    ctx.defer(() => Promise.allSettled(answers.values()))
  }
  return running.answers.get(layer)
}

interface Found {
  readonly command: HookCommand
  readonly reply: Reply
}

const lookUps = new WeakMap<
  Context['state'],
  {
    readonly layers: readonly Layer[]
    readonly answers: Map<Layer, Promise<Found | undefined>>
  }
>()

/** For each layer its answer, a few at a time. */
function startAll(
  ctx: LayerContext,
  commands: readonly HookCommand[],
): Map<Layer, Promise<Found | undefined>> {
  const lanes: Promise<unknown>[] = Array.from({ length: maxParallel }, () => Promise.resolve())
  return new Map(
    ctx.layers.map((layer, at) => {
      const answer = lanes[at % maxParallel]?.then(() => firstAnswer(ctx, layer, commands))
      lanes[at % maxParallel] = Promise.resolve(answer).catch(() => {})
      return [layer, Promise.resolve(answer)]
    }),
  )
}

async function firstAnswer(
  ctx: Context,
  layer: Layer,
  commands: readonly HookCommand[],
): Promise<Found | undefined> {
  for (const command of commands) {
    const reply = await ask(command, ctx, layer)
    if (reply) return { command, reply }
  }
  return undefined
}

function placeFound(
  { layer, extraction }: LayerContext,
  command: HookCommand,
  reply: Reply,
): void {
  const { dir, rootfs, verified = false, report } = reply
  if ((dir === undefined) === (rootfs === undefined))
    throw refused(command, 'it has to say either dir or rootfs')
  if (rootfs && extraction.layering === 'stacked')
    throw refused(command, 'layers are stacked: each has to be in a dir')
  layer.place({ by: name, verified, report, ...(dir !== undefined && { dir }) })
}

function move(command: HookCommand, layer: Layer, { dir }: Reply = {}): void {
  if (dir === undefined) return
  if (layer.placed?.dir === undefined)
    throw refused(command, 'the layer is in the rootfs, and not in a dir that could have moved')
  layer.move(dir, name)
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

/** Runs what takes something down: also when the run was aborted. */
async function runAll(commands: readonly HookCommand[], ctx: Context): Promise<void> {
  const { signal } = new AbortController()
  for (const command of commands) await ask(command, ctx.with({ signal }))
}

/** Runs a command that answers by a reply; undefined if it declined. */
async function ask(
  command: HookCommand,
  ctx: Context,
  layer?: Layer,
  own: Readonly<Record<string, unknown>> = {},
): Promise<Reply | undefined> {
  const chunks: Buffer[] = []
  const output = (chunk: Buffer): void => {
    chunks.push(chunk)
  }
  const call = callOf(command, ctx, layer, own)
  const answered = await runHook(command, { ...call, output, maxOutput: maxReplyBytes })
  await assertRootfs(ctx, command)
  return answered ? readReply(command, Buffer.concat(chunks)) : undefined
}

function callOf(
  { hook }: HookCommand,
  ctx: Context,
  layer?: Layer,
  own: Readonly<Record<string, unknown>> = {},
): Pick<HookCall, 'args' | 'input' | 'signal'> {
  const ofLayer = layer && { layer: describeLayer(layer) }
  return {
    args: argumentsOf(hook, ctx, layer),
    input: documentOf(hook, ctx, { ...ofLayer, ...own }),
    signal: ctx.signal,
  }
}

function describeRefresh(
  { committed, packed }: RefreshContext,
  list: string,
): Record<string, unknown> {
  return {
    committed: {
      refName: committed.refName,
      descriptor: committed.descriptor,
      layers: committed.layers.map(({ descriptor, diffID, chainID }, index) => {
        const { digest, size, mediaType } = descriptor
        return { index, digest, diffID, chainID, size, mediaType }
      }),
    },
    packed: { list, count: packed.length },
  }
}

/** A command may have put anything in the place of the rootfs; nobody is to follow a link from there. */
async function assertRootfs({ rootfs, bundle }: Context, command: HookCommand): Promise<void> {
  const found = await lstat(rootfs).catch(() => undefined)
  if (!found || found.isDirectory()) return
  const reason = `its rootfs is no directory any more after ${command.command[0]}`
  throw createError('INVALID_BUNDLE', { subject: bundle.path, reason })
}

function assertMount({ rootfs }: Context, wanted: boolean, reason: string): void {
  if (isMountPoint(rootfs) !== wanted)
    throw createError('MOUNT_FAILED', { subject: rootfs, reason })
}

async function isThere(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined
}
