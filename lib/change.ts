// One line of a change list: what a lister says, what middleware filters, what becomes a layer entry.
import { toText } from './text.ts'

/**
 * One path that differs from the recorded state. `A` was not there, `M` differs, `D` is gone (everything beneath it,
 * too: nothing below a deleted path is listed).
 *
 * `rawPath` is relative to the rootfs, without leading or trailing slash; the rootfs itself is the empty Buffer.
 * `path` is the same as text, for matching and printing only.
 *
 * `aliasOf` is set on a name that didn't change itself: it is another name of a file that got one of these names, and
 * is packed for the sake of the link. It counts only while one of them does.
 *
 * `opaque` is set on a directory of which nothing is left that was in it: what is in it now is all listed.
 *
 * `leaf` is set by listers that looked, on what was no directory then: if it is one when it is packed, what is in it
 * isn't listed, and that is ERR_KOCI_FILE_CHANGED.
 */
export interface Change {
  readonly kind: 'A' | 'M' | 'D'
  readonly rawPath: Buffer
  readonly path: string
  readonly aliasOf?: readonly Buffer[]
  readonly opaque?: boolean
  readonly leaf?: boolean
}

/** Makes a change; `path` is derived from the bytes. */
export function change(
  kind: Change['kind'],
  rawPath: Buffer,
  aliasOf?: readonly Buffer[],
): Change {
  return { kind, rawPath, path: toText(rawPath), ...(aliasOf && { aliasOf }) }
}

/** Makes a change of what is no directory. */
export function leafChange(
  kind: 'A' | 'M',
  rawPath: Buffer,
  aliasOf?: readonly Buffer[],
): Change {
  return { ...change(kind, rawPath, aliasOf), leaf: true }
}
