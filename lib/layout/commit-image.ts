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
  replaceLayers,
  type ImageDraft,
  type LayerRange,
  type NewLayer,
} from '../oci/image-draft.ts'
import { editImage, type ImageEdits } from '../oci/edit-image.ts'
import type { History, ImageConfig } from '../oci/image-config.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import { parseIndex } from '../oci/manifest.ts'
import { toOciType } from '../oci/media-type.ts'
import { creationTime, normalizeTime, parseSourceDate } from '../oci/source-date.ts'
import type { ImageLayout, ResolvedImage } from './image-layout.ts'
import { withRefName } from './refs.ts'
import type { Image } from './open-image.ts'

/** What a history entry says. */
export interface HistoryOptions {
  /** Empty for none. @default the image's author */
  readonly author?: string | undefined
  readonly comment?: string | undefined
  /** RFC 3339. @default SOURCE_DATE_EPOCH, else now */
  readonly created?: string | undefined
  /** @default 'koci repack' */
  readonly createdBy?: string | undefined
}

/**
 * Commits the image with a new layer on top (or none) under a tag. Without one the image's own moves, but only from the
 * image: whoever changed it meanwhile would lose that.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for a creation time that isn't RFC 3339; {FormatError} as `commitDraft`;
 * {ConflictError} ERR_KOCI_REF_MOVED
 */
export function commitImage(
  image: Image,
  refName: string | undefined,
  layer: NewLayer | undefined,
  history: HistoryOptions | false | undefined,
): Promise<ResolvedImage> {
  const { author } = image.config
  const entry = history === false ? undefined : historyEntry({ author, ...defined(history) })
  const draft = draftOf(image)
  const changed = layer ? appendLayer(draft, layer, entry) : withEmptyEntry(draft, entry)
  return commitDraft(image, refName, changed)
}

/** Commits the image with a layer in the place of some of its own under a tag; as {@link commitImage} otherwise. */
export function commitReplacement(
  image: Image,
  refName: string | undefined,
  { range, layer }: { range: LayerRange; layer: NewLayer },
  history: HistoryOptions | false | undefined,
): Promise<ResolvedImage> {
  const { author } = image.config
  const entry = history === false ? undefined : historyEntry({ author, ...defined(history) })
  return commitDraft(image, refName, replaceLayers(draftOf(image), range, layer, entry))
}

/** Commits an image whose config was changed under a tag; as {@link commitImage} otherwise. */
export function commitEdits(
  image: Image,
  refName: string | undefined,
  edits: ImageEdits,
  history: HistoryOptions | false | undefined,
): Promise<ResolvedImage> {
  const draft = editImage(draftOf(image), edits)
  const { author } = draft.config
  const entry = history === false ? undefined : historyEntry({ author, ...defined(history) })
  return commitDraft(image, refName, withEmptyEntry(draft, entry))
}

/**
 * Writes a draft of the image's successor, and moves the tag to it. A nested index is rewritten all the way up, with
 * every entry but the changed one as it was.
 * @throws {FormatError} ERR_KOCI_INVALID_INDEX for a walk whose parts don't lead to each other
 */
async function commitDraft(
  image: Image,
  refName: string | undefined,
  draft: ImageDraft,
): Promise<ResolvedImage> {
  const { layout } = image
  const newName = refName ?? image.refName
  const from = refName === undefined ? image.walk[0]?.digest : undefined
  const { config, manifest } = encodeDraft(draft)
  await layout.putBlob(config.bytes, config.descriptor.mediaType)
  await layout.putBlob(manifest.bytes, manifest.descriptor.mediaType)

  const leaf = withPlatform(pointTo(image.descriptor, manifest.descriptor), image.config, draft)
  const [root = leaf, ...below] = await rewriteIndexes(layout, image.walk, leaf)
  await layout.setRef(newName, root, { from })
  return layout.resolveWalk(newName, [withRefName(root, newName), ...below])
}

/** Where a descriptor names the platform, it names the one that the config has now. */
function withPlatform(
  leaf: Descriptor,
  before: ImageConfig,
  { config }: ImageDraft,
): Descriptor {
  const { os, architecture, variant } = config
  const isSame =
    os === before.os && architecture === before.architecture && variant === before.variant
  if (!leaf.platform || isSame) return leaf
  const { variant: _, ...platform } = leaf.platform
  const named = variant === undefined ? platform : { ...platform, variant }
  return { ...leaf, platform: { ...named, os, architecture } }
}

function withEmptyEntry(draft: ImageDraft, entry: History | undefined): ImageDraft {
  return entry ? appendHistory(draft, { ...entry, empty_layer: true }) : draft
}

function defined(options: HistoryOptions = {}): HistoryOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
}

function historyEntry(options: HistoryOptions): History {
  const { author, comment, createdBy = 'koci repack' } = options
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
    created: normalizeTime(created),
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
