// The mount at `<bundle>/rootfs`: made, recognized, taken down.
import { existsSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import type { Context } from '../../lib/context.ts'
import { createError, wrapError } from '../../lib/errors.ts'
import { close, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, open } from '../../lib/fs/libc.ts'
import { mountOverlay, mountSource, unmount } from '../../lib/fs/mount.ts'
import { holdersOf, mountAt, superOption, type Mount } from '../../lib/fs/mount-table.ts'
import type { Home } from './home.ts'
import { dress } from './look.ts'
import { planStack, type Stack } from './stack.ts'

/**
 * Mounts the bundle's layers, unless they are mounted already.
 * @throws {SystemError} ERR_KOCI_MOUNT_FAILED; {LimitError} ERR_KOCI_LIMIT_EXCEEDED for more than 500 layers
 */
export function mountRootfs(context: Context, home: Home): void {
  const { rootfs, layers, extraction } = context
  if (findMount(rootfs, home)) return
  dropStale(context, home)
  const stack = planStack(layers, extraction, home)
  makeUpper(home, stack, context)
  mountOverlay({
    lowers: stack.dirs.length > 0 ? stack.dirs.toReversed() : [home.empty],
    upper: home.upper,
    work: home.work,
    target: rootfs,
    userxattr: extraction.dialect === 'overlay-user',
  })
}

/**
 * Unmounts the rootfs, if it is mounted.
 * @throws {ConflictError} ERR_KOCI_MOUNT_BUSY while somebody uses it, in whichever mount namespace
 */
export function unmountRootfs({ rootfs, bundle }: Context): void {
  const mount = findMount(rootfs)
  if (!mount) return
  // what an unpack that failed had mounted goes away with its bundle
  if (!bundle.hasClaimed('rootfs')) assertFree(mount, rootfs)
  unmount(rootfs)
}

/**
 * The bundle's mount, if it is there; another one is an error: beneath it nothing could be seen. With `home`, so is one with an
 * upper directory that isn't the one that counts.
 */
export function findMount(rootfs: string, home?: Home): Mount | undefined {
  let mount: Mount | undefined
  try {
    mount = mountAt(rootfs)
  } catch (error) {
    throw wrapError(error, rootfs)
  }
  if (!mount) return undefined
  if (mount.type !== 'overlay' || mount.source !== mountSource)
    throw createError('MOUNT_FAILED', {
      subject: rootfs,
      reason: `something else (${mount.type}) is mounted there`,
    })
  // by its name only: a bundle can be moved while it is mounted
  const upper = path.basename(superOption(mount, 'upperdir') ?? '')
  if (home && upper !== path.basename(home.upper))
    throw createError('INVALID_BUNDLE', {
      subject: rootfs,
      reason: `${upper} is mounted there, which isn't the upper directory that counts - unmount it, then mount it again`,
    })
  return mount
}

/**
 * Upper directories that don't count, as koci.json on disk has it: older ones were to be removed; newer ones were begun by a
 * refresh that died, or koci.json is older than they are. Those that were ever mounted are kept.
 */
function dropStale({ warn }: Context, home: Home): void {
  for (const number of home.upperNumbers()) {
    if (number === home.upperNumber || number === home.recordedUpper) continue
    if (number < home.recordedUpper || !home.wasMounted(number)) home.removeUpper(number)
    else
      warn({
        code: 'UPPER_LEFT',
        message: `${home.path}/upper-${number} was in use, and isn't by what koci.json says; what was changed there is in there only`,
      })
  }
}

/**
 * Two mounts with one upper directory would spoil it, and the kernel doesn't stop them.
 * @throws {ConflictError} ERR_KOCI_MOUNT_BUSY
 */
export function assertFree(mount: Mount, rootfs: string): void {
  const users = holdersOf(mount).map(
    ({ pid, namespace }) => `process ${pid} in mount namespace ${namespace}`,
  )
  if (users.length === 0) return
  throw createError('MOUNT_BUSY', { subject: rootfs, users: users.slice(0, 5).join(', ') })
}

/** The upper directory's metadata is what the image's root shows; what the user made of it later stays. */
function makeUpper(home: Home, stack: Stack, { extraction }: Context): void {
  try {
    if (!existsSync(home.work)) mkdirSync(home.work, { mode: 0o700 })
    if (existsSync(home.upper)) return
    mkdirSync(home.upper, { mode: 0o755 })
    const fd = open(home.upper, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
    try {
      dress(fd, stack.root, extraction.dialect)
    } finally {
      close(fd)
    }
  } catch (error) {
    throw wrapError(error, home.upper)
  }
}
