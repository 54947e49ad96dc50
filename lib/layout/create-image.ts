// An image without layers, to be unpacked, filled and repacked: how images are made from nothing.
import { encodeDraft, newImage } from '../oci/image-draft.ts'
import { hostPlatform, type Platform } from '../oci/platform.ts'
import { creationTime, parseSourceDate } from '../oci/source-date.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import type { ImageLayout } from './image-layout.ts'

/**
 * Puts an empty image into a layout under a tag, which is taken from what had it. Made now, or at SOURCE_DATE_EPOCH.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for a SOURCE_DATE_EPOCH that isn't a number;
 * {FormatError} ERR_KOCI_INVALID_REFERENCE; {UnsupportedError} ERR_KOCI_READ_ONLY
 */
export async function createImage(
  layout: ImageLayout,
  refName: string,
  platform: Platform = hostPlatform(),
): Promise<Descriptor> {
  const created = creationTime(parseSourceDate(process.env['SOURCE_DATE_EPOCH']))
  const { config, manifest } = encodeDraft(newImage({ platform, created }))
  await layout.putBlob(config.bytes, config.descriptor.mediaType)
  await layout.putBlob(manifest.bytes, manifest.descriptor.mediaType)
  await layout.setRef(refName, manifest.descriptor)
  return manifest.descriptor
}
