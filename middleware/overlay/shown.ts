// Whether a mount shows what its upper directory alone doesn't tell: somebody mounted it once with other options than koci's.
import { readFileSync } from 'node:fs'
import { createError, isError } from '../../lib/errors.ts'
import { superOption, type Mount } from '../../lib/fs/mount-table.ts'

/**
 * An upper directory that can't be read may still be shown as it is, by a mount that knows what is in it: then another lister
 * may look at that. One that doesn't hides files, or shows directories as empty.
 */
export function unlessShown(error: unknown, mount: Mount): unknown {
  if (!isError(error, 'UPPER_UNREADABLE')) return error
  const { subject, feature } = error.details
  const value = superOption(mount, String(feature)) ?? 'off'
  const follows =
    value === 'on' || value === 'follow' || (feature === 'redirect_dir' && followsAlways(mount))
  if (follows) return error
  const reason = `${String(feature)} was on when it was changed, and is not where it is mounted now - mount bundles with koci only`
  return createError('ROOTFS_UNREADABLE', { subject, reason }, error)
}

/** A mount of layers that were removed since: all of them look deleted. */
export function layersGone(subject: string, cause: unknown): Error {
  const reason =
    'layers that are mounted there were removed - unmount the bundle, and mount it again'
  return createError('ROOTFS_UNREADABLE', { subject, reason }, cause)
}

/** What is moved is found by a kernel that was built so, but for mounts of user namespaces. */
function followsAlways(mount: Mount): boolean {
  if (
    mount.superOptions.includes('userxattr') ||
    superOption(mount, 'redirect_dir') === 'nofollow'
  )
    return false
  try {
    const file = '/sys/module/overlay/parameters/redirect_always_follow'
    return readFileSync(file, 'latin1').startsWith('Y')
  } catch {
    return false
  }
}
