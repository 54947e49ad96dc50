// One step of building an image without a bundle: its config is edited, or a layer that was made elsewhere goes on top.
// Everything is checked and written before the tag moves. If somebody else moved it meanwhile, ours becomes a change of what
// came of that, as if it had begun afterwards.
import { isError } from '../errors.ts'
import type { LayerRange, NewLayer } from '../oci/image-draft.ts'
import type { ImageEdits } from '../oci/edit-image.ts'
import { assertRefName } from '../oci/reference.ts'
import type { Digest } from '../oci/digest.ts'
import { parseSourceDate } from '../oci/source-date.ts'
import {
  commitEdits,
  commitImage,
  commitReplacement,
  type HistoryOptions,
} from './commit-image.ts'
import type { ResolvedImage } from './image-layout.ts'
import { openForChange, resolveAgain, type Image, type ImageOptions } from './open-image.ts'

/** Which image, and what becomes of the changed one. */
export interface ChangeOptions extends ImageOptions {
  /** The tag that the new image gets. @default the old one's, which moves */
  readonly newRefName?: string | undefined
  /** What the new history entry says; `false` adds none. */
  readonly history?: HistoryOptions | false | undefined
  readonly signal?: AbortSignal | undefined
}

/** Each time that somebody else is quicker, they are done: only who never ends can be in the way more often. */
const maxTries = 100

/**
 * Edits the config and the annotations of an image.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for an edit that makes no sense; {UnsupportedError} ERR_KOCI_READ_ONLY;
 * {NotFoundError}, {ConflictError} and what else may be wrong with the image. Nothing was changed then.
 */
export function configureImage(
  options: ChangeOptions,
  edits: ImageEdits,
): Promise<ResolvedImage> {
  return changeImage(
    options,
    async () => edits,
    (image, refName) => commitEdits(image, refName, edits, options.history),
  )
}

/**
 * Puts the layer that `write` makes on top of an image; `write` gets the image, and its layout to write to. It is called
 * once: the layer may end up on what became of the image meanwhile.
 */
export function addLayer(
  options: ChangeOptions,
  write: (image: Image) => Promise<NewLayer>,
): Promise<ResolvedImage> {
  return changeImage(options, write, (image, refName, layer) =>
    commitImage(image, refName, layer, options.history),
  )
}

/**
 * Puts the layer that `write` makes in the place of some of the image's own, those that it names; `write` is called once.
 * @throws {ConflictError} ERR_KOCI_REF_MOVED if these, or any below them, aren't in what became of the image meanwhile
 */
export function replaceLayers(
  options: ChangeOptions,
  write: (image: Image) => Promise<{ range: LayerRange; layer: NewLayer }>,
): Promise<ResolvedImage> {
  const chainAt = ({ layers }: Image, { last }: LayerRange): Digest | undefined =>
    layers[last]?.chainID
  return changeImage(
    options,
    async image => {
      const { range, layer } = await write(image)
      return { range, layer, replaced: chainAt(image, range) }
    },
    (image, refName, made) => commitReplacement(image, refName, made, options.history),
    // it has the effect of the layers that were read, on top of those that were below them
    (image, { range, replaced }) => chainAt(image, range) === replaced,
  )
}

async function changeImage<Made>(
  options: ChangeOptions,
  make: (image: Image) => Promise<Made>,
  commit: (image: Image, refName: string | undefined, made: Made) => Promise<ResolvedImage>,
  fits: (image: Image, made: Made) => boolean = () => true,
): Promise<ResolvedImage> {
  const { newRefName } = options
  if (newRefName !== undefined) assertRefName(newRefName)
  // before anything is written
  parseSourceDate(process.env['SOURCE_DATE_EPOCH'])
  let image = await openForChange(options)
  const { layout } = image
  // under another name nothing is lost that others made of the image
  const refName = newRefName === image.refName ? undefined : newRefName
  try {
    const made = await make(image)
    for (let tries = 1; ; tries++) {
      try {
        return await commit(image, refName, made)
      } catch (error) {
        if (tries === maxTries || !isError(error, 'REF_MOVED')) throw error
        image = await resolveAgain(image, options)
        if (!fits(image, made)) throw error
      }
    }
  } finally {
    await layout.close()
  }
}
