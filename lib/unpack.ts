// Unpack: an image becomes a bundle. Every layer is looked up before any is extracted; what wasn't found is extracted,
// the rootfs mounted, the config converted; and only after the outermost middleware has returned is the bundle complete.
import path from 'node:path'
import type { Koci } from './application.ts'
import { Bundle } from './bundle/bundle.ts'
import { convertImageConfig } from './bundle/convert.ts'
import { makeRootfs } from './bundle/rootfs.ts'
import { recordChain } from './bundle/recorded-chain.ts'
import { recordExtraction } from './recorded-extraction.ts'
import { encodeRuntimeConfig, type RuntimeConfig } from './bundle/runtime-config.ts'
import { Context, type ConfigContext } from './context.ts'
import { createError } from './errors.ts'
import { isMountPoint } from './fs/mount-table.ts'
import { Extraction, type Mapping } from './layer/extraction.ts'
import { Layer } from './layer/layer.ts'
import { openImage, type ImageOptions } from './layout/open-image.ts'
import { placeLayers } from './place-layers.ts'
import { runOnce, type Run } from './run.ts'

/** What to unpack, and where. */
export interface UnpackOptions extends ImageOptions, Mapping {
  /** Directory to make; it may exist if it holds no bundle. */
  readonly bundle: string
  readonly signal?: AbortSignal | undefined
}

/** What an unpack made. */
export interface UnpackResult {
  /** Absolute paths. */
  readonly bundle: string
  readonly rootfs: string
  /** Base first, each with its place. */
  readonly layers: readonly Layer[]
  readonly runtimeConfig: RuntimeConfig
}

/** @see {@link Koci.unpack} */
export function unpack(app: Koci, options: UnpackOptions): Promise<UnpackResult> {
  return runOnce(app, options.bundle, options.signal, async run => {
    const image = await openImage(options)
    run.closing(() => image.layout.close())
    const bundle = await Bundle.begin(options.bundle)
    run.closing(() => bundle.release())
    run.defer(() => bundle.rollback())

    const layers = layersOf(image)
    const extraction = new Extraction(options)
    const context = new Context({ ...run.shared, image, bundle, layers, extraction })
    app.tell('unpack:start', { run: run.id, bundle: bundle.path, layers })

    let runtimeConfig: RuntimeConfig | undefined
    await app.step('unpack', run, context, async () => {
      extraction.seal()
      await makeRootfs(bundle, extraction)
      await placeLayers(run, context)
      // what comes now needs memory rather than threads
      await run.pool.close()
      await mountLayers(run, context)
      runtimeConfig = await configure(run, context)
    })
    if (!runtimeConfig)
      throw createError('NOT_UNPACKED', { subject: bundle.path, chain: app.describeChain() })

    run.signal.throwIfAborted()
    await bundle.write('config.json', encodeRuntimeConfig(runtimeConfig))
    const { layering, dialect, chosenBy } = extraction
    await bundle.commit(
      { walk: image.walk, mapping: extraction },
      {
        chain: recordChain(app.drivers),
        layering,
        dialect,
        chosenBy,
        extraction: recordExtraction(extraction),
        layout: path.resolve(image.layout.path),
        layers: image.selected,
      },
    )
    app.tell('unpack:done', { run: run.id, bundle: bundle.path })
    return { bundle: bundle.path, rootfs: bundle.rootfs, layers, runtimeConfig }
  })
}

/** The layers of an image as middleware sees them, base first. */
export function layersOf(image: Context['image']): Layer[] {
  return image.layers.map(
    (layer, index) => new Layer(index, layer, () => image.layout.locateBlob(layer.descriptor)),
  )
}

/** Mounts what is stacked; registers the unmounting before, so that a failure half-way is undone, too: of what wasn't mounted. */
export async function mountLayers(run: Run, context: Context): Promise<void> {
  if (!isMountPoint(context.rootfs)) run.defer(() => run.app.step('unmount', run, context))
  await run.app.step('mount', run, context, async () => {
    if (context.extraction.layering === 'stacked')
      throw createError('NOT_MOUNTED', {
        subject: context.bundle.path,
        chain: run.app.describeChain(),
      })
  })
}

async function configure(run: Run, context: Context): Promise<RuntimeConfig | undefined> {
  const own: ConfigContext = context.with({ runtimeConfig: undefined })
  await run.app.step('config', run, own, async () => {
    own.runtimeConfig = await convertImageConfig(own)
  })
  return own.runtimeConfig
}
