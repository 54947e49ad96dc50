// Owners, attributes and times of what a layer writes, with the exceptions that ordinary users and user namespaces need.
// Order matters: chown clears setuid bits and capabilities, so it comes first, then the mode, attributes, times.
import { createError } from '../errors.ts'
import { cstring, errno, SystemCallError, type CString } from '../fs/libc.ts'
import type { Privileges } from '../fs/privileges.ts'
import { tryStat } from '../fs/stat.ts'
import { removexattr, setxattr, type XattrTarget } from '../fs/xattr-calls.ts'
import { listXattrs } from '../fs/xattr.ts'
import { toHost, type IdMap } from '../oci/idmap.ts'
import { printable } from '../text.ts'
import type { Dialect } from './extraction.ts'
import { encodeRootlessOwner, rootlessXattr } from './rootless-owner.ts'
import type { TarHeader } from './tar-header.ts'
import type { Warnings } from './warnings.ts'

/** Whose files become: ids of the container are mapped, undefined maps meaning identity; rootless, they are only noted. */
export interface MetadataOptions {
  readonly uidMap?: readonly IdMap[] | undefined
  readonly gidMap?: readonly IdMap[] | undefined
  readonly rootless: boolean
  /** Whose xattr namespace is overlayfs's own. @default 'plain': nobody's */
  readonly dialect?: Dialect | undefined
  /** Entries come from a stored tree: their ids are the host's, their attributes are to be as they are. */
  readonly stored?: boolean | undefined
}

type Xattrs = TarHeader['xattrs']

// never written, never removed: they belong to the host
const masked = new Set(['security.selinux', 'system.nfs4_acl'])
// what others keep the owners of ordinary users' files in
const fakeOwners = /^user\.(?:rootlesscontainers|containers\.override_stat|fuseoverlayfs\..*)$/
const capability = 'security.capability'
const defaultAcl = 'system.posix_acl_default'
const SECOND = 1_000_000_000n
// 2038
const EVERYWHERE_STORABLE = 2n ** 31n * SECOND

/** Applies metadata on behalf of one extraction. */
export class Metadata {
  readonly #options: MetadataOptions
  readonly #privileges: Privileges
  readonly #warnings: Warnings
  /** Entries get their attributes as they are. */
  readonly #verbatim: boolean
  /** Attributes that begin so mean something to overlayfs. */
  readonly #reserved: string | undefined
  // the last owner: entries come in runs of the same
  #lastUid = -1
  #lastGid = -1
  /** The host's ids for the entry of the last `setOwner()`. */
  uid = 0
  gid = 0

  constructor(options: MetadataOptions, privileges: Privileges, warnings: Warnings) {
    this.#options = options
    this.#privileges = privileges
    this.#warnings = warnings
    this.#reserved = overlayNamespace(options.dialect)
    this.#verbatim =
      options.stored === true || (!options.rootless && this.#reserved === undefined)
  }

  /** Finds out who is to own an entry; `uid` and `gid` say so afterwards. Rootless, that is always us. */
  setOwner(uid: number, gid: number, subject: Buffer): void {
    if (uid === this.#lastUid && gid === this.#lastGid) return
    if (this.#options.stored === true) {
      this.uid = uid
      this.gid = gid
    } else if (this.#options.rootless) {
      this.uid = this.#privileges.uid
      this.gid = this.#privileges.gid
    } else {
      this.uid = mapped(this.#options.uidMap, uid, 'uid', subject)
      this.gid = mapped(this.#options.gidMap, gid, 'gid', subject)
    }
    this.#lastUid = uid
    this.#lastGid = gid
  }

  /** The attributes that an entry is to have; rootless, its owner becomes one. */
  xattrsOf(header: TarHeader): Xattrs {
    if (this.#verbatim) return header.xattrs
    let { xattrs } = header
    const reserved = this.#reserved
    if (reserved !== undefined && xattrs.length > 0)
      xattrs = xattrs.map(xattr => escaped(xattr, reserved))
    if (!this.#options.rootless) return xattrs
    const owner = encodeRootlessOwner(header.uid, header.gid)
    if (owner === undefined && xattrs.length === 0) return xattrs
    // a layer's own would let it choose what repack, or a runtime, takes for the owner
    const kept = xattrs.filter(([name]) => !this.#isFakeOwner(name, header))
    return owner === undefined ? kept : [...kept, [rootlessXattr, owner]]
  }

  #isFakeOwner(name: Buffer, { rawPath }: TarHeader): boolean {
    const text = name.toString('latin1')
    if (!fakeOwners.test(text)) return false
    const message = `attribute ${printable(name)} would say that the file has another owner`
    this.#warnings.add('IGNORED_XATTR', message, rawPath)
    return true
  }

  /** Whether what we make belongs to the right owner by itself. */
  get isOwn(): boolean {
    return this.uid === this.#privileges.uid && this.gid === this.#privileges.gid
  }

  /** Rootless, nothing is ever chowned. */
  needsChown(uid: number, gid: number): boolean {
    return !this.#options.rootless && (uid !== this.uid || gid !== this.gid)
  }

  /** Sets attributes; what the file system or an ordinary user can't have is a warning. `special`: symlinks, fifos and devices. */
  setXattrs(target: XattrTarget, xattrs: Xattrs, special: boolean, subject: Buffer): void {
    for (const [name, value] of xattrs) {
      const text = name.toString('latin1')
      if (masked.has(text)) {
        this.#warnings.add('IGNORED_XATTR', `attribute ${text} is left to the host`, subject)
        continue
      }
      // the kernel takes an empty one, and can't read it ever after
      const isBroken = value.length === 0 && text === capability
      const code = isBroken ? -errno.EINVAL : setxattr(target, cstring(name), value)
      if (code < 0) this.#setFailed(code, name, special, subject)
    }
  }

  #setFailed(code: number, name: Buffer, special: boolean, subject: Buffer): void {
    if (code === -errno.ENOTSUP) {
      const message = 'the file system has no such attributes; they are left out'
      this.#warnings.add('XATTRS_UNSUPPORTED', message, subject)
      return
    }
    const { rootless } = this.#options
    const lenient = special || rootless || this.#privileges.inUserNamespace
    if (code !== -errno.EPERM || !lenient) throw new SystemCallError(code, 'setxattr', name)
    if (special && name.equals(rootlessXattr)) return // no such file can have it
    const message = `attribute ${printable(name)} was refused`
    this.#warnings.add('XATTR_REFUSED', message, subject)
  }

  /** Removes attributes that are not among these; those that we may not remove stay. */
  clearXattrs(target: XattrTarget, kept: Xattrs): void {
    for (const name of listXattrs(target)) {
      if (masked.has(name.toString('latin1'))) continue
      if (kept.some(([key]) => key.equals(name))) continue
      const code = removexattr(target, cstring(name))
      const harmless = [-errno.EPERM, -errno.ENODATA, -errno.ENOTSUP].includes(code)
      if (code < 0 && !harmless) throw new SystemCallError(code, 'removexattr', name)
    }
  }

  /**
   * The time that a file system made of one that was just set; a warning if that is another. Only those that some file
   * systems can't hold are looked up.
   */
  storedTime(
    wanted: bigint,
    fd: number,
    name: CString | undefined,
    subject: () => Buffer,
  ): bigint {
    if (wanted >= 0n && wanted < EVERYWHERE_STORABLE) return wanted
    const stat = tryStat(fd, name)
    if (typeof stat === 'number') throw new SystemCallError(stat, 'statx', name)
    const difference = stat.mtime - wanted
    if (difference <= -SECOND || difference >= SECOND)
      this.#warnings.add('TIME_CLAMPED', 'the file system cannot hold its mtime', subject())
    return stat.mtime
  }

  /** Whether files made in this directory get an ACL from it. */
  inheritsAcl(fd: number): boolean {
    return listXattrs(fd).some(name => name.toString('latin1') === defaultAcl)
  }
}

/** What the names of overlayfs's own attributes begin with; it shows `X` where `overlay.X` is stored behind that. */
export function overlayNamespace(dialect: Dialect = 'plain'): string | undefined {
  if (dialect === 'plain') return undefined
  return dialect === 'overlay-trusted' ? 'trusted.overlay.' : 'user.overlay.'
}

function escaped(xattr: Xattrs[number], reserved: string): Xattrs[number] {
  const [name, value] = xattr
  const length = reserved.length
  if (name.toString('latin1', 0, length) !== reserved) return xattr
  return [Buffer.concat([Buffer.from(`${reserved}overlay.`), name.subarray(length)]), value]
}

function mapped(
  maps: readonly IdMap[] | undefined,
  id: number,
  kind: string,
  subject: Buffer,
): number {
  try {
    return toHost(maps, id)
  } catch (error) {
    const held = maps?.map(
      ({ containerID, size }) => `${containerID}-${containerID + size - 1}`,
    )
    const reason = `no id map holds its ${kind} ${id}; they hold ${held?.join(', ')}`
    throw createError('INVALID_ENTRY', { subject, reason }, error)
  }
}
