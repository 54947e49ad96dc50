// What is done with a bundle that is there, apart from repacking it: it is mounted and unmounted, and asked what changed.
import type { Koci } from './application.ts'
import { Bundle } from './bundle/bundle.ts'
import type { ChangeList } from './change-list.ts'
import { Context, type Shared } from './context.ts'
import { createError } from './errors.ts'
import { openBase, type Image } from './layout/open-image.ts'
import { placeLayers } from './place-layers.ts'
import { recordedExtraction } from './recorded-extraction.ts'
import { listChanges, type ListOptions } from './list-changes.ts'
import { runOnce, type Run } from './run.ts'
import { layersOf, mountLayers } from './unpack.ts'

/** Which bundle, and where its image is. */
export interface BundleOptions {
  readonly bundle: string
  /** The layout that holds the bundle's image. @default the one it was unpacked from */
  readonly layout?: string | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Puts the rootfs of a stacked bundle in place again, as after a reboot; one that is in place stays as it is. Layers that are
 * gone are extracted again.
 * @throws {FormatError} ERR_KOCI_INVALID_BUNDLE for a bundle whose layers are merged; {UsageError}
 * ERR_KOCI_CHAIN_MISMATCH, ERR_KOCI_NOT_MOUNTED
 */
export function mountBundle(app: Koci, options: BundleOptions): Promise<void> {
  return withBundle(app, options, async (run, context) => {
    assertStacked(context)
    await placeLayers(run, context)
    await run.pool.close()
    await mountLayers(run, context)
  })
}

/**
 * Takes the rootfs of a stacked bundle down; what was changed in it is kept. One that isn't mounted stays as it is. The image
 * needn't be there any more, unless middleware of `unmount` asks for it.
 * @throws {FormatError} ERR_KOCI_INVALID_BUNDLE for a bundle whose layers are merged; {SystemError} ERR_KOCI_IO (EBUSY)
 * while it is in use
 */
export function unmountBundle(app: Koci, options: BundleOptions): Promise<void> {
  return withBundle(
    app,
    options,
    async (run, context) => {
      assertStacked(context)
      await app.step('unmount', run, context)
    },
    { needsImage: false },
  )
}

/**
 * Lists what changed in a bundle, sorted bytewise, without packing it.
 * @throws {UsageError} ERR_KOCI_NO_DELTA_LISTER
 */
export function listDelta(
  app: Koci,
  options: BundleOptions & ListOptions,
): Promise<ChangeList> {
  return withBundle(app, options, async (run, context) => {
    if (context.extraction.layering === 'stacked') await placeLayers(run, context)
    return listChanges(run, context.with({ options }))
  })
}

function withBundle<T>(
  app: Koci,
  options: BundleOptions & Pick<ListOptions, 'dryRun'>,
  body: (run: Run, context: Context) => Promise<T>,
  { needsImage = true } = {},
): Promise<T> {
  return runOnce(app, options.bundle, options.signal, async run => {
    const bundle = await Bundle.open(options.bundle)
    run.closing(() => bundle.release())
    let image: Image | undefined
    let reason: unknown
    try {
      image = await openBase(bundle, options.layout)
      run.closing(() => image?.layout.close())
    } catch (error) {
      if (needsImage || options.layout !== undefined) throw error
      reason = error
    }
    const shared = { ...run.shared, bundle, extraction: recordedExtraction(run, bundle) }
    const context = image
      ? new Context({ ...shared, image, layers: layersOf(image) })
      : withoutImage(shared, reason)
    const result = await body(run, context)
    if (options.dryRun !== true) await bundle.save()
    return result
  })
}

/** A context without an image: whoever asks for it gets the reason why there is none. */
function withoutImage(context: Omit<Shared, 'image' | 'layers'>, reason: unknown): Context {
  const image = undefined as unknown as Context['image']
  return Object.defineProperty(new Context({ ...context, image, layers: [] }), 'image', {
    get() {
      throw reason
    },
  })
}

function assertStacked({ extraction, bundle }: Context): void {
  if (extraction.layering === 'stacked') return
  throw createError('INVALID_BUNDLE', {
    subject: bundle.path,
    reason: 'its layers are merged: there is nothing to mount',
  })
}
