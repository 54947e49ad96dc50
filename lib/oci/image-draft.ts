// Making and changing images: pure functions from one draft to the next. What they don't know they keep:
// unknown fields, the variant, annotations of descriptors, the media type of the config.
import type { Descriptor, Platform } from './descriptor.ts'
import { digestOf, type Digest } from './digest.ts'
import { encodeJson } from './json.ts'
import type { History, ImageConfig } from './image-config.ts'
import type { Manifest } from './manifest.ts'
import {
  dockerTypes,
  layerMediaType,
  ociTypes,
  toOciType,
  type Compression,
  type MediaTypeFamily,
} from './media-type.ts'

/** An image that is being made. `manifest.config` may be stale: {@link encodeDraft} brings it up to date. */
export interface ImageDraft {
  /** Media type of the manifest itself. */
  readonly mediaType: string
  readonly manifest: Manifest
  readonly config: ImageConfig
}

/** A layer whose blob is in the layout already. Sizes in bytes. */
export interface NewLayer {
  readonly digest: Digest
  readonly size: number
  readonly compression: Compression
  readonly diffID: Digest
  /** Size of the tar; noted in umoci's annotation where it differs from `size`. */
  readonly uncompressedSize?: number
  readonly annotations?: Readonly<Record<string, string>> | undefined
}

/** A document and the descriptor that points to it. */
export interface EncodedDocument {
  readonly descriptor: Descriptor
  readonly bytes: Buffer
}

/** umoci's annotation for the size of the tar. */
export const uncompressedSizeAnnotation = 'ci.umo.uncompressed_blob_size'

/** Begins a draft from an image that was resolved. */
export function draftOf(image: {
  readonly descriptor: Descriptor
  readonly manifest: Manifest
  readonly config: ImageConfig
}): ImageDraft {
  const { descriptor, manifest, config } = image
  return { mediaType: descriptor.mediaType, manifest, config }
}

/** An image without layers, as `umoci new` makes it: the variant is noted only for the arm family. */
export function newImage(options: { platform: Platform; created: string }): ImageDraft {
  const { platform, created } = options
  const { architecture, os, variant } = platform
  const isArm = architecture === 'arm' || architecture === 'arm64'
  const config: ImageConfig = {
    created,
    architecture,
    os,
    ...(isArm && variant !== undefined ? { variant } : {}),
    config: {},
    rootfs: { type: 'layers', diff_ids: [] },
  }
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: ociTypes.manifest,
    config: encodeDocument(config, { mediaType: ociTypes.config }).descriptor,
    layers: [],
  }
  return { mediaType: ociTypes.manifest, manifest, config }
}

/**
 * Adds a layer on top: its descriptor, its DiffID and, unless undefined, a history entry.
 * A Docker image becomes an OCI image if the layer is compressed with zstd, for which Docker has no media type.
 */
export function appendLayer(draft: ImageDraft, layer: NewLayer, history?: History): ImageDraft {
  const { layers } = draft.manifest
  const withLayer = spliceLayer(draft, { first: layers.length, last: layers.length - 1 }, layer)
  return history ? appendHistory(withLayer, { ...history, empty_layer: undefined }) : withLayer
}

/** Layers that follow one another, both ends included; 0 is the base. */
export interface LayerRange {
  readonly first: number
  readonly last: number
}

/**
 * Puts one layer in the place of several. Their history stays, as entries that made no layer; the new entry follows them.
 * Without one, that of the last of them now stands for all.
 */
export function replaceLayers(
  draft: ImageDraft,
  range: LayerRange,
  layer: NewLayer,
  entry?: History,
): ImageDraft {
  const changed = spliceLayer(draft, range, layer)
  const { history } = draft.config
  if (!history) return entry ? appendHistory(changed, entry) : changed
  const merged: History[] = []
  let at = 0
  for (const old of history) {
    const index = old.empty_layer === true ? undefined : at++
    const isReplaced = index !== undefined && index >= range.first && index <= range.last
    const isLast = index === range.last
    merged.push(isReplaced && (entry || !isLast) ? { ...old, empty_layer: true } : old)
    if (entry && isLast) merged.push(entry)
  }
  if (entry && !merged.includes(entry)) merged.push(entry)
  return { ...changed, config: { ...changed.config, history: merged } }
}

/**
 * A Docker manifest stays one as long as Docker has a media type for the compression (none, gzip); for zstd the whole
 * image becomes OCI first.
 */
function spliceLayer(draft: ImageDraft, range: LayerRange, layer: NewLayer): ImageDraft {
  const isDocker = draft.mediaType === dockerTypes.manifest
  if (isDocker && layer.compression === 'zstd')
    return spliceLayer(toOciDraft(draft), range, layer)
  const { manifest, config } = draft
  const { rootfs } = config
  const descriptor = descriptorOf(layer, isDocker ? 'docker' : 'oci')
  const splice = <T>(all: readonly T[], one: T): T[] =>
    all.toSpliced(range.first, range.last + 1 - range.first, one)
  return {
    ...draft,
    manifest: { ...manifest, layers: splice(manifest.layers, descriptor) },
    config: {
      ...config,
      rootfs: { ...rootfs, diff_ids: splice(rootfs.diff_ids, layer.diffID) },
    },
  }
}

function descriptorOf(layer: NewLayer, family: MediaTypeFamily): Descriptor {
  const { digest, size, uncompressedSize } = layer
  const annotations = {
    ...layer.annotations,
    ...(uncompressedSize === undefined || uncompressedSize === size
      ? {}
      : { [uncompressedSizeAnnotation]: String(uncompressedSize) }),
  }
  return {
    mediaType: layerMediaType(layer.compression, family),
    digest,
    size,
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
  }
}

/** Adds a history entry; for one that made no layer, `empty_layer` has to be set. Undefined fields are left out. */
export function appendHistory(
  draft: ImageDraft,
  entry: { readonly [Field in keyof History]?: History[Field] | undefined },
): ImageDraft {
  const defined = Object.entries(entry).filter(([, value]) => value !== undefined)
  const history: History[] = [...(draft.config.history ?? []), Object.fromEntries(defined)]
  return { ...draft, config: { ...draft.config, history } }
}

/** Replaces Docker's media types of manifest, config and layers by OCI's; an OCI image is returned unchanged. */
export function toOciDraft(draft: ImageDraft): ImageDraft {
  if (draft.mediaType !== dockerTypes.manifest) return draft
  const { manifest } = draft
  const convert = (descriptor: Descriptor): Descriptor => ({
    ...descriptor,
    mediaType: toOciType(descriptor.mediaType),
  })
  return {
    ...draft,
    mediaType: ociTypes.manifest,
    manifest: {
      ...manifest,
      mediaType: ociTypes.manifest,
      config: convert(manifest.config),
      layers: manifest.layers.map(convert),
    },
  }
}

/**
 * The two documents of a draft, the config first. The config's descriptor keeps everything but digest and size
 * (and embedded data, which would be stale).
 */
export function encodeDraft(draft: ImageDraft): {
  config: EncodedDocument
  manifest: EncodedDocument
} {
  const config = encodeDocument(draft.config, draft.manifest.config)
  const manifest = { ...draft.manifest, config: config.descriptor }
  return { config, manifest: encodeDocument(manifest, { mediaType: draft.mediaType }) }
}

/** Encodes a document and points a descriptor at it: all its fields stay but digest, size and embedded data. */
export function encodeDocument(
  document: unknown,
  descriptor: { readonly mediaType: string; readonly [field: string]: unknown },
): EncodedDocument {
  const bytes = encodeJson(document)
  const { mediaType } = descriptor
  const target = { mediaType, digest: digestOf(bytes), size: bytes.length }
  return { descriptor: pointTo(descriptor, target), bytes }
}

/** The descriptor for other content: all its fields stay but media type, digest, size and embedded data. */
export function pointTo(
  descriptor: { readonly [field: string]: unknown },
  { mediaType, digest, size }: Descriptor,
): Descriptor {
  const { data: _data, mediaType: _type, digest: _digest, size: _size, ...rest } = descriptor
  return { mediaType, digest, size, ...rest }
}
