// Makes real images in a layout, from layers given as tar members.
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { digestOf } from '../../lib/oci/digest.ts'
import {
  appendLayer,
  encodeDraft,
  newImage,
  type ImageDraft,
} from '../../lib/oci/image-draft.ts'
import type { ExecutionConfig } from '../../lib/oci/image-config.ts'
import { layerMediaType, type Compression } from '../../lib/oci/media-type.ts'
import { hostPlatform, type Platform } from '../../lib/oci/platform.ts'
import { tarBytes, type TarMember } from './tar-builder.ts'

/** A layer: its members, or the bytes of its tar. */
export type TestLayer = readonly TarMember[] | Buffer

/** What an image has beside its layers. */
export interface TestImage {
  readonly layers: readonly TestLayer[]
  readonly config?: ExecutionConfig
  readonly compression?: Compression
  /** Compresses instead of what does it, in whatever way. */
  readonly encode?: (tar: Buffer) => Buffer
  readonly platform?: Platform
  /** The last chance to spoil it. */
  readonly change?: (draft: ImageDraft) => ImageDraft
}

/** Puts an image into a layout, which is made if it isn't there, and gives it a tag. Returns `path:tag`. */
export async function makeImage(
  path: string,
  refName: string,
  image: TestImage,
): Promise<string> {
  const layout = await ImageLayout.open(path).catch(() => ImageLayout.create(path))
  try {
    const { layers, config = {}, compression = 'gzip', platform = hostPlatform() } = image
    let draft = newImage({ platform, created: '2026-01-01T00:00:00Z' })
    draft = { ...draft, config: { ...draft.config, config } }
    for (const layer of layers) {
      const tar = Buffer.isBuffer(layer) ? layer : tarBytes(layer)
      const bytes = image.encode ? image.encode(tar) : compress(tar, compression)
      const blob = await layout.putBlob(bytes, layerMediaType(compression))
      const { digest, size } = blob
      draft = appendLayer(
        draft,
        { digest, size, compression, diffID: digestOf(tar) },
        { created_by: 'test' },
      )
    }
    const encoded = encodeDraft(image.change ? image.change(draft) : draft)
    await layout.putBlob(encoded.config.bytes, encoded.config.descriptor.mediaType)
    await layout.putBlob(encoded.manifest.bytes, encoded.manifest.descriptor.mediaType)
    await layout.setRef(refName, encoded.manifest.descriptor)
    return `${path}:${refName}`
  } finally {
    await layout.close()
  }
}

function compress(tar: Buffer, compression: Compression): Buffer {
  if (compression === 'gzip') return gzipSync(tar)
  return compression === 'zstd' ? zstdCompressSync(tar) : tar
}
