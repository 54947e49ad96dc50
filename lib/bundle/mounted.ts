// Whether there is something to be seen in a rootfs: an unmounted stacked bundle looks as if everything were deleted.
import type { Context } from '../context.ts'
import { createError, wrapError } from '../errors.ts'
import { isMountPoint } from '../fs/mount-table.ts'

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
