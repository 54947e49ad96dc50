// Media types of OCI images and of Docker's schema 2. A layer's compression is what its media type says,
// never what its bytes look like.
import { createError } from '../errors.ts'

/** How a layer is stored. */
export type Compression = 'none' | 'gzip' | 'zstd'

/** Which of the two families of media types a manifest uses. */
export type MediaTypeFamily = 'oci' | 'docker'

/** Names of the documents of an OCI image. */
export const ociTypes = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  empty: 'application/vnd.oci.empty.v1+json',
} as const

/** Names of the documents of a Docker schema-2 image. */
export const dockerTypes = {
  index: 'application/vnd.docker.distribution.manifest.list.v2+json',
  manifest: 'application/vnd.docker.distribution.manifest.v2+json',
  config: 'application/vnd.docker.container.image.v1+json',
} as const

const layerBases: Readonly<Record<string, { family: MediaTypeFamily; oci: string }>> = {
  'application/vnd.oci.image.layer.v1.tar': {
    family: 'oci',
    oci: 'application/vnd.oci.image.layer.v1.tar',
  },
  'application/vnd.oci.image.layer.nondistributable.v1.tar': {
    family: 'oci',
    oci: 'application/vnd.oci.image.layer.nondistributable.v1.tar',
  },
  'application/vnd.docker.image.rootfs.diff.tar': {
    family: 'docker',
    oci: 'application/vnd.oci.image.layer.v1.tar',
  },
  'application/vnd.docker.image.rootfs.foreign.diff.tar': {
    family: 'docker',
    oci: 'application/vnd.oci.image.layer.nondistributable.v1.tar',
  },
}

/** Whether this is the media type of an image index or a Docker manifest list. */
export function isIndexType(mediaType: string): boolean {
  return mediaType === ociTypes.index || mediaType === dockerTypes.index
}

/** Whether this is the media type of an image manifest. */
export function isManifestType(mediaType: string): boolean {
  return mediaType === ociTypes.manifest || mediaType === dockerTypes.manifest
}

/** Whether this is the media type of an image config; what has another one is no image. */
export function isConfigType(mediaType: string): boolean {
  return mediaType === ociTypes.config || mediaType === dockerTypes.config
}

/**
 * The compression that a layer's media type promises; foreign and nondistributable layers are like any other.
 * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_MEDIA_TYPE
 */
export function layerFormat(
  mediaType: string,
  subject = 'layer',
): { compression: Compression } {
  const parts = splitLayerType(mediaType)
  if (!parts) throw createError('UNSUPPORTED_MEDIA_TYPE', { subject, mediaType })
  return { compression: parts.compression }
}

/** The media type of a new layer. */
export function layerMediaType(
  compression: Compression,
  family: MediaTypeFamily = 'oci',
): string {
  return family === 'oci'
    ? withSuffix('application/vnd.oci.image.layer.v1.tar', 'oci', compression)
    : withSuffix('application/vnd.docker.image.rootfs.diff.tar', 'docker', compression)
}

/** The OCI media type of the same meaning; those that have none, or are OCI's, unchanged. */
export function toOciType(mediaType: string): string {
  for (const kind of ['index', 'manifest', 'config'] as const)
    if (mediaType === dockerTypes[kind]) return ociTypes[kind]
  const parts = splitLayerType(mediaType)
  return parts ? withSuffix(parts.oci, 'oci', parts.compression) : mediaType
}

function splitLayerType(
  mediaType: string,
): { oci: string; compression: Compression } | undefined {
  for (const [name, { family, oci }] of Object.entries(layerBases))
    for (const compression of ['none', 'gzip', 'zstd'] as const)
      if (mediaType === withSuffix(name, family, compression)) return { oci, compression }
  return undefined
}

function withSuffix(name: string, family: MediaTypeFamily, compression: Compression): string {
  if (compression === 'none') return name
  return `${name}${family === 'oci' ? '+' : '.'}${compression}`
}
