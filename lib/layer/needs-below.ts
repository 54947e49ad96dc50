// Whether a layer that was extracted alone would look different, had it been extracted on top of those below it. What the
// tar leaves open is where it matters: a directory that it implies may be a symlink below, and the path leads elsewhere.
import { isError, wrapError } from '../errors.ts'
import { S_IFDIR, S_IFLNK, S_IFMT } from '../fs/libc.ts'
import { printable } from '../text.ts'
import type { Dialect, Extraction } from './extraction.ts'
import type { Layer } from './layer.ts'
import { openLowerStack, type OpenedLayers } from './lower-stack.ts'

/**
 * Why a placed layer has to be extracted on top of the layers below it (base first, all of them placed); undefined if
 * it needn't. A layer without a report is taken as it is: who placed it vouches for it. With `opened`, which the caller closes,
 * several such questions open each layer once.
 * @throws {SystemError} ERR_KOCI_IO where a layer can't be read
 */
export function reasonToNeedBelow(
  layer: Layer,
  below: readonly Layer[],
  extraction: Extraction,
  opened?: OpenedLayers,
): string | undefined {
  // extracted on top of them already, or the base
  if (layer.needsBelow !== undefined || below.length === 0) return undefined
  const dirs = below.flatMap(({ placed }) => (placed?.dir === undefined ? [] : [placed.dir]))
  return reasonIn(dirs, extraction.dialect, layer, opened)
}

function reasonIn(
  dirs: readonly string[],
  dialect: Dialect,
  { placed, digest }: Layer,
  opened?: OpenedLayers,
): string | undefined {
  const { implied = [], hollow = [], entries = [] } = placed?.report?.stacking ?? {}
  if (implied.length === 0 && hollow.length === 0 && entries.length === 0) return undefined
  try {
    using stack = openLowerStack(dirs, dialect, opened)
    const typeOf = (path: string): number =>
      (stack.lookup(Buffer.from(path, 'latin1'))?.stat.mode ?? 0) & S_IFMT
    // directories above one in a list are in it, too, or have an entry that replaces whatever is below
    for (const path of [...implied, ...entries])
      if (typeOf(path) === S_IFLNK) return `${nameOf(path)} is a symlink in the layers below`
    for (const path of hollow)
      if (![0, S_IFDIR].includes(typeOf(path)))
        return `${nameOf(path)}, which only whiteouts are in, is no directory in the layers below`
    return undefined
  } catch (error) {
    throw wrapError(error, `layers below ${digest}`)
  }
}

/**
 * The same for a layer that is to be applied to a tree: what is there is what is below.
 * @throws {SystemError} ERR_KOCI_IO where the tree can't be read
 */
export function reasonNotToMerge(layer: Layer, rootfs: string): string | undefined {
  // one that was stored as it came out on top of others has copies where it linked to them
  const known = layer.needsBelow ?? layer.placed?.report?.needsBelow
  if (known !== undefined) return known
  try {
    return reasonIn([rootfs], 'plain', layer)
  } catch (error) {
    const { cause } = error as Error
    if ((cause as NodeJS.ErrnoException | undefined)?.code !== 'EACCES') throw error
    return 'directories below it are closed to their owner'
  }
}

/**
 * Why a layer that couldn't be extracted alone is to be tried on top of those below it; undefined if that would be in vain.
 * A link below can lead around what is impossible alone, so that only there it is seen whether the layer is wrong.
 */
export function reasonItFailedAlone(error: unknown): string | undefined {
  if (isError(error, 'NEEDS_BELOW')) return error.details['reason'] as string
  const { code } = ((error as Error | undefined)?.cause ?? {}) as NodeJS.ErrnoException
  if (isError(error, 'INVALID_ENTRY') || code === 'ELOOP') return (error as Error).message
  return undefined
}

function nameOf(path: string): string {
  return printable(Buffer.from(path, 'latin1'))
}
