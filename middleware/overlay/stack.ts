// Which directories are mounted, in which order, so that the merged view is what the layers one after the other amount to:
// seams right above what they mend, a layer that is in an image twice once, nothing that is empty, nothing beneath an opaque
// root. Whose metadata the image's root has is told apart: overlayfs shows the upper directory's own.
import { geteuid, getegid } from 'node:process'
import { createError, wrapError } from '../../lib/errors.ts'
import { readDirectory } from '../../lib/fs/libc.ts'
import { maxLowers } from '../../lib/fs/mount.ts'
import type { Extraction } from '../../lib/layer/extraction.ts'
import type { Layer, StackingReport } from '../../lib/layer/layer.ts'
import { openLowerStack, OpenedLayers, type LowerStack } from '../../lib/layer/lower-stack.ts'
import { toHost } from '../../lib/oci/idmap.ts'
import { keyOf, type Home } from './home.ts'
import { lookOf, type Look } from './look.ts'
import { makeSeam } from './seam.ts'

/** What is mounted below the upper directory. */
export interface Stack {
  /** Base first; perhaps none. */
  readonly dirs: readonly string[]
  /** How the image's root looks. */
  readonly root: Look
}

interface Part {
  readonly dir: string
  readonly seam: string | false
  readonly missing: readonly string[]
}

/**
 * Works out the stack for placed layers (base first); seams that aren't there yet are made.
 * @throws {UsageError} ERR_KOCI_LAYER_NOT_PLACED for a layer without a directory; {SystemError} ERR_KOCI_IO
 */
export function planStack(layers: readonly Layer[], extraction: Extraction, home: Home): Stack {
  using opened = new OpenedLayers()
  return new Planner(extraction, home, opened).plan(layers)
}

class Planner {
  readonly #extraction: Extraction
  readonly #home: Home
  readonly #opened: OpenedLayers
  #parts: Part[] = []
  #root: string | undefined

  constructor(extraction: Extraction, home: Home, opened: OpenedLayers) {
    this.#extraction = extraction
    this.#home = home
    this.#opened = opened
  }

  plan(layers: readonly Layer[]): Stack {
    for (const layer of layers)
      try {
        this.#add(layer)
      } catch (error) {
        throw wrapError(error, `layer ${layer.digest}`)
      }
    const last = layers.at(-1)
    const dirs = this.#dirs()
    if (last && dirs.length > maxLowers)
      return { dirs: this.#combined(last), root: this.#look() }
    return { dirs, root: this.#look() }
  }

  #add(layer: Layer): void {
    const { dir, report } = layer.placed ?? {}
    if (dir === undefined)
      throw createError('LAYER_NOT_PLACED', {
        subject: layer.digest,
        chain: 'without directories',
      })
    const stacking = report?.stacking
    // whoever placed it without a report vouches for it as it is
    if (stacking?.root !== false) this.#root = dir
    const seam = stacking ? this.#seam(layer, dir, stacking) : false
    const below = stacking?.opaque === true ? [] : this.#parts
    this.#parts = below.filter(part => part.dir !== dir)
    const opened = this.#opened.open(dir)
    if (readDirectory(opened.fdOf(opened.root)).length > 0)
      this.#parts.push({ dir, seam, missing: stacking?.missing ?? [] })
  }

  #seam(layer: Layer, dir: string, { missing, hollow }: StackingReport): string | false {
    if (missing.length === 0) return false
    const key = keyOf(layer.chainID)
    const known = this.#home.seam(key)
    if (known !== undefined) return known
    const hidden = new Set(hollow)
    return this.#home.makeSeam(key, make =>
      makeSeam(
        {
          missing,
          wanted: this.#stack(this.#dirs()),
          own: this.#stack([dir]),
          hides: path => hidden.has(path),
          dialect: this.#extraction.dialect,
        },
        make,
      ),
    )
  }

  /** With so many layers all seams have to be one, on top. */
  #combined(last: Layer): string[] {
    const bare = this.#parts.map(({ dir }) => dir)
    const key = `top-${keyOf(last.chainID)}`
    const seam =
      this.#home.seam(key) ??
      this.#home.makeSeam(key, make =>
        makeSeam(
          {
            missing: [...new Set(this.#parts.flatMap(({ missing }) => missing))].sort(),
            wanted: this.#stack(this.#dirs()),
            own: this.#stack(bare),
            hides: () => true,
            dialect: this.#extraction.dialect,
          },
          make,
        ),
      )
    return seam === false ? bare : [...bare, seam]
  }

  #dirs(): string[] {
    return this.#parts.flatMap(({ dir, seam }) => (seam === false ? [dir] : [dir, seam]))
  }

  #stack(dirs: readonly string[]): LowerStack {
    return openLowerStack(dirs, this.#extraction.dialect, this.#opened)
  }

  #look(): Look {
    if (this.#root === undefined) return plainRoot(this.#extraction)
    const opened = this.#opened.open(this.#root)
    return lookOf(opened.fdOf(opened.root), this.#extraction.dialect)
  }
}

/** The root of an image that says nothing about it, as `makeRootfs` makes it. */
function plainRoot({ rootless, uidMap, gidMap }: Extraction): Look {
  const owner = rootless
    ? { uid: geteuid?.() ?? 0, gid: getegid?.() ?? 0 }
    : { uid: toHost(uidMap, 0), gid: toHost(gidMap, 0) }
  return { mode: 0o040755, ...owner, mtime: 0n, xattrs: [] }
}
