// One call of one command: what it is told, and what it answered. A command may do to the bundle what it likes, so
// after each call it is seen to that the rootfs is still a directory.
import { lstat } from 'node:fs/promises'
import type { Context } from '../../lib/context.ts'
import { createError } from '../../lib/errors.ts'
import type { Layer } from '../../lib/layer/layer.ts'
import type { HookCommand } from './hooks-file.ts'
import { maxReplyBytes, readReply, type Reply } from './reply.ts'
import { argumentsOf, describeLayer, documentOf } from './request.ts'
import { runHook, type HookCall } from './run-hook.ts'

/** Runs a command that answers by a reply; undefined if it declined. */
export async function ask(
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

/** What a command is told, in its arguments and on its standard input. */
export function callOf(
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

/** Runs what takes something down: also when the run was aborted. */
export async function runAll(commands: readonly HookCommand[], ctx: Context): Promise<void> {
  const { signal } = new AbortController()
  for (const command of commands) await ask(command, ctx.with({ signal }))
}

/** A command may have put anything in the place of the rootfs; nobody is to follow a link from there. */
export async function assertRootfs(
  { rootfs, bundle }: Context,
  command: HookCommand,
): Promise<void> {
  const found = await lstat(rootfs).catch(() => undefined)
  if (!found || found.isDirectory()) return
  const reason = `its rootfs is no directory any more after ${command.command[0]}`
  throw createError('INVALID_BUNDLE', { subject: bundle.path, reason })
}
