// What follows a commit: the new layer enters the stores, by the ordinary steps and from the bytes just packed; and, if
// asked, the bundle is based on the new image. A stacked bundle is taken down for that and put together anew, but not before
// its metadata says so: what is mounted is what they say, whenever a run ends.
import type { Context, RepackContext } from './context.ts'
import type { ResolvedImage } from './layout/image-layout.ts'
import type { Packed } from './packed-changes.ts'
import { placeAlone, placeLayers } from './place-layers.ts'
import type { Run } from './run.ts'
import { layersOf, mountLayers } from './unpack.ts'

/**
 * Has stores keep the new layer, where one asked for it, and prepares the refresh of the bundle, if the user wants one: a
 * stacked bundle is unmounted then. On failure it is mounted on its old base again.
 * @returns the context of the new image
 */
export async function adoptImage(
  run: Run,
  context: RepackContext,
  committed: ResolvedImage,
  packed: Packed,
): Promise<Context> {
  const image = { layout: context.image.layout, ...committed }
  const adopted: Context = context.with({ image, layers: layersOf(image) })
  const isNew = committed.layers.length > context.layers.length
  const isStacked = context.extraction.layering === 'stacked'
  const newest = adopted.layers.at(-1)

  if (isStacked && (context.options.refresh || (context.keepLayer && isNew)))
    await placeLayers(run, adopted)
  else if (context.keepLayer && isNew && newest) await placeAlone(run, adopted, newest)
  if (!context.options.refresh) return adopted

  if (isStacked) {
    await run.app.step('unmount', run, context)
    // not mountLayers(): it would have it unmounted again, as the failure of a run does
    run.defer(() => run.app.step('mount', run, context))
  }
  const newLayers = adopted.layers
  await run.app.step('refresh', run, context.with({ committed, newLayers, ...packed }))
  return adopted
}

/** Ends a refresh: the bundle says what it is based on, and is mounted as it says. */
export async function rebaseBundle(
  run: Run,
  adopted: Context,
  committed: ResolvedImage,
): Promise<void> {
  const { bundle, image, extraction } = adopted
  run.seal(bundle.restorer())
  await bundle.rebase(committed.walk, image.layout.path)
  if (extraction.layering === 'stacked') await mountLayers(run, adopted)
  await bundle.finish()
}
