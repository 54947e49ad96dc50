// From what a user names to an open layout and an image in it.
import type { Bundle } from '../bundle/bundle.ts'
import { createError } from '../errors.ts'
import { parsePlatform, type Platform } from '../oci/platform.ts'
import { assertRefName, parseImageReference, type ImageReference } from '../oci/reference.ts'
import { ImageLayout, type ResolvedImage } from './image-layout.ts'
import { withLayers, type LayerSelection } from './select-layers.ts'

/** An image: what a reference was resolved to, and the layout it is in. */
export interface Image extends ResolvedImage {
  readonly layout: ImageLayout
}

/** Which image. */
export interface ImageOptions {
  /** `layout[:tag]`, split at the first colon, or both apart (for a path that holds one). A layout may be a tar file. */
  readonly image: string | ImageReference
  /** `os/architecture[/variant]`; needed if an index holds several images. @default that of the host */
  readonly platform?: string | Platform | undefined
  /** Only these layers of it. @default all of them */
  readonly layers?: LayerSelection | undefined
}

/**
 * Opens the layout and resolves the tag down to manifest and config, all verified. The caller closes the layout.
 * @throws {NotFoundError} ERR_KOCI_REF_NOT_FOUND, ERR_KOCI_PLATFORM_NOT_FOUND, ERR_KOCI_BLOB_NOT_FOUND;
 * {ConflictError} ERR_KOCI_AMBIGUOUS; FormatError and IntegrityError for what is wrong with the image
 */
export async function openImage(options: ImageOptions): Promise<Image> {
  const { path, refName } = toReference(options.image)
  const platform = toPlatform(options.platform)
  const layout = await ImageLayout.open(path)
  try {
    const resolved = await layout.resolve(refName, platform ? { platform } : {})
    return { layout, ...withLayers(resolved, options.layers) }
  } catch (error) {
    await layout.close()
    throw error
  }
}

/**
 * As {@link openImage}, for a change of the image, with all of its layers. Until the caller closes the layout nothing in it is collected.
 * @throws {UnsupportedError} ERR_KOCI_READ_ONLY for a layout in a tar file
 */
export async function openForChange(
  options: ImageOptions & { readonly signal?: AbortSignal | undefined },
): Promise<Image> {
  const { path, refName } = toReference(options.image)
  const platform = toPlatform(options.platform)
  const layout = await ImageLayout.open(path, { signal: options.signal })
  try {
    assertWritable(layout)
    await layout.hold()
    return { layout, ...(await layout.resolve(refName, platform ? { platform } : {})) }
  } catch (error) {
    await layout.close()
    throw error
  }
}

/** What the tag of an image that was opened leads to by now, in the same layout. */
export async function resolveAgain(image: Image, options: ImageOptions): Promise<Image> {
  const { layout, refName } = image
  const platform = toPlatform(options.platform)
  return { layout, ...(await layout.resolve(refName, platform ? { platform } : {})) }
}

/**
 * Opens the layout that a repack writes to, and in it the image that the bundle was made from. Until the caller closes
 * the layout nothing in it is collected.
 * @throws {UnsupportedError} ERR_KOCI_READ_ONLY for a layout in a tar file
 */
export async function openTarget(
  image: string | ImageReference,
  bundle: Bundle,
  signal: AbortSignal,
): Promise<{ image: Image; refName: string }> {
  const { path: directory, refName } = toReference(image)
  if (bundle.ready?.layers)
    throw createError('INVALID_BUNDLE', {
      subject: bundle.path,
      reason: 'it has only some layers of its image, and there is no image of these to change',
    })
  const layout = await ImageLayout.open(directory, { signal })
  try {
    assertWritable(layout)
    // the base may have no tag any more: what the new image shares with it must not be collected meanwhile
    await layout.hold()
    const walk = bundle.umoci?.walk ?? []
    return { image: { layout, ...(await layout.resolveWalk(refName, walk)) }, refName }
  } catch (error) {
    await layout.close()
    throw error
  }
}

/**
 * Opens the image that a bundle was made from, for reading; from the layout that the bundle names unless told another.
 * The caller closes the layout.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION if neither names one
 */
export async function openBase(bundle: Bundle, layoutPath?: string): Promise<Image> {
  const directory = layoutPath ?? bundle.ready?.layout
  if (directory === undefined)
    throw createError('INVALID_OPTION', {
      subject: bundle.path,
      reason: 'the bundle does not say where its image is - name the layout',
    })
  const layout = await ImageLayout.open(directory)
  try {
    const walk = bundle.umoci?.walk ?? []
    const refName = walk[0]?.annotations?.['org.opencontainers.image.ref.name'] ?? ''
    const image = await layout.resolveWalk(refName, walk)
    return { layout, ...withLayers(image, bundle.ready?.layers) }
  } catch (error) {
    await layout.close()
    throw error
  }
}

function assertWritable(layout: ImageLayout): void {
  if (layout.readOnly)
    throw createError('READ_ONLY', {
      subject: layout.root,
      reason: 'it is an archive - koci copy puts the image into a layout that can be written',
    })
}

function toReference(image: string | ImageReference): ImageReference {
  if (typeof image === 'string') return parseImageReference(image)
  assertRefName(image.refName)
  return image
}

function toPlatform(platform: string | Platform | undefined): Platform | undefined {
  return typeof platform === 'string' ? parsePlatform(platform) : platform
}
