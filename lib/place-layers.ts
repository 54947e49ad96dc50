// The part of an unpack that is about layers: all are looked up first; what wasn't found is extracted, merged layers in
// order, stacked ones at the same time. A stacked layer may turn out to depend on those below it: it then follows in order.
import type { Context } from './context.ts'
import { createError, isError } from './errors.ts'
import type { Layer } from './layer/layer.ts'
import { OpenedLayers } from './layer/lower-stack.ts'
import { reasonItFailedAlone, reasonToNeedBelow } from './layer/needs-below.ts'
import type { ReadAhead } from './layer/read-ahead.ts'
import type { Run } from './run.ts'

/**
 * Runs `locate` for every layer, and `layer` for those that nobody placed.
 * @throws {UsageError} ERR_KOCI_LAYER_NOT_PLACED; ERR_KOCI_CHAIN_MISMATCH where a layer has to be made that a driver changed
 * which isn't in the chain; {LimitError} ERR_KOCI_LIMIT_EXCEEDED for a layer that was found and is beyond the limits by its report
 */
export async function placeLayers(run: Run, context: Context): Promise<void> {
  recallDependent(context)
  for (const layer of context.layers) await locateLayer(run, context, layer)
  run.signal.throwIfAborted()
  if (context.extraction.layering === 'stacked') await placeStacked(run, context)
  else await placeMerged(run, context)
}

/** Has a layer found or extracted into a directory of its own, whatever the layering; the driver that wants it names the target. */
export async function placeAlone(run: Run, context: Context, layer: Layer): Promise<void> {
  await locateLayer(run, context, layer)
  if (!layer.placed) await extract(run, context, layer)
}

async function locateLayer(run: Run, context: Context, layer: Layer): Promise<void> {
  run.signal.throwIfAborted()
  await run.app.step('locate', run, context.with({ layer }))
  if (!layer.placed) return
  assertWithinLimits(context, layer)
  run.app.tell('layer:found', { run: run.id, layer })
}

async function placeStacked(run: Run, context: Context): Promise<void> {
  const { layers, bundle, extraction } = context
  await run.all(layers, async layer => {
    if (layer.placed || layer.needsBelow !== undefined) return
    try {
      await extract(run, context, layer)
    } catch (error) {
      // it has to wait for those below it; the lowest one has none, but only then says what it is that it doesn't have
      const reason = reasonItFailedAlone(error)
      const isFinal = layer.index === 0 && !isError(error, 'NEEDS_BELOW')
      if (reason === undefined || isFinal) throw error
      layer.reopen(reason)
    }
  })
  const settled = layers.findIndex(({ chainID }) => chainID === bundle.stack?.top)
  using opened = new OpenedLayers()
  for (const layer of layers) {
    if (layer.placed && layer.index <= settled) continue
    const below = layers.slice(0, layer.index)
    const reason = layer.placed
      ? reasonToNeedBelow(layer, below, extraction, opened)
      : layer.needsBelow
    if (reason === undefined) continue
    layer.reopen(reason)
    await placeAlone(run, context, layer)
  }
  const dependent = layers.flatMap(({ chainID, needsBelow, placed }) => {
    const reason = needsBelow ?? placed?.report?.needsBelow
    return reason === undefined ? [] : [[chainID, reason]]
  })
  const top = layers.at(-1)?.chainID
  if (top !== undefined) bundle.keepStack({ top, dependent: Object.fromEntries(dependent) })
}

/** What is known to depend on the layers below isn't looked for as if it were extracted alone. */
function recallDependent({ layers, bundle }: Context): void {
  for (const layer of layers) {
    const reason = bundle.stack?.dependent[layer.chainID]
    if (reason !== undefined && !layer.placed) layer.reopen(reason)
  }
}

async function placeMerged(run: Run, context: Context): Promise<void> {
  const { layers, limits, extraction } = context
  const sumsFiles = extraction.hashes !== undefined
  const { ReadAhead } = await import('./layer/read-ahead.ts')
  const ahead = await ReadAhead.start(run.pool, layers, limits, {
    signal: run.signal,
    sumsFiles,
  })
  try {
    for (const layer of layers) {
      const reason = await mergeAlone(run, context, layer, ahead)
      if (reason !== undefined) {
        layer.reopen(reason)
        await extract(run, context, layer)
      }
      ahead?.drop(layer)
    }
  } finally {
    await ahead?.stop()
  }
}

/**
 * Has a layer found or extracted, and applied to the rootfs if that was elsewhere. Gives the reason if the layers below have
 * a say in what it is: it has to be extracted on top of them, then.
 */
async function mergeAlone(
  run: Run,
  context: Context,
  layer: Layer,
  ahead: ReadAhead | undefined,
): Promise<string | undefined> {
  try {
    if (!layer.placed) await extract(run, context, layer, ahead)
  } catch (error) {
    const reason = layer.target === undefined ? undefined : reasonItFailedAlone(error)
    if (reason === undefined) throw error
    return reason
  }
  if (layer.placed?.dir === undefined) return undefined
  const { mergeStored } = await import('./layer/merge-stored.ts')
  return mergeStored(run.pool, context, layer)
}

async function extract(
  run: Run,
  context: Context,
  layer: Layer,
  ahead?: ReadAhead,
): Promise<void> {
  const { app } = run
  assertVariants(run, context)
  app.tell('layer:start', { run: run.id, layer })
  const own = context.with({ layer })
  const { extractLayer } = await import('./layer/extract-layer.ts')
  await app.step('layer', run, own, () => extractLayer(run.pool, own, ahead))
  if (!layer.placed)
    throw createError('LAYER_NOT_PLACED', {
      subject: layer.digest,
      chain: app.describeChain(),
    })
  app.tell('layer:done', { run: run.id, layer })
  run.signal.throwIfAborted()
}

/**
 * A layer that middleware changed, as the bundle remembers, can't be made again without it.
 * @throws {UsageError} ERR_KOCI_CHAIN_MISMATCH
 */
export function assertVariants({ app }: Run, { extraction, bundle }: Context): void {
  const missing = extraction.recalled?.find(name => !app.chain.includes(name))
  if (missing === undefined) return
  const chain = app.describeChain()
  throw createError('CHAIN_MISMATCH', { subject: bundle.path, wanted: missing, chain })
}

/** What is extracted is held to the limits by the workers; what was found, by what is known of it. */
function assertWithinLimits({ limits }: Context, layer: Layer): void {
  const { entries = 0, bytes = 0 } = layer.placed?.report ?? {}
  const bounds = [
    ['number of entries', entries, limits.maxEntries],
    ['uncompressed size', bytes, limits.maxBytes],
  ] as const
  for (const [limit, value, maximum = Infinity] of bounds)
    if (value > maximum)
      throw createError('LIMIT_EXCEEDED', { subject: layer.digest, limit, value, maximum })
}
