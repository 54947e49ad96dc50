// Extended attributes of a directory's entries, for scans: nearly all entries have none, and that is what is fast.
// listxattrat(2) takes half the time of llistxattr(2) on a path through /proc; kernels before 6.13 don't have it.
import koffi from 'koffi'
import { check } from './libc.ts'
import { errno, type CString } from './syscall.ts'
import { listxattr, type XattrTarget } from './xattr-calls.ts'
import { getXattr, listXattrs } from './xattr.ts'

/** An extended attribute: its whole name, and its value. */
export type Xattr = readonly [name: Buffer, value: Buffer]

const SYS_listxattrat = 465 // on every architecture
const AT_SYMLINK_NOFOLLOW = 0x100
const syscall = koffi
  .load(null)
  .func('syscall', 'long', ['long', 'int', 'void *', 'uint', 'void *', 'size_t']) as (
  ...args: unknown[]
) => number

const list = Buffer.allocUnsafeSlow(1024)
const none: Xattr[] = []
let hasListxattrat = true

/** Reads the attributes of names in open directories; the path through /proc is made once a directory. */
export class XattrReader {
  readonly #target = Buffer.allocUnsafeSlow(8 * 1024)
  #fd = -1
  #prefixLength = 0

  /** The attributes of an entry, which is not followed, sorted by name; none where it is gone. Throws a SystemCallError. */
  of(fd: number, name: CString): Xattr[] {
    if (hasListxattrat) {
      const length = listxattrat(fd, name)
      if (length === 0) return none
    }
    return readXattrs(this.#path(fd, name))
  }

  #path(fd: number, name: CString): CString {
    const target = this.#target
    if (fd !== this.#fd) {
      this.#prefixLength = target.write(`/proc/self/fd/${fd}/`, 'latin1')
      this.#fd = fd
    }
    target.set(name, this.#prefixLength)
    return target.subarray(0, this.#prefixLength + name.length) as CString
  }
}

/** The attributes of an open file or directory, or of a path whose last component isn't followed, sorted by name. */
export function readXattrs(target: XattrTarget): Xattr[] {
  const length = listxattr(target, list)
  if (length === 0 || length === -errno.ENOTSUP || length === -errno.ENOENT) return none
  if (length !== -errno.ERANGE) check(length, 'listxattr')
  const xattrs: Xattr[] = []
  for (const name of listXattrs(target)) {
    const value = getXattr(target, name)
    // copies: what was read lies in larger memory
    if (value) xattrs.push([Buffer.from(name), Buffer.from(value)])
  }
  return xattrs.sort(([a], [b]) => Buffer.compare(a, b))
}

function listxattrat(fd: number, name: CString): number {
  const length = syscall(SYS_listxattrat, fd, name, AT_SYMLINK_NOFOLLOW, list, list.length)
  if (length >= 0) return length
  // whatever was refused, the other way says it in full
  if (koffi.errno() === errno.ENOSYS) hasListxattrat = false
  return -1
}
