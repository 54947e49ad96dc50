// One step of building an image without a bundle: its config is edited, or a layer that was made elsewhere goes on top.
// Everything is checked and written before the tag moves.
import type { LayerRange, NewLayer } from '../oci/image-draft.ts'
import type { ImageEdits } from '../oci/edit-image.ts'
import { assertRefName } from '../oci/reference.ts'
import { parseSourceDate } from '../oci/source-date.ts'
import {
  commitEdits,
  commitImage,
  commitReplacement,
  type HistoryOptions,
} from './commit-image.ts'
import type { ResolvedImage } from './image-layout.ts'
import { openForChange, type Image, type ImageOptions } from './open-image.ts'

/** Which image, and what becomes of the changed one. */
export interface ChangeOptions extends ImageOptions {
  /** The tag that the new image gets. @default the old one's, which moves */
  readonly newRefName?: string | undefined
  /** What the new history entry says; `false` adds none. */
  readonly history?: HistoryOptions | false | undefined
}

/**
 * Edits the config and the annotations of an image.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for an edit that makes no sense; {UnsupportedError} ERR_KOCI_READ_ONLY;
 * {NotFoundError}, {ConflictError} and what else may be wrong with the image. Nothing was changed then.
 */
export function configureImage(
  options: ChangeOptions,
  edits: ImageEdits,
): Promise<ResolvedImage> {
  return changeImage(options, (image, refName) =>
    commitEdits(image, refName, edits, options.history),
  )
}

/** Puts the layer that `write` makes on top of an image; `write` gets the image, and its layout to write to. */
export function addLayer(
  options: ChangeOptions,
  write: (image: Image) => Promise<NewLayer>,
): Promise<ResolvedImage> {
  return changeImage(options, async (image, refName) =>
    commitImage(image, refName, await write(image), options.history),
  )
}

/** Puts the layer that `write` makes in the place of some of the image's own, those that it names. */
export function replaceLayers(
  options: ChangeOptions,
  write: (image: Image) => Promise<{ range: LayerRange; layer: NewLayer }>,
): Promise<ResolvedImage> {
  return changeImage(options, async (image, refName) =>
    commitReplacement(image, refName, await write(image), options.history),
  )
}

async function changeImage(
  options: ChangeOptions,
  change: (image: Image, refName: string) => Promise<ResolvedImage>,
): Promise<ResolvedImage> {
  const { newRefName } = options
  if (newRefName !== undefined) assertRefName(newRefName)
  // before anything is written
  parseSourceDate(process.env['SOURCE_DATE_EPOCH'])
  const image = await openForChange(options)
  try {
    return await change(image, newRefName ?? image.refName)
  } finally {
    await image.layout.close()
  }
}
