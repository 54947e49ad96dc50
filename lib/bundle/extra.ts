// What an entry of a record has beside its columns: few entries have any of it. Stored one after the other.
import type { Xattr } from '../fs/entry-xattrs.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../fs/libc.ts'

/** What an entry can have beside the fixed columns. */
export interface Extra {
  /** Target of a symlink. */
  readonly rawLinkname?: Buffer | undefined
  /** Numbers of a device node. */
  readonly device?: readonly [major: number, minor: number] | undefined
  /** In the order in which they were listed. */
  readonly xattrs?: readonly Xattr[] | undefined
}

/**
 * Which extended attributes go-mtree, and so umoci, tracks: all, or none if their list or one value is over
 * 1024 bytes, and none of anything but files and directories. What mtree text holds is compared by this rule.
 */
export function trackedXattrs(mode: number, xattrs: readonly Xattr[]): readonly Xattr[] {
  const type = mode & S_IFMT
  if (type !== S_IFREG && type !== S_IFDIR) return []
  let listBytes = 0
  for (const [name, value] of xattrs) {
    listBytes += name.length + 1
    if (value.length > 1024) return []
  }
  return listBytes > 1024 ? [] : xattrs
}

/** Bytes that an entry's extra takes. */
export function extraLength(extra: Extra): number {
  let length = 4 + (extra.device ? 8 : (extra.rawLinkname?.length ?? 0))
  for (const [name, value] of extra.xattrs ?? []) length += 6 + name.length + value.length
  return length
}

/** Writes an extra, `extraLength` bytes, and returns its end. */
export function writeExtra(extra: Extra, target: Buffer, at: number): number {
  const { rawLinkname, device, xattrs = [] } = extra
  at = target.writeUInt16LE(device ? 8 : (rawLinkname?.length ?? 0), at)
  if (device) at = target.writeUInt32LE(device[1], target.writeUInt32LE(device[0], at))
  else if (rawLinkname) at += rawLinkname.copy(target, at)
  at = target.writeUInt16LE(xattrs.length, at)
  for (const [name, value] of xattrs) {
    at = target.writeUInt32LE(value.length, target.writeUInt16LE(name.length, at))
    at += name.copy(target, at)
    at += value.copy(target, at)
  }
  return at
}

/** Reads an extra that starts at `at`; the Buffers share the memory. */
export function readExtra(extras: Buffer, at: number, mode: number): Extra {
  const linkLength = extras.readUInt16LE(at)
  at += 2
  const link = extras.subarray(at, at + linkLength)
  at += linkLength
  const xattrs: Xattr[] = []
  const count = extras.readUInt16LE(at)
  at += 2
  for (let i = 0; i < count; i++) {
    const nameEnd = at + 6 + extras.readUInt16LE(at)
    const valueEnd = nameEnd + extras.readUInt32LE(at + 2)
    xattrs.push([extras.subarray(at + 6, nameEnd), extras.subarray(nameEnd, valueEnd)])
    at = valueEnd
  }
  const type = mode & S_IFMT
  if (type === S_IFLNK) return { rawLinkname: link, xattrs }
  if ((type === S_IFCHR || type === S_IFBLK) && linkLength === 8)
    return { device: [link.readUInt32LE(0), link.readUInt32LE(4)], xattrs }
  return { xattrs }
}
