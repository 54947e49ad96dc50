// Whether a layer that was extracted alone would look different, had it been extracted on top of those below it. What the
// tar leaves open is where it matters: a directory that it implies may be a symlink below, and the path leads elsewhere.
import { wrapError } from '../errors.ts'
import { S_IFLNK, S_IFMT } from '../fs/libc.ts'
import { printable } from '../text.ts'
import type { Extraction } from './extraction.ts'
import type { Layer } from './layer.ts'
import { openLowerStack } from './lower-stack.ts'

/**
 * Why a placed layer has to be extracted on top of the layers below it (base first, all of them placed); undefined if
 * it needn't. A layer without a report is taken as it is: who placed it vouches for it.
 * @throws {SystemError} ERR_KOCI_IO where a layer can't be read
 */
export function reasonToNeedBelow(
  layer: Layer,
  below: readonly Layer[],
  extraction: Extraction,
): string | undefined {
  // extracted on top of them already, or the base
  if (layer.needsBelow !== undefined || below.length === 0) return undefined
  const implied = layer.placed?.report?.stacking?.implied ?? []
  if (extraction.keepDirlinks && layer.placed?.report?.entries !== 0)
    return 'keepDirlinks: its directories may be symlinks below'
  if (implied.length === 0) return undefined
  const dirs = below.flatMap(({ placed }) => (placed?.dir === undefined ? [] : [placed.dir]))
  try {
    using stack = openLowerStack(dirs, extraction.dialect)
    for (const each of implied) {
      const path = Buffer.from(each, 'latin1')
      const stat = stack.lookup(path)?.stat
      // directories above it are in the list, too, or have an entry that replaces whatever is below
      if (stat !== undefined && (stat.mode & S_IFMT) === S_IFLNK)
        return `${printable(path)} is a symlink below, and the layer has no entry for it`
    }
    return undefined
  } catch (error) {
    throw wrapError(error, `layers below ${layer.digest}`)
  }
}
