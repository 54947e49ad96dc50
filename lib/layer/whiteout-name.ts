// Names of whiteouts, as in the image-spec's layer.md. What they do is in `whiteouts.ts`.
import { createError } from '../errors.ts'

const prefix = Buffer.from('.wh.')
const opaqueRest = Buffer.from('.wh..opq')
const dot = 0x2e

/** What a whiteout says: a name to delete, everything in the directory, or nothing that is understood. */
export type Whiteout =
  | { readonly kind: 'whiteout'; readonly name: Buffer }
  | { readonly kind: 'opaque' }
  | { readonly kind: 'ignored' }

/** Whether the last component of a clean path, beginning at `start`, is a whiteout's. */
export function isWhiteout(path: Buffer, start: number): boolean {
  return (
    path.length >= start + 4 &&
    path[start] === dot &&
    path[start + 1] === 0x77 &&
    path[start + 2] === 0x68 &&
    path[start + 3] === dot
  )
}

/**
 * What a whiteout's name means: a name that is deleted, an opaque directory, or (`.wh..wh.` and anything else) AUFS's own
 * bookkeeping, which nobody wants. The name that is left after the prefix is a path of its own: `.wh..` would delete the
 * directory, `.wh...` its parent.
 * @throws {FormatError} ERR_KOCI_INVALID_WHITEOUT
 */
export function parseWhiteout(path: Buffer, start: number): Whiteout {
  const name = path.subarray(start + prefix.length)
  if (name.length === 0 || (name[0] === dot && (name.length === 1 || isDotDot(name))))
    throw createError('INVALID_WHITEOUT', {
      subject: path,
      reason: name.length === 0 ? 'it names nothing' : `it names "${name.toString()}"`,
    })
  if (!isWhiteout(name, 0)) return { kind: 'whiteout', name }
  return { kind: name.equals(opaqueRest) ? 'opaque' : 'ignored' }
}

function isDotDot(name: Buffer): boolean {
  return name.length === 2 && name[1] === dot
}
