// What descriptors lead to: indexes their manifests, manifests their config and layers, both of them the subject they are
// about.
import { isError } from '../errors.ts'
import { describe, type Descriptor } from '../oci/descriptor.ts'
import { parseIndex, parseManifest } from '../oci/manifest.ts'
import { isIndexType, isManifestType } from '../oci/media-type.ts'
import type { ImageLayout } from './image-layout.ts'

/**
 * Yields descriptors and all that they lead to, whether it is there or not; a blob that is led to in several ways perhaps
 * several times. Every index and manifest is read, and verified; a subject only if it is there: it needn't be.
 * @throws {NotFoundError} ERR_KOCI_BLOB_NOT_FOUND an index or manifest is missing; what else may be wrong with them
 */
export async function* reachable(
  layout: ImageLayout,
  roots: readonly Descriptor[],
): AsyncGenerator<Descriptor, void, undefined> {
  const read = new Set<string>()
  const pending = [...roots]
  for (let next = pending.pop(); next; next = pending.pop()) {
    yield next
    // the same bytes may be reached under two media types: then they have to be valid as both
    if (!isDocument(next) || read.has(describe(next))) continue
    read.add(describe(next))
    const { children, subject } = await readChildren(layout, next)
    for (const child of children) pending.push(child)
    // image-spec allows a subject that isn't there
    if (subject && (await isPresent(layout, subject))) pending.push(subject)
  }
}

/** Whether it is an index or a manifest, which lead to others. */
export function isDocument({ mediaType }: Descriptor): boolean {
  return isIndexType(mediaType) || isManifestType(mediaType)
}

/** What an index or a manifest names. */
export async function readChildren(
  layout: ImageLayout,
  descriptor: Descriptor,
): Promise<{ children: Descriptor[]; subject?: Descriptor | undefined }> {
  const bytes = await layout.readBlob(descriptor)
  if (isIndexType(descriptor.mediaType)) {
    const { manifests, subject } = parseIndex(bytes, descriptor)
    return { children: manifests, subject }
  }
  const { config, layers, subject } = parseManifest(bytes, descriptor)
  return { children: [config, ...layers], subject }
}

async function isPresent(layout: ImageLayout, descriptor: Descriptor): Promise<boolean> {
  try {
    await layout.locateBlob(descriptor)
    return true
  } catch (error) {
    if (isError(error, 'BLOB_NOT_FOUND')) return false
    throw error
  }
}
