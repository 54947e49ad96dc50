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
 */
export interface Change {
  readonly kind: 'A' | 'M' | 'D'
  readonly rawPath: Buffer
  readonly path: string
  readonly aliasOf?: readonly Buffer[]
  readonly opaque?: boolean
}

/** Makes a change; `path` is derived from the bytes. */
export function change(
  kind: Change['kind'],
  rawPath: Buffer,
  aliasOf?: readonly Buffer[],
): Change {
  return { kind, rawPath, path: toText(rawPath), ...(aliasOf && { aliasOf }) }
}
