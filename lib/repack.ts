// Repack: what changed in a bundle becomes a layer of a new image. The tag moves last; after that only the refresh of
// the bundle can still fail, which leaves the image, and the bundle on its old base.
import type { Koci } from './application.ts'
import { Bundle } from './bundle/bundle.ts'
import { assertNoneMountedOver } from './bundle/mounted.ts'
import { ChangeList } from './change-list.ts'
import { Context, type PackContext, type RepackContext } from './context.ts'
import { createError } from './errors.ts'
import { FileHashes } from './layer/file-hashes.ts'
import { packEntries } from './layer/pack-entries.ts'
import { chooseCompression, writeLayerBlob, type Compress } from './layer/write-layer-blob.ts'
import { commitImage, type HistoryOptions } from './layout/commit-image.ts'
import type { NewLayer } from './oci/image-draft.ts'
import type { ResolvedImage } from './layout/image-layout.ts'
import { openTarget } from './layout/open-image.ts'
import { listChanges, type ListOptions } from './list-changes.ts'
import { runOnce, type Run } from './run.ts'
import { assertVariants, placeLayers } from './place-layers.ts'
import { adoptImage, rebaseBundle } from './adopt-image.ts'
import { PackedChanges } from './packed-changes.ts'
import { recordedExtraction } from './recorded-extraction.ts'
import { layersOf } from './unpack.ts'

/** What to pack, and under which name. */
export interface RepackOptions extends ListOptions {
  /** `layout[:tag]`, or both apart: the layout that holds the bundle's image, and the tag that the new image gets. */
  readonly image: string | { readonly path: string; readonly refName: string }
  readonly bundle: string
  /** Base the bundle on the new image, so that the next repack packs what changes from now on. @default false */
  readonly refresh?: boolean | undefined
  /** `auto` takes what the newest layer of the image has. @default 'auto' */
  readonly compress?: Compress | undefined
  /** Of the new layer's descriptor. */
  readonly annotations?: Readonly<Record<string, string>> | undefined
  /** What the new history entry says; `false` adds none. */
  readonly history?: HistoryOptions | false | undefined
  readonly signal?: AbortSignal | undefined
}

/** What a repack made. */
export interface RepackResult {
  readonly image: ResolvedImage
  /** What the new layer holds, sorted bytewise; nothing changed and no layer was made if it is empty. */
  readonly changes: ChangeList
}

/** @see {@link Koci.repack} */
export function repack(app: Koci, options: RepackOptions): Promise<RepackResult> {
  return runOnce(app, options.bundle, options.signal, async run => {
    const bundle = await Bundle.open(options.bundle)
    run.closing(() => bundle.release())
    const { image, refName } = await openTarget(options.image, bundle, run.signal)
    run.closing(() => image.layout.close())

    const layers = layersOf(image)
    const extraction = recordedExtraction(run, bundle)
    const base = new Context({ ...run.shared, image, bundle, layers, extraction })
    const context: RepackContext = base.with({
      options,
      committed: undefined,
      keepLayer: false,
    })
    app.tell('repack:start', { run: run.id, bundle: bundle.path })

    let changes = new ChangeList([])
    let adopted: Context = context
    const hashes = new FileHashes()
    const pack = async (): Promise<void> => {
      // the new layer is going to be extracted: what can't be is better known before there is a new image
      if (context.keepLayer || (options.refresh && extraction.layering === 'stacked'))
        assertVariants(run, context)
      // a lister needs to know where they are
      if (extraction.layering === 'stacked') await placeLayers(run, context)
      changes = await listChanges(run, context)
      app.tell('repack:delta', { run: run.id, changes: changes.length })
      // what the bundle is based on then is what was packed, whatever happens to it meanwhile
      const packed = options.refresh ? new PackedChanges(changes) : undefined
      const layer =
        changes.length === 0
          ? undefined
          : await packLayer(run, context, changes, hashes, packed)
      run.signal.throwIfAborted()
      context.committed = await commitImage(image, refName, layer, options.history)
      adopted = await adoptImage(run, context, context.committed, {
        packed: changes,
        packedRecord: undefined,
        ...packed?.finish(),
        packedHashes: hashes,
      })
    }
    try {
      await app.step('repack', run, context, pack)
      if (options.refresh && context.committed)
        await rebaseBundle(run, adopted, context.committed)
    } catch (error) {
      // the tag was moved: whoever reads the error has to know
      if (!options.refresh || !context.committed) throw error
      const reason = error instanceof Error ? error.message : String(error)
      throw createError('NOT_REFRESHED', { subject: bundle.path, refName, reason }, error)
    }
    const { committed } = context
    if (!committed)
      throw createError('NOT_REPACKED', { subject: bundle.path, chain: app.describeChain() })

    app.tell('repack:done', { run: run.id, bundle: bundle.path, changes: changes.length })
    return { image: committed, changes }
  })
}

async function packLayer(
  run: Run,
  context: RepackContext,
  changes: ChangeList,
  hashes: FileHashes,
  packed: PackedChanges | undefined,
): Promise<NewLayer> {
  assertNoneMountedOver(context.rootfs, changes)
  const own: PackContext = context.with({ changes, hashes, entries: undefined })
  await run.app.step('pack', run, own, async () => {
    own.entries = packEntries(own, packed?.rows)
  })
  if (!own.entries)
    throw createError('NOT_REPACKED', {
      subject: context.bundle.path,
      chain: run.app.describeChain(),
    })
  const { image, manifest, options } = context
  const compression = chooseCompression(options.compress ?? 'auto', manifest)
  const entries = packed?.watch(own.entries) ?? own.entries
  const layer = await writeLayerBlob(image.layout, entries, compression)
  return { ...layer, annotations: options.annotations }
}
