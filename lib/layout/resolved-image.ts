// What following a tag gives.
import type { Descriptor, Platform } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import type { LayerRange } from '../oci/image-draft.ts'
import type { ImageConfig } from '../oci/image-config.ts'
import type { Manifest } from '../oci/manifest.ts'
import type { Compression } from '../oci/media-type.ts'

/** A layer of an image as its manifest and its config describe it. */
export interface ResolvedLayer {
  readonly descriptor: Descriptor
  readonly diffID: Digest
  readonly chainID: Digest
  readonly compression: Compression
}

/** A manifest that a tag led to. */
export interface ResolvedManifest {
  readonly refName: string
  /** The entry of index.json first, the manifest last. */
  readonly walk: Descriptor[]
  /** Of the manifest. */
  readonly descriptor: Descriptor
  readonly manifest: Manifest
  /** The platform that was asked for, if only the config can tell whether it fits. */
  readonly unchecked?: Platform
}

/** An image that a tag led to; `layers` are base-first. */
export interface ResolvedImage extends Omit<ResolvedManifest, 'unchecked'> {
  readonly config: ImageConfig
  readonly layers: ResolvedLayer[]
  /** Which of the manifest's layers these are, where not all of them were asked for. */
  readonly selected?: LayerRange | undefined
}
