// try-skip: who has a layer. Layers are asked for one after the other unless the file says that they may be asked for at
// the same time; then all of them are, at the first question, a few at a time, and later questions wait for their answer.
import type { Context, LayerContext } from '../../lib/context.ts'
import type { Layer } from '../../lib/layer/layer.ts'
import { ask } from './ask.ts'
import type { HookCommand } from './hooks-file.ts'
import type { Reply } from './reply.ts'

/** Of layers that are looked up at the same time. */
const maxParallel = 4

/** Asks the commands in order who has the layer; all layers at once, if the file says so. */
export async function lookUp(
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

/** Who has the layer, and what it said. */
export interface Found {
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
