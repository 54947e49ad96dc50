// The part of an unpack that is about layers: all are looked up first; what wasn't found is extracted, merged layers in
// order, stacked ones at the same time.
import type { Context } from './context.ts'
import { createError } from './errors.ts'
import { extractLayer } from './layer/extract-layer.ts'
import type { Layer } from './layer/layer.ts'
import { ReadAhead } from './layer/read-ahead.ts'
import type { Run } from './run.ts'

/**
 * Runs `locate` for every layer, and `layer` for those that nobody placed.
 * @throws {UsageError} ERR_KOCI_LAYER_NOT_PLACED; ERR_KOCI_NOT_MERGED for a layer in a directory of its own where layers
 * are merged; {LimitError} ERR_KOCI_LIMIT_EXCEEDED for a layer that was found and is beyond the limits by its report
 */
export async function placeLayers(run: Run, context: Context): Promise<void> {
  for (const layer of context.layers) {
    run.signal.throwIfAborted()
    await run.app.step('locate', run, context.with({ layer }))
    if (!layer.placed) continue
    assertWithinLimits(context, layer)
    assertInPlace(run, context, layer)
    run.app.tell('layer:found', { run: run.id, layer })
  }
  run.signal.throwIfAborted()
  if (context.extraction.layering === 'stacked')
    return run.all(context.layers, layer => placeLayer(run, context, layer))
  const { layers, limits } = context
  const ahead = await ReadAhead.start(run.pool, layers, limits, run.signal)
  try {
    for (const layer of layers) {
      await placeLayer(run, context, layer, ahead)
      ahead?.drop(layer)
    }
  } finally {
    await ahead?.stop()
  }
}

async function placeLayer(
  run: Run,
  context: Context,
  layer: Layer,
  ahead?: ReadAhead,
): Promise<void> {
  const { app } = run
  if (layer.placed) return
  app.tell('layer:start', { run: run.id, layer })
  const own = context.with({ layer })
  await app.step('layer', run, own, () => extractLayer(run.pool, own, ahead))
  assertInPlace(run, context, layer)
  app.tell('layer:done', { run: run.id, layer })
  run.signal.throwIfAborted()
}

/** A layer that isn't where this layering has it would silently be missing from the rootfs. */
function assertInPlace(run: Run, { extraction }: Context, layer: Layer): void {
  const { placed, digest: subject } = layer
  const chain = run.app.describeChain()
  if (!placed) throw createError('LAYER_NOT_PLACED', { subject, chain })
  if (placed.dir !== undefined && extraction.layering === 'merged')
    throw createError('NOT_MERGED', { subject, by: placed.by, chain })
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
