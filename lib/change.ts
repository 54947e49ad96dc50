// One line of a change list: what a lister says, what middleware filters, what becomes a layer entry.
import { toText } from './text.ts'

/**
 * One path that differs from the recorded state. `A` was not there, `M` differs, `D` is gone (everything beneath it,
 * too: nothing below a deleted path is listed).
 *
 * `rawPath` is relative to the rootfs, without leading or trailing slash; the rootfs itself is the empty Buffer.
 * `path` is the same as text, for matching and printing only.
 */
export interface Change {
  readonly kind: 'A' | 'M' | 'D'
  readonly rawPath: Buffer
  readonly path: string
}

/** Makes a change; `path` is derived from the bytes. */
export function change(kind: Change['kind'], rawPath: Buffer): Change {
  return { kind, rawPath, path: toText(rawPath) }
}
