// Names of layer entries, made plain: one rule for every name and every hard link target.
// Lexical only, on bytes; what a component is on disk (a symlink, say) is for whoever applies the entry.
import { createError } from '../errors.ts'

const nul = 0x00
const dot = 0x2e
const slash = 0x2f

/**
 * The name of an entry relative to the root: no leading, trailing or doubled slash, no `.` and no `..`; the root
 * itself is the empty Buffer. Whatever the bytes, no component of the result is `.` or `..`.
 *
 * What is returned shares memory with a name that is nearly clean already. `a/../b` is `b`, as in Go's `path.Clean`.
 * With `clamp`, a `..` at the root stays there, as in umoci and containerd.
 * @throws {BreakoutError} ERR_KOCI_PATH_ESCAPE where `..` climbs above the root
 * @throws {FormatError} ERR_KOCI_INVALID_ENTRY where the name holds a NUL byte
 */
export function cleanPath(raw: Buffer, clamp = false): Buffer {
  const trimmed = trim(raw)
  return isClean(trimmed) ? trimmed : rebuild(raw, clamp)
}

/** Without what most names have that aren't clean: `./` at the beginning, and the slash that ends a directory's. */
function trim(raw: Buffer): Buffer {
  const start = raw[0] === dot && raw[1] === slash ? 2 : 0
  const end = raw[raw.length - 1] === slash ? raw.length - 1 : raw.length
  return start > 0 || end < raw.length ? raw.subarray(start, end) : raw
}

function isClean(raw: Buffer): boolean {
  let start = 0
  for (let at = 0; at <= raw.length; at++) {
    const byte = at === raw.length ? slash : (raw[at] as number)
    if (byte === nul) return false
    if (byte !== slash) continue
    if (isSpecial(raw, start, at)) return raw.length === 0
    start = at + 1
  }
  return true
}

/** An empty component, `.` or `..`. */
function isSpecial(raw: Buffer, start: number, end: number): boolean {
  const length = end - start
  return (
    length === 0 ||
    (length <= 2 && raw[start] === dot && (length === 1 || raw[start + 1] === dot))
  )
}

function rebuild(raw: Buffer, clamp: boolean): Buffer {
  if (raw.includes(nul))
    throw createError('INVALID_ENTRY', { subject: raw, reason: 'its name holds a NUL byte' })
  const clean = Buffer.allocUnsafe(raw.length)
  const starts: number[] = []
  let length = 0
  for (let start = 0, end = 0; start <= raw.length; start = end + 1) {
    end = raw.indexOf(slash, start)
    if (end < 0) end = raw.length
    if (!isSpecial(raw, start, end)) {
      starts.push(length)
      if (length > 0) clean[length++] = slash
      length += raw.copy(clean, length, start, end)
    } else if (end - start === 2) {
      const last = starts.pop()
      if (last === undefined && !clamp)
        throw createError('PATH_ESCAPE', { subject: raw, reason: '".." climbs above the root' })
      length = last ?? 0
    }
  }
  return clean.subarray(0, length)
}
