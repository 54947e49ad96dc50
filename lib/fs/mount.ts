// Mounting overlays. The kernel errs silently here: mount(2) cuts options at a page, the 501st `lowerdir+` is refused and
// the rest mounted all the same, an upper that got lost makes a read-only mount. So each call is checked, and in the end the
// mount itself. Everything is attached by descriptor: a path could lead elsewhere by then.
import { readFileSync } from 'node:fs'
import { release } from 'node:os'
import { createError, wrapError } from '../errors.ts'
import {
  close,
  cstring,
  errno,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  openat,
  SystemCallError,
} from './libc.ts'
import * as calls from './mount-calls.ts'
import { countLowers, mountAt, superOption, usersOf, type Mount } from './mount-table.ts'
import { readPrivileges } from './privileges.ts'
import { AT_FDCWD } from './syscall.ts'

/** More the kernel can't stack. */
export const maxLowers = 500
/** Well within a page, at which mount(2) cuts. */
const maxOptions = 4000
const maxValue = 255
const backslash = 0x5c
const comma = 0x2c
const colon = 0x3a

/** What overlays are made with: other mounts are none of koci's. */
export const mountSource = 'koci'

/** What an overlay is made of. Names are bytes or text; they are resolved against the working directory. */
export interface OverlayLayers {
  /** Topmost first, 1 to 500. */
  readonly lowers: readonly (Buffer | string)[]
  /** Where changes go; without it the mount is read-only. */
  readonly upper?: Buffer | string | undefined
  /** Empty, and on the same file system as `upper`. */
  readonly work?: Buffer | string | undefined
  /** The overlay's own attributes are `user.overlay.*`: what a user namespace needs. @default false */
  readonly userxattr?: boolean | undefined
  /** Nothing is synced, and what was written is worthless after a crash. @default false */
  readonly volatile?: boolean | undefined
}

/** An overlay to mount. */
export interface OverlayMount extends OverlayLayers {
  /** An existing directory, no symlink. */
  readonly target: string
  /** Through which calls; `auto` takes the classic one where the kernel lacks what the new ones need. @default 'auto' */
  readonly api?: 'auto' | 'new' | 'classic' | undefined
}

/**
 * Mounts an overlay, with `index`, `redirect_dir` and `metacopy` off, so that the upper directory can be read as it is.
 * What is mounted has every lower directory and can be written to, or nothing is.
 * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED, before anything is done; {SystemError} ERR_KOCI_MOUNT_FAILED with what
 * the kernel says
 */
export function mountOverlay(overlay: OverlayMount): Mount {
  const { lowers, target, upper, api = 'auto' } = overlay
  assertCanStack(overlay, target)
  const directory = openTarget(target)
  try {
    if (api === 'classic' || !tryMount(overlay, directory, api))
      mountClassic(overlay, directory)
  } finally {
    close(directory)
  }
  const mount = mountAt(target)
  const reason = whatIsWrong(mount, lowers.length, upper !== undefined)
  if (mount && reason === undefined) return mount
  if (mount) unmount(target)
  throw createError('MOUNT_FAILED', { subject: target, reason })
}

/** An overlay that is mounted nowhere. */
export interface DetachedOverlay extends OverlayLayers {
  /** For errors. */
  readonly subject: string
  /** Gives an existing directory. The classic call can't do without one; nothing is mounted there afterwards. */
  readonly spare: () => string
  readonly api?: OverlayMount['api']
}

/**
 * An overlay that is mounted nowhere: it can be reached through its descriptor only, and is gone with the process at the
 * latest. The caller closes it. On kernels before Linux 6.7 it hangs at the spare directory for a moment.
 * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED; {SystemError} ERR_KOCI_MOUNT_FAILED with what the kernel says
 */
export function openOverlay(overlay: DetachedOverlay): number {
  const { subject, spare, api = 'auto' } = overlay
  assertCanStack(overlay, subject)
  const mount = api === 'classic' ? undefined : tryDetached(overlay, subject, api)
  return mount ?? cloneClassic({ ...overlay, target: spare() })
}

/** Mounts, takes a copy that hangs nowhere, and unmounts. */
function cloneClassic(overlay: OverlayMount): number {
  const { target } = overlay
  mountOverlay({ ...overlay, api: 'classic' })
  let mount: number | undefined
  try {
    try {
      mount = cloneAt(target)
    } finally {
      unmount(target)
    }
    return mount
  } catch (error) {
    if (mount !== undefined) close(mount)
    throw error
  }
}

function cloneAt(target: string): number {
  const directory = openTarget(target)
  try {
    const mount = calls.cloneMount(directory)
    if (mount < 0) throw refused(target, mount, 'open_tree', [])
    return mount
  } finally {
    close(directory)
  }
}

function assertCanStack({ lowers }: OverlayLayers, subject: string): void {
  if (lowers.length <= maxLowers) return
  throw createError('LIMIT_EXCEEDED', {
    subject,
    limit: 'number of lower directories',
    value: lowers.length,
    maximum: maxLowers,
  })
}

/**
 * What this process lacks to mount overlays, for people; undefined if nothing is known to be missing. Nothing is made for
 * finding out; the file system of the upper directory can still turn out not to do.
 */
export function overlayObstacle(): string | undefined {
  const context = calls.fsopen(cstring('overlay'))
  if (context >= 0) close(context)
  if (context === -errno.EPERM)
    return 'CAP_SYS_ADMIN in the user namespace that owns the mount namespace'
  if (context === -errno.ENODEV || (context === -errno.ENOSYS && !isRegistered()))
    return 'a kernel with overlayfs'
  if (readPrivileges().inUserNamespace && !isAtLeast(5, 11))
    return 'Linux 5.11, where they are to be mounted in a user namespace'
  return undefined
}

/**
 * Unmounts what is mounted topmost at a directory.
 * @throws {ConflictError} ERR_KOCI_MOUNT_BUSY while it is in use; {SystemError} ERR_KOCI_IO
 */
export function unmount(target: string | Uint8Array): void {
  const code = calls.umount(cstring(target))
  if (code === 0) return
  const cause = new SystemCallError(code, 'umount2', target)
  if (code !== -errno.EBUSY) throw wrapError(cause, target)
  const users = usersOf(target).join(', ') || 'something that is not visible from here'
  throw createError('MOUNT_BUSY', { subject: target, users }, cause)
}

function openTarget(target: string): number {
  try {
    return openat(AT_FDCWD, cstring(target), O_PATH | O_DIRECTORY | O_NOFOLLOW)
  } catch (error) {
    throw wrapError(error, target)
  }
}

/** By the new calls; false where this kernel lacks them. */
function tryMount(overlay: OverlayMount, directory: number, api: 'auto' | 'new'): boolean {
  const { target } = overlay
  const mount = tryDetached(overlay, target, api)
  if (mount === undefined) return false
  try {
    const attached = calls.attachMount(mount, directory)
    if (attached < 0) throw refused(target, attached, 'move_mount', [])
    return true
  } finally {
    close(mount)
  }
}

/** A mount that hangs nowhere yet; undefined where this kernel lacks the new calls. */
function tryDetached(
  overlay: OverlayLayers,
  subject: string,
  api: 'auto' | 'new',
): number | undefined {
  const context = calls.fsopen(cstring('overlay'))
  if (context === -errno.ENOSYS && api === 'auto') return undefined
  if (context < 0) throw refused(subject, context, 'fsopen', [])
  const layers: number[] = []
  try {
    const fail = (code: number, call: string): never => {
      throw refused(subject, code, call, messagesOf(context))
    }
    // the code of a refusal, where it is one by a kernel that is too old
    const isOld = (code: number): boolean =>
      (code === -errno.EINVAL || code === -errno.ENOTSUP) &&
      api === 'auto' &&
      !knowsSingleLowers()
    for (const [key, value] of optionsOf(overlay)) {
      const code =
        value === undefined
          ? calls.setFlag(context, cstring(key))
          : setValue(context, key, value, layers)
      if (isOld(code)) return undefined
      if (code < 0) fail(code, `fsconfig ${key}`)
    }
    const created = calls.createFileSystem(context)
    if (isOld(created)) return undefined
    if (created < 0) fail(created, 'fsconfig')
    const mount = calls.fsmount(context)
    if (mount < 0) fail(mount, 'fsmount')
    return mount
  } finally {
    for (const fd of layers) close(fd)
    close(context)
  }
}

/** In the order in which they are set: what is wanted of the stack, then its directories, the upper ones first. */
function* optionsOf(overlay: OverlayLayers): Generator<[key: string, value?: Buffer]> {
  yield ['source', Buffer.from(mountSource)]
  if (overlay.userxattr) yield ['userxattr']
  if (overlay.volatile) yield ['volatile']
  for (const key of ['index', 'metacopy']) yield [key, Buffer.from('off')]
  // with userxattr the kernel refuses to hear `off`, though that is what it does
  yield ['redirect_dir', Buffer.from(overlay.userxattr ? 'nofollow' : 'off')]
  if (overlay.upper !== undefined) yield ['upperdir', bytesOf(overlay.upper)]
  if (overlay.work !== undefined) yield ['workdir', bytesOf(overlay.work)]
  for (const lower of overlay.lowers) yield ['lowerdir+', bytesOf(lower)]
}

/** A path that doesn't fit is given as a descriptor, or (before Linux 6.13) as a path through one. */
function setValue(context: number, key: string, value: Buffer, layers: number[]): number {
  const name = cstring(key)
  // upper and work directories go through an unescaping that single lowers are spared
  const isUnescaped = key === 'upperdir' || key === 'workdir'
  const text = isUnescaped ? escape(value, [backslash]) : value
  if (text.length <= maxValue) return calls.setString(context, name, cstring(text))
  const fd = openat(AT_FDCWD, cstring(value), O_RDONLY | O_DIRECTORY)
  layers.push(fd)
  const code = calls.setDescriptor(context, name, fd)
  // the legacy way, which overlayfs left with Linux 6.5, has a code of its own for descriptors
  if (code !== -errno.EINVAL && code !== -errno.ENOTSUP) return code
  return calls.setString(context, name, cstring(`/proc/self/fd/${fd}`))
}

function mountClassic(overlay: OverlayMount, directory: number): void {
  const { target } = overlay
  const options = classicOptions(overlay)
  if (options.length > maxOptions) {
    const reason = `its options have ${options.length} bytes, this kernel takes ${maxOptions} - use shorter paths, fewer layers, or Linux 6.8`
    throw createError('MOUNT_FAILED', { subject: target, reason })
  }
  const type = cstring('overlay')
  const at = cstring(`/proc/self/fd/${directory}`)
  const code = calls.classicMount(cstring(mountSource), at, type, cstring(options))
  if (code < 0) throw refused(target, code, 'mount', [])
}

function classicOptions(overlay: OverlayMount): Buffer {
  const parts: Buffer[] = []
  const lowers: Buffer[] = []
  for (const [key, value] of optionsOf(overlay)) {
    if (key === 'source') continue
    if (key === 'lowerdir+') lowers.push(escape(value as Buffer, [backslash, comma, colon]))
    else if (value === undefined) parts.push(Buffer.from(key))
    else parts.push(Buffer.concat([Buffer.from(`${key}=`), escape(value, [backslash, comma])]))
  }
  parts.push(Buffer.concat([Buffer.from('lowerdir='), join(lowers, ':')]))
  return join(parts, ',')
}

function whatIsWrong(
  mount: Mount | undefined,
  lowers: number,
  isWritable: boolean,
): string | undefined {
  if (mount?.type !== 'overlay') return 'it is not there after it was mounted'
  const found = countLowers(mount)
  if (found !== lowers) return `the kernel stacked ${found} of ${lowers} lower directories`
  const isReadOnly = [...mount.options, ...mount.superOptions].includes('ro')
  const hasUpper = superOption(mount, 'upperdir') !== undefined
  if (isWritable && (isReadOnly || !hasUpper)) return 'the kernel made it read-only'
  return undefined
}

function refused(
  target: string,
  code: number,
  call: string,
  messages: readonly string[],
): Error {
  const cause = new SystemCallError(code, call)
  const reason = [cause.message, ...messages].join('; ')
  return createError('MOUNT_FAILED', { subject: target, reason }, cause)
}

/** What the kernel has to say about a context; each message begins with its kind, as in `e `. */
function messagesOf(context: number): string[] {
  const buffer = Buffer.alloc(1024)
  const messages: string[] = []
  for (;;) {
    const length = calls.readLog(context, buffer)
    if (length <= 0) return messages
    messages.push(buffer.toString('utf8', 2, length).trim())
  }
}

/** `lowerdir+` came with Linux 6.7; whoever is older says EINVAL to it, at once or in the end. */
function knowsSingleLowers(): boolean {
  return isAtLeast(6, 7)
}

function isAtLeast(wantedMajor: number, wantedMinor: number): boolean {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
}

function isRegistered(): boolean {
  return /\toverlay$/m.test(readFileSync('/proc/filesystems', 'latin1'))
}

function escape(bytes: Buffer, special: readonly number[]): Buffer {
  const result: number[] = []
  for (const byte of bytes) {
    if (special.includes(byte)) result.push(backslash)
    result.push(byte)
  }
  return Buffer.from(result)
}

function join(parts: readonly Buffer[], separator: string): Buffer {
  const between = Buffer.from(separator)
  return Buffer.concat(parts.flatMap((part, at) => (at === 0 ? [part] : [between, part])))
}

function bytesOf(name: Buffer | string): Buffer {
  return typeof name === 'string' ? Buffer.from(name) : name
}
