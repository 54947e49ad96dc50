// A changed image becomes blobs, and at last a tag: config, manifest, the indexes above it, the entry of index.json.
// Until the tag moves nothing refers to what was written.
import { createError } from '../errors.ts'
import {
  appendHistory,
  appendLayer,
  draftOf,
  encodeDocument,
  encodeDraft,
  pointTo,
  type ImageDraft,
  type NewLayer,
} from '../oci/image-draft.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import { parseIndex } from '../oci/manifest.ts'
import { toOciType } from '../oci/media-type.ts'
import { creationTime, parseSourceDate } from '../oci/source-date.ts'
import type { ImageLayout, ResolvedImage } from './image-layout.ts'
import { withRefName } from './refs.ts'
import type { Image } from './open-image.ts'

/** What a history entry says. */
export interface HistoryOptions {
  /** @default the image's author */
  readonly author?: string | undefined
  readonly comment?: string | undefined
  /** RFC 3339. @default SOURCE_DATE_EPOCH, else now */
  readonly created?: string | undefined
  /** @default 'koci repack' */
  readonly createdBy?: string | undefined
}

/**
 * Commits the image with a new layer on top (or none) under a tag. A nested index is rewritten all the way up, with
 * every entry but the changed one as it was.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for a creation time that isn't RFC 3339; {FormatError} ERR_KOCI_INVALID_INDEX
 * for a walk whose parts don't lead to each other
 */
export async function commitImage(
  image: Image,
  refName: string,
  layer: NewLayer | undefined,
  history: HistoryOptions | false | undefined,
): Promise<ResolvedImage> {
  const { layout } = image
  const entry = history === false ? undefined : historyEntry(image, history ?? {})
  const draft = withLayer(draftOf(image), layer, entry)
  const { config, manifest } = encodeDraft(draft)
  await layout.putBlob(config.bytes, config.descriptor.mediaType)
  await layout.putBlob(manifest.bytes, manifest.descriptor.mediaType)

  const leaf = pointTo(image.descriptor, manifest.descriptor)
  const [root = leaf, ...below] = await rewriteIndexes(layout, image.walk, leaf)
  await layout.setRef(refName, root)
  return layout.resolveWalk(refName, [withRefName(root, refName), ...below])
}

function withLayer(
  draft: ImageDraft,
  layer: NewLayer | undefined,
  entry: ReturnType<typeof historyEntry> | undefined,
): ImageDraft {
  if (layer) return appendLayer(draft, layer, entry)
  return entry ? appendHistory(draft, { ...entry, empty_layer: true }) : draft
}

function historyEntry(image: Image, options: HistoryOptions) {
  const { author = image.config.author, comment, createdBy = 'koci repack' } = options
  const created =
    options.created ?? creationTime(parseSourceDate(process.env['SOURCE_DATE_EPOCH']))
  if (
    !/^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/.test(created) ||
    Number.isNaN(Date.parse(created))
  )
    throw createError('INVALID_OPTION', {
      subject: `history time ${created}`,
      reason: 'not an RFC 3339 time such as 2026-01-31T12:00:00Z',
    })
  return {
    created,
    created_by: createdBy,
    ...(author ? { author } : {}),
    ...(comment ? { comment } : {}),
  }
}

/** The walk with the new manifest at its end, each index above it written anew; Docker's lists of OCI images become OCI's. */
async function rewriteIndexes(
  layout: ImageLayout,
  walk: readonly Descriptor[],
  manifest: Descriptor,
): Promise<Descriptor[]> {
  const result = [manifest]
  for (const [at, parent] of [...walk.slice(0, -1).entries()].toReversed()) {
    const before = walk[at + 1] as Descriptor
    const after = result[0] as Descriptor
    const index = parseIndex(await layout.readBlob(parent), parent)
    if (!index.manifests.some(entry => entry.digest === before.digest))
      throw createError('INVALID_INDEX', {
        subject: parent.digest,
        reason: `it doesn't hold ${before.digest}, which is to be replaced`,
      })
    const manifests = index.manifests.map(entry =>
      entry.digest === before.digest ? pointTo(entry, after) : entry,
    )
    const family = (mediaType: string): string =>
      after.mediaType.startsWith('application/vnd.oci.') ? toOciType(mediaType) : mediaType
    const changed = {
      ...index,
      ...(index.mediaType === undefined ? {} : { mediaType: family(index.mediaType) }),
      manifests,
    }
    const encoded = encodeDocument(changed, { ...parent, mediaType: family(parent.mediaType) })
    await layout.putBlob(encoded.bytes, encoded.descriptor.mediaType)
    result.unshift(encoded.descriptor)
  }
  return result
}
