// What follows a commit: the new layer enters the stores, by the ordinary steps and from the bytes just packed; and, if
// asked, the bundle is based on the new image. A stacked bundle is taken down for that and put together anew.
import type { Context, RefreshContext, RepackContext } from './context.ts'
import type { ResolvedImage } from './layout/image-layout.ts'
import { placeAlone, placeLayers } from './place-layers.ts'
import type { Run } from './run.ts'
import { layersOf, mountLayers } from './unpack.ts'

/**
 * Has stores keep the new layer, where one asked for it, and refreshes the bundle, if the user did.
 * On failure a stacked bundle is mounted on its old base again.
 */
export async function adoptImage(
  run: Run,
  context: RepackContext,
  committed: ResolvedImage,
  packed: Pick<RefreshContext, 'packed' | 'packedHashes'>,
): Promise<void> {
  const image = { layout: context.image.layout, ...committed }
  const adopted: Context = context.with({ image, layers: layersOf(image) })
  const isNew = committed.layers.length > context.layers.length
  const isStacked = context.extraction.layering === 'stacked'
  const newest = adopted.layers.at(-1)

  if (isStacked && (context.options.refresh || (context.keepLayer && isNew)))
    await placeLayers(run, adopted)
  else if (context.keepLayer && isNew && newest) await placeAlone(run, adopted, newest)
  if (!context.options.refresh) return

  if (isStacked) {
    await run.app.step('unmount', run, context)
    // not mountLayers(): it would have it unmounted again, as the failure of a run does
    run.defer(() => run.app.step('mount', run, context))
  }
  const newLayers = adopted.layers
  await run.app.step('refresh', run, context.with({ committed, newLayers, ...packed }))
  if (isStacked) await mountLayers(run, adopted)
}
