// Extended attributes, of open files and of names that are not followed.
// The latter go through /proc/self/fd/N/name: exactly one component after the descriptor.
import { check } from './libc.ts'
import { cstring, errno, type CString } from './syscall.ts'
import * as calls from './xattr-calls.ts'
import type { XattrTarget } from './xattr-calls.ts'

export type { XattrTarget } from './xattr-calls.ts'

/** A name inside an open directory, as a target for the functions here; the name is one component. */
export function xattrTarget(dirfd: number, name: CString): XattrTarget {
  const prefix = Buffer.from(`/proc/self/fd/${dirfd}/`)
  return Buffer.concat([prefix, name]) as CString
}

/** Names of all attributes that the process may see, none where the file system has no attributes. */
export function listXattrs(target: XattrTarget): Buffer[] {
  for (let size = 1024; ; size *= 4) {
    const list = Buffer.allocUnsafe(Math.min(size, 65536))
    const length = calls.listxattr(target, list)
    if (length === -errno.ENOTSUP) return []
    if (length === -errno.ERANGE && size < 65536) continue
    check(length, 'listxattr')
    return split(list.subarray(0, length))
  }
}

/** The value, or undefined where there is no such attribute. */
export function getXattr(target: XattrTarget, name: Uint8Array): Buffer | undefined {
  const attribute = cstring(name)
  for (let size = 256; ; size *= 16) {
    const value = Buffer.allocUnsafe(Math.min(size, 65536))
    const length = calls.getxattr(target, attribute, value)
    if (length === -errno.ENODATA || length === -errno.ENOTSUP) return undefined
    if (length === -errno.ERANGE && size < 65536) continue
    check(length, 'getxattr', attribute)
    return value.subarray(0, length)
  }
}

export function setXattr(target: XattrTarget, name: Uint8Array, value: Uint8Array): void {
  const attribute = cstring(name)
  check(calls.setxattr(target, attribute, value), 'setxattr', attribute)
}

/** Removes; an attribute that isn't there is no error. */
export function removeXattr(target: XattrTarget, name: Uint8Array): void {
  const attribute = cstring(name)
  const code = calls.removexattr(target, attribute)
  if (code !== -errno.ENODATA) check(code, 'removexattr', attribute)
}

function split(list: Buffer): Buffer[] {
  const names: Buffer[] = []
  for (let at = 0; at < list.length;) {
    const end = list.indexOf(0, at)
    names.push(list.subarray(at, end))
    at = end + 1
  }
  return names
}
