// The mount at `<bundle>/rootfs`: made, recognized, taken down.
import { existsSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import type { Context } from '../../lib/context.ts'
import { createError, wrapError } from '../../lib/errors.ts'
import { close, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, open } from '../../lib/fs/libc.ts'
import { mountOverlay, mountSource, unmount } from '../../lib/fs/mount.ts'
import {
  holdersOf,
  mountAt,
  superOption,
  usersOfUpper,
  type Holder,
  type Mount,
} from '../../lib/fs/mount-table.ts'
import { isUpperInUse } from '../../lib/fs/upper-in-use.ts'
import { assertNothingBeneath } from './beneath.ts'
import type { Home } from './home.ts'
import { dress } from './look.ts'
import { planStack, type Stack } from './stack.ts'

/**
 * Mounts the bundle's layers, unless they are mounted already. A mount of layers that were removed since shows nothing of them:
 * it is made anew.
 * @throws {SystemError} ERR_KOCI_MOUNT_FAILED; {LimitError} ERR_KOCI_LIMIT_EXCEEDED for more than 500 layers
 */
export function mountRootfs(context: Context, home: Home): void {
  const { rootfs, layers, extraction } = context
  const mount = findMount(rootfs, home)
  if (mount) {
    if (home.hasLowers(layers)) return
    assertFree(mount, rootfs)
    unmount(rootfs)
  } else if (!home.isTakenDown) assertNothingBeneath(rootfs)
  assertUpperFree(home, rootfs)
  dropStale(context, home)
  const stack = planStack(layers, extraction, home)
  makeUpper(home, stack, context)
  home.noteLowers(stack.dirs)
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
export function unmountRootfs({ rootfs, bundle }: Context, home: Home): void {
  const mount = findMount(rootfs)
  if (!mount) return
  // what an unpack that failed had mounted goes away with its bundle
  if (!bundle.hasClaimed('rootfs')) assertFree(mount, rootfs)
  try {
    unmount(rootfs)
  } catch (error) {
    // somebody else was quicker
    if (findMount(rootfs)) throw error
  }
  home.isTakenDown = true
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
  const users = describeHolders(holdersOf(mount))
  if (users !== '') throw createError('MOUNT_BUSY', { subject: rootfs, users })
}

/**
 * The same of a mount that isn't to be seen from here: in another mount namespace, moved, or unmounted while it was used.
 * What was unmounted just now may take a moment.
 * @throws {ConflictError} ERR_KOCI_MOUNT_BUSY
 */
export function assertUpperFree(home: Home, rootfs: string): void {
  if (!home.wasMounted(home.upperNumber) || !existsSync(home.upper)) return
  for (let tries = 0; isUpperInUse(home.upper, home.empty); tries++) {
    if (tries < 20) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50)
      continue
    }
    const known = describeHolders(usersOfUpper(home.upper))
    const users =
      known || 'a mount that cannot be seen from here, such as that of another mount namespace'
    throw createError('MOUNT_BUSY', { subject: rootfs, users })
  }
}

function describeHolders(holders: readonly Holder[]): string {
  return holders
    .slice(0, 5)
    .map(({ pid, namespace }) => `process ${pid} in mount namespace ${namespace}`)
    .join(', ')
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
