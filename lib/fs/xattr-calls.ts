// The calls for extended attributes, as syscall.ts has the others: arguments checked, result `>= 0` or `-errno`.
import koffi from 'koffi'
import { checkFd, checkName, type CString } from './call-arguments.ts'

const libc = koffi.load(null)
type Call = (...args: unknown[]) => number

function declare(name: string, result: string, ...args: string[]): Call {
  return libc.func(name, result, args)
}

const calls = {
  fsetxattr: declare('fsetxattr', 'int', 'int', 'void *', 'void *', 'size_t', 'int'),
  lsetxattr: declare('lsetxattr', 'int', 'void *', 'void *', 'void *', 'size_t', 'int'),
  fgetxattr: declare('fgetxattr', 'long', 'int', 'void *', 'void *', 'size_t'),
  lgetxattr: declare('lgetxattr', 'long', 'void *', 'void *', 'void *', 'size_t'),
  flistxattr: declare('flistxattr', 'long', 'int', 'void *', 'size_t'),
  llistxattr: declare('llistxattr', 'long', 'void *', 'void *', 'size_t'),
  fremovexattr: declare('fremovexattr', 'int', 'int', 'void *'),
  lremovexattr: declare('lremovexattr', 'int', 'void *', 'void *'),
} as const

/** A descriptor, or a path whose last component is not followed. */
export type XattrTarget = number | CString

function checkTarget(target: XattrTarget): void {
  if (typeof target === 'number') checkFd(target)
  else checkName(target)
}

export function setxattr(target: XattrTarget, name: CString, value: Uint8Array): number {
  checkTarget(target)
  checkName(name)
  const result =
    typeof target === 'number'
      ? calls.fsetxattr(target, name, value, value.length, 0)
      : calls.lsetxattr(target, name, value, value.length, 0)
  return result < 0 ? -koffi.errno() : 0
}

export function getxattr(target: XattrTarget, name: CString, value: Uint8Array): number {
  checkTarget(target)
  checkName(name)
  const result =
    typeof target === 'number'
      ? calls.fgetxattr(target, name, value, value.length)
      : calls.lgetxattr(target, name, value, value.length)
  return result < 0 ? -koffi.errno() : result
}

export function listxattr(target: XattrTarget, list: Uint8Array): number {
  checkTarget(target)
  const result =
    typeof target === 'number'
      ? calls.flistxattr(target, list, list.length)
      : calls.llistxattr(target, list, list.length)
  return result < 0 ? -koffi.errno() : result
}

export function removexattr(target: XattrTarget, name: CString): number {
  checkTarget(target)
  checkName(name)
  const result =
    typeof target === 'number'
      ? calls.fremovexattr(target, name)
      : calls.lremovexattr(target, name)
  return result < 0 ? -koffi.errno() : 0
}
