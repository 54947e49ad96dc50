// What a system call may be given. koffi takes NaN for 0 and cuts 1.5 to 1: a wrong descriptor would silently be another one.
// All of it fails with ERR_KOCI_INVALID_OPTION, because only our own mistakes get here.
import { createError } from '../errors.ts'

export const AT_FDCWD = -100

/** A NUL-terminated name; only `cstring()` makes one. */
export type CString = Buffer & { readonly __cstring: true }

/** Makes a NUL-terminated name. A NUL inside is refused with ERR_KOCI_INVALID_OPTION, as it would cut the name short. */
export function cstring(bytes: Uint8Array | string): CString {
  const source = typeof bytes === 'string' ? Buffer.from(bytes) : bytes
  const { length } = source
  const result = Buffer.allocUnsafe(length + 1)
  result.set(source)
  result[length] = 0
  if (result.indexOf(0) !== length)
    throw createError('INVALID_OPTION', { subject: source, reason: 'a name holds a NUL byte' })
  return result as CString
}

export function refuse(what: string, value: unknown): never {
  throw createError('INVALID_OPTION', { subject: what, reason: `not usable: ${String(value)}` })
}

export function checkFd(fd: number): void {
  if ((fd | 0) !== fd || fd < 0) refuse('descriptor', fd)
}

export function checkDirfd(fd: number): void {
  if ((fd | 0) !== fd || (fd < 0 && fd !== AT_FDCWD)) refuse('directory descriptor', fd)
}

export function checkName(name: CString): void {
  if (name[name.length - 1] !== 0) refuse('name without terminating NUL', name.length)
}

export function checkUint(what: string, value: number): void {
  if (value >>> 0 !== value) refuse(what, value)
}

export function checkCount(what: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) refuse(what, value)
}

export function checkRange(buffer: Uint8Array, length: number): void {
  if (!Number.isSafeInteger(length) || length < 0 || length > buffer.length)
    refuse('length', length)
}

/** (uid_t)-1 means "unchanged" to the kernel, so it is refused here. */
export function checkID(what: string, id: number): void {
  if (id >>> 0 !== id || id === 0xffffffff) refuse(what, id)
}
