// Whether there is something to be seen in a rootfs: an unmounted stacked bundle looks as if everything were deleted.
import { lstatSync } from 'node:fs'
import type { Change } from '../change.ts'
import type { Context } from '../context.ts'
import { createError, wrapError } from '../errors.ts'
import { isMountPoint, mountedInside } from '../fs/mount-table.ts'
import { printable } from '../text.ts'

/**
 * What is mounted inside of a rootfs hides what is there, and would be packed in its place: files of the host. A lister that
 * looks at the rootfs doesn't list it; one that knows from elsewhere what changed may. A directory in which something is mounted
 * is packed as such.
 * @throws {FormatError} ERR_KOCI_INVALID_BUNDLE for a change beneath such a place, or at one that is no directory
 */
export function assertNoneMountedOver(rootfs: string, changes: Iterable<Change>): void {
  let places: string[]
  try {
    places = mountedInside(rootfs)
  } catch (error) {
    throw wrapError(error, rootfs)
  }
  if (places.length === 0) return
  for (const { rawPath, path } of changes) {
    const name = rawPath.toString('latin1')
    const place = places.find(each =>
      name === each ? !isDirectory(rootfs, rawPath) : name.startsWith(`${each}/`),
    )
    if (place === undefined) continue
    const at = printable(Buffer.from(place, 'latin1'))
    const reason = `something is mounted at ${at}, so that what changed there (${printable(path)}) can't be told - unmount it, or mask it`
    throw createError('INVALID_BUNDLE', { subject: rootfs, reason })
  }
}

function isDirectory(rootfs: string, rawPath: Buffer): boolean {
  const file = Buffer.concat([Buffer.from(`${rootfs}/`), rawPath])
  return lstatSync(file, { throwIfNoEntry: false })?.isDirectory() ?? false
}

/**
 * For every lister that looks at the rootfs.
 * @throws {ConflictError} ERR_KOCI_ROOTFS_NOT_MOUNTED for stacked layers that aren't mounted
 */
export function assertMounted({ extraction, bundle, rootfs }: Context): void {
  if (extraction.layering !== 'stacked') return
  try {
    if (isMountPoint(rootfs)) return
  } catch (error) {
    throw wrapError(error, rootfs)
  }
  throw createError('ROOTFS_NOT_MOUNTED', { subject: bundle.path })
}
