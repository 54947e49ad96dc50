// A seam: a tiny lower directory right above the layer it mends. A layer that was extracted alone has directories for which
// its tar has no entry; overlayfs shows what the topmost layer has, which would be made-up metadata. The seam has these
// directories as the layers below show them. What is there only to hold whiteouts, with nothing below, it hides.
import { cstring, mkdirat, mknodat, S_IFCHR } from '../../lib/fs/libc.ts'
import { openRooted, type DirNode, type Rooted } from '../../lib/fs/rooted.ts'
import { setXattr } from '../../lib/fs/xattr.ts'
import type { Dialect } from '../../lib/layer/extraction.ts'
import type { LowerEntry, LowerStack } from '../../lib/layer/lower-stack.ts'
import { dress, isSameLook, lookOf, originXattr, type Look } from './look.ts'

/** What a seam is made from. */
export interface SeamPlan {
  /** Directories without an entry, parents before what is in them; bytes as latin1. */
  readonly missing: readonly string[]
  /** What is to be seen. */
  readonly wanted: LowerStack
  /** What would be seen without the seam of what it mends. */
  readonly own: LowerStack
  /** Whether a directory that isn't wanted is to be hidden, or is right as it is. */
  readonly hides: (path: string) => boolean
  readonly dialect: Dialect
}

/** A directory of the seam, or (undefined) a whiteout. */
type Pieces = Map<string, Look | undefined>

/**
 * Makes a seam in an empty directory, which `make` makes. Gives whether one was needed.
 * Throws SystemCallErrors.
 */
export function makeSeam(plan: SeamPlan, make: () => string): boolean {
  const pieces = planPieces(plan)
  if (pieces.size === 0) return false
  const rooted = openRooted(make())
  try {
    build(rooted, pieces, plan.dialect)
    return true
  } finally {
    rooted.close()
  }
}

function planPieces({ missing, wanted, own, hides, dialect }: SeamPlan): Pieces {
  const pieces: Pieces = new Map()
  const look = (entry: LowerEntry): Look | undefined =>
    entry.directory?.in(entry.layer, fd => lookOf(fd, dialect))
  const addAbove = (path: string): void => {
    for (const above of parentsOf(path)) {
      if (pieces.has(above)) continue
      const entry = own.lookup(bytes(above))
      const shown = entry && look(entry)
      if (shown) pieces.set(above, shown)
    }
  }
  for (const path of missing) {
    if (parentsOf(path).some(above => pieces.has(above) && pieces.get(above) === undefined))
      continue
    const entry = own.lookup(bytes(path))
    const present = entry && look(entry)
    if (!present) continue
    const below = wanted.lookup(bytes(path))
    if (below?.directory) {
      const shown = look(below) as Look
      if (isSameLook(shown, present)) continue
      addAbove(path)
      pieces.set(path, shown)
    } else if (!below && hides(path)) {
      addAbove(path)
      pieces.set(path, undefined)
    }
  }
  return pieces
}

function build(rooted: Rooted, pieces: Pieces, dialect: Dialect): void {
  const dressed: [DirNode, Look][] = []
  for (const [path, look] of pieces) {
    const end = path.lastIndexOf('/')
    const parent = find(rooted, end < 0 ? '' : path.slice(0, end))
    const name = cstring(bytes(path.slice(end + 1)))
    const fd = rooted.fdOf(parent)
    if (look) {
      mkdirat(fd, name, 0o700)
      dressed.push([find(rooted, path), look])
    } else {
      mknodat(fd, name, S_IFCHR, 0, 0)
      setXattr(fd, originXattr(dialect), Buffer.alloc(0))
    }
  }
  for (const [node, look] of dressed) dress(rooted.fdOf(node), look, dialect)
}

/** Everything in a seam was made by us: there are no links in it. */
function find(rooted: Rooted, path: string): DirNode {
  return rooted.directory(bytes(path))
}

function parentsOf(path: string): string[] {
  const parents: string[] = []
  for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1))
    parents.push(path.slice(0, at))
  return parents
}

function bytes(path: string): Buffer {
  return Buffer.from(path, 'latin1')
}
