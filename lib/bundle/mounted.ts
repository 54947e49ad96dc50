// Whether there is something to be seen in a rootfs: an unmounted stacked bundle looks as if everything were deleted.
import { lstatSync } from 'node:fs'
import type { Change } from '../change.ts'
import type { Context } from '../context.ts'
import type { Bundle } from './bundle.ts'
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

const warned = new WeakSet<Bundle>()

/**
 * For every lister that looks at the rootfs. What changed beneath something that is mounted inside of it can't be seen: that is
 * warned about, once.
 * @throws {ConflictError} ERR_KOCI_ROOTFS_NOT_MOUNTED for stacked layers that aren't mounted
 */
export function assertMounted({ extraction, bundle, rootfs, warn }: Context): void {
  let isThere: boolean
  let places: string[]
  try {
    isThere = extraction.layering !== 'stacked' || isMountPoint(rootfs)
    places = mountedInside(rootfs)
  } catch (error) {
    throw wrapError(error, rootfs)
  }
  if (!isThere) throw createError('ROOTFS_NOT_MOUNTED', { subject: bundle.path })
  if (places.length === 0 || warned.has(bundle)) return
  warned.add(bundle)
  const names = places.slice(0, 5).map(place => printable(Buffer.from(place, 'latin1')))
  const more = places.length > names.length ? ` and ${places.length - names.length} more` : ''
  const message = `something is mounted in ${rootfs}, at ${names.join(', ')}${more}: what changed beneath is not packed`
  warn({ code: 'MOUNTED_INSIDE', message })
}
