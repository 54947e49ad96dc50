// What a directory looks like from outside: everything that `ls -ld` and `getfattr` tell of it. Copied from the layers
// below to seams, to the upper root, to rebuilt directories; overlayfs's own attributes are left where they are.
import { readXattrs, type Xattr } from '../../lib/fs/entry-xattrs.ts'
import { cstring, fchmod, fchown, futimens, statx, type Stat } from '../../lib/fs/libc.ts'
import { listXattrs, removeXattr, setXattr } from '../../lib/fs/xattr.ts'
import type { Dialect } from '../../lib/layer/extraction.ts'
import { overlayNamespace } from '../../lib/layer/metadata.ts'

/** Mode, owner, time and attributes of a directory. */
export interface Look extends Pick<Stat, 'mode' | 'uid' | 'gid' | 'mtime'> {
  /** Sorted by name; without overlayfs's own. */
  readonly xattrs: readonly Xattr[]
}

/** What never enters a layer, and so is no change: labels and lists that belong to the machine. */
const machineXattrs = new Set(['security.selinux', 'system.nfs4_acl'])

/** Whether an attribute is overlayfs's own; an image's attribute of such a name is stored under another one. */
export function isPrivateXattr(name: Buffer, dialect: Dialect): boolean {
  const namespace = overlayNamespace(dialect)
  if (namespace === undefined) return false
  const text = name.toString('latin1')
  return text.startsWith(namespace) && !text.startsWith(`${namespace}overlay.`)
}

/** The attributes that count: neither overlayfs's nor the machine's. */
export function countingXattrs(xattrs: readonly Xattr[], dialect: Dialect): readonly Xattr[] {
  return xattrs.filter(
    ([name]) => !machineXattrs.has(name.toString('latin1')) && !isPrivateXattr(name, dialect),
  )
}

/** How an open directory looks; `stat` is what is known of it. */
export function lookOf(fd: number, dialect: Dialect, stat: Stat = statx(fd)): Look {
  const { mode, uid, gid, mtime } = stat
  const xattrs = readXattrs(fd)
  return {
    mode,
    uid,
    gid,
    mtime,
    xattrs: xattrs.length === 0 ? xattrs : countingXattrs(xattrs, dialect),
  }
}

/** Makes an open directory look so; `stat` says who owns it. To be done after everything in it was made. */
export function dress(fd: number, look: Look, dialect: Dialect, stat: Stat = statx(fd)): void {
  const { uid, gid } = stat
  if (uid !== look.uid || gid !== look.gid) fchown(fd, look.uid, look.gid)
  fchmod(fd, look.mode & 0o7777)
  // what the directory above handed down isn't the image's
  for (const name of listXattrs(fd)) {
    const isKept =
      isPrivateXattr(name, dialect) ||
      machineXattrs.has(name.toString('latin1')) ||
      look.xattrs.some(([wanted]) => wanted.equals(name))
    if (!isKept) removeXattr(fd, name)
  }
  for (const [name, value] of look.xattrs) setXattr(fd, name, value)
  futimens(fd, look.mtime, look.mtime)
}

/** Whether two look the same. */
export function isSameLook(one: Look, other: Look): boolean {
  return (
    one.mode === other.mode &&
    one.uid === other.uid &&
    one.gid === other.gid &&
    one.mtime === other.mtime &&
    isSameXattrs(one.xattrs, other.xattrs)
  )
}

/** Whether two sorted lists of attributes are the same. */
export function isSameXattrs(one: readonly Xattr[], other: readonly Xattr[]): boolean {
  return (
    one.length === other.length &&
    one.every(([name, value], at) => {
      const [otherName, otherValue] = other[at] as Xattr
      return name.equals(otherName) && value.equals(otherValue)
    })
  )
}

/** The attribute that makes overlayfs leave whiteouts out of a listing, in a directory that is in one layer only. */
export function originXattr(dialect: Dialect): Buffer {
  return cstring(`${overlayNamespace(dialect) ?? ''}origin`).subarray(0, -1)
}
