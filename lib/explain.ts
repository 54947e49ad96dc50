// What an unpack would do, without doing it: the real steps up to where layers have been looked up, in a bundle that is
// thrown away; of a bundle that is there, what its chain finds now.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Koci } from './application.ts'
import { Bundle } from './bundle/bundle.ts'
import { Context } from './context.ts'
import { blameCulprit } from './blame.ts'
import { createError, wrapError, type KociError } from './errors.ts'
import { Extraction } from './layer/extraction.ts'
import type { Layer } from './layer/layer.ts'
import { openBase, openImage } from './layout/open-image.ts'
import { recordedExtraction } from './recorded-extraction.ts'
import { runOnce, type Run } from './run.ts'
import { layersOf, type UnpackOptions } from './unpack.ts'
import type { BundleOptions } from './with-bundle.ts'

/** What would become of a layer. */
export interface LayerPlan {
  readonly layer: Layer
  /** The driver that has it; undefined: it would be extracted. */
  readonly foundBy: string | undefined
  /** Where it is; undefined also for what is in the rootfs already. */
  readonly dir: string | undefined
}

/** What would be done. */
export interface Explanation {
  /** How layers become a rootfs, who decided it, and how whiteouts are stored. */
  readonly extraction: Extraction
  /** Absolute path of the rootfs, where stacked layers are mounted; undefined if no bundle was named. */
  readonly rootfs: string | undefined
  /** Base first. */
  readonly layers: readonly LayerPlan[]
  /** What each driver says of itself, outermost first. */
  readonly drivers: readonly { readonly name: string; readonly says: string }[]
  /** Who has a say in how layers are extracted, outermost first. */
  readonly extractors: readonly string[]
  /** Who would be asked to mount stacked layers, outermost first. */
  readonly mounters: readonly string[]
  /** Who would be asked what changed, outermost first; the first of them that can answers. */
  readonly listers: readonly string[]
  /** Why it would fail before any layer is looked up; all the rest is as if it didn't. */
  readonly obstacle?: KociError | undefined
}

/** What would be unpacked; without a bundle it is as if there were a place for it. */
export interface ExplainOptions extends Omit<UnpackOptions, 'bundle'> {
  readonly bundle?: string | undefined
}

/**
 * Explains an unpack. Middleware of `unpack` and `locate` is run; nothing is extracted, and nothing remains.
 * @throws {KociError} what `locate` throws; what is wrong with the image
 */
export async function explainUnpack(app: Koci, options: ExplainOptions): Promise<Explanation> {
  if (options.bundle !== undefined) await Bundle.assertFree(options.bundle)
  const scratch = await makeScratch(path.dirname(path.resolve(options.bundle ?? 'bundle')))
  const rootfs = options.bundle && path.join(path.resolve(options.bundle), 'rootfs')
  let explanation: Explanation | undefined
  try {
    await runOnce(app, 'explain', options.signal, async run => {
      const image = await openImage(options)
      run.closing(() => image.layout.close())
      const bundle = await Bundle.begin(path.join(scratch, 'bundle'))
      run.closing(() => bundle.release())
      run.defer(() => bundle.rollback())
      const layers = layersOf(image)
      const extraction = new Extraction(options)
      const context = new Context({ ...run.shared, image, bundle, layers, extraction })
      let isLookedUp = false
      const lookUp = async (): Promise<void> => {
        extraction.seal()
        isLookedUp = true
        explanation = await explain(run, context, rootfs)
        // what would follow needs a rootfs: everybody is told that there won't be one
        throw createError('ABORTED', { subject: 'explain' })
      }
      await app.step('unpack', run, context, lookUp).catch(async (error: unknown) => {
        if (isLookedUp || run.signal.aborted) throw error
        const obstacle = wrapError(blameCulprit(error), 'unpack')
        explanation = { ...(await explain(run, context, rootfs)), obstacle }
        throw createError('ABORTED', { subject: 'explain' }, error)
      })
    })
  } catch (error) {
    if (!explanation) throw error
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
  if (explanation) return explanation
  throw createError('NOT_UNPACKED', { subject: 'explain', chain: app.describeChain() })
}

/** Where the bundle would be, because it may matter on which file system; elsewhere where nothing can be made there. */
async function makeScratch(directory: string): Promise<string> {
  try {
    return await mkdtemp(path.join(directory, '.koci-explain-'))
  } catch (error) {
    const above = path.dirname(directory)
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT' && above !== directory
    return isMissing ? makeScratch(above) : mkdtemp(path.join(tmpdir(), 'koci-explain-'))
  }
}

/**
 * Explains what the chain makes of a bundle: where its layers are now, and who would list changes.
 * @throws {UsageError} ERR_KOCI_CHAIN_MISMATCH, and what `locate` throws
 */
export function explainBundle(app: Koci, options: BundleOptions): Promise<Explanation> {
  return runOnce(app, options.bundle, options.signal, async run => {
    const bundle = await Bundle.open(options.bundle)
    run.closing(() => bundle.release())
    const image = await openBase(bundle, options.layout)
    run.closing(() => image.layout.close())
    const layers = layersOf(image)
    const extraction = recordedExtraction(run, bundle)
    const context = new Context({ ...run.shared, image, bundle, layers, extraction })
    return explain(run, context, bundle.rootfs)
  })
}

async function explain(
  run: Run,
  context: Context,
  rootfs: string | undefined,
): Promise<Explanation> {
  const { app } = run
  const layers: LayerPlan[] = []
  for (const layer of context.layers) {
    run.signal.throwIfAborted()
    await app.step('locate', run, context.with({ layer }))
    layers.push({ layer, foundBy: layer.placed?.by, dir: layer.placed?.dir })
  }
  const drivers = await Array.fromAsync(app.drivers, async driver => ({
    name: driver.name,
    says: (await driver.explain?.(context)) ?? 'would run',
  }))
  const namesOf = (step: 'layer' | 'mount' | 'delta'): string[] =>
    app.drivers.filter(driver => driver[step]).map(({ name }) => name)
  return {
    extraction: context.extraction,
    rootfs,
    layers,
    drivers,
    extractors: namesOf('layer'),
    mounters: context.extraction.layering === 'stacked' ? namesOf('mount') : [],
    listers: namesOf('delta'),
  }
}
