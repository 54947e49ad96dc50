// What `koci stat` shows: a manifest and, if it is that of an image, its config and history. Everything is verified.
import type { ImageLayout } from '../../lib/layout/image-layout.ts'
import type { Descriptor, Platform } from '../../lib/oci/descriptor.ts'
import { describe } from '../../lib/oci/descriptor.ts'
import type { History, ImageConfig } from '../../lib/oci/image-config.ts'
import { parseJson } from '../../lib/oci/json.ts'
import { isConfigType, ociTypes } from '../../lib/oci/media-type.ts'
import type { Manifest } from '../../lib/oci/manifest.ts'

/** A history entry and the layer it made. */
export interface HistoryRow {
  /** Undefined for entries that made none, and for those beyond the last layer. */
  readonly layer: Descriptor | undefined
  readonly diffID: string
  readonly history: History
}

export interface ImageStat {
  readonly descriptor: Descriptor
  readonly manifest: Manifest
  /** As it is written, with whatever else is in it. */
  readonly rawManifest: unknown
  /** Of a config whose format is known. */
  readonly config?: { readonly descriptor: Descriptor; readonly raw: unknown }
  readonly image?: ImageConfig
  readonly history?: readonly HistoryRow[]
}

/** Reads what a tag leads to. */
export async function readStat(
  layout: ImageLayout,
  refName: string,
  options: { platform?: Platform },
): Promise<ImageStat> {
  const { descriptor, manifest } = await layout.resolveManifest(refName, options)
  const rawManifest = await readJson(layout, descriptor)
  const { config } = manifest
  if (config.mediaType === ociTypes.empty)
    return {
      descriptor,
      manifest,
      rawManifest,
      config: { descriptor: config, raw: await readJson(layout, config) },
    }
  if (!isConfigType(config.mediaType)) return { descriptor, manifest, rawManifest }

  const resolved = await layout.resolve(refName, options)
  return {
    descriptor,
    manifest,
    rawManifest,
    config: { descriptor: config, raw: await readJson(layout, config) },
    image: resolved.config,
    history: historyRows(resolved.config, manifest),
  }
}

/** Entries and layers side by side. Images exist whose history lacks layers, or has entries too many. */
function historyRows(
  { history = [], rootfs }: ImageConfig,
  { layers }: Manifest,
): HistoryRow[] {
  let next = 0
  return history.map(entry => {
    if (entry.empty_layer === true) return { layer: undefined, diffID: '', history: entry }
    const at = next++
    return { layer: layers[at], diffID: rootfs.diff_ids[at] ?? '', history: entry }
  })
}

async function readJson(layout: ImageLayout, descriptor: Descriptor): Promise<unknown> {
  return parseJson(await layout.readBlob(descriptor), describe(descriptor))
}
