// A seam: a tiny lower directory right above the layer it mends. A layer that was extracted alone has directories for which
// its tar has no entry; overlayfs shows what the topmost layer has, which would be made-up metadata. The seam has these
// directories as the layers below show them. What is there only to hold whiteouts, with nothing below, it hides.
import {
  cstring,
  errno,
  mkdirat,
  mknodat,
  S_IFCHR,
  SystemCallError,
} from '../../lib/fs/libc.ts'
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
  /** What is hidden, and what is in it: all of it is among `missing`. */
  const hidden = new Set<string>()
  const lookupOwn = lookupIn(own)
  const lookupWanted = lookupIn(wanted)
  const look = (entry: LowerEntry): Look | undefined =>
    entry.directory?.in(entry.layer, fd => lookOf(fd, dialect, entry.stat))
  const addAbove = (path: string): void => {
    // what is above a piece is one, too
    const absent: string[] = []
    for (let at = parentOf(path); at !== '' && !pieces.has(at); at = parentOf(at))
      absent.push(at)
    for (const above of absent.reverse()) {
      const entry = lookupOwn(above)
      const shown = entry && look(entry)
      if (shown) pieces.set(above, shown)
    }
  }
  for (const path of missing) {
    if (hidden.has(parentOf(path))) {
      hidden.add(path)
      continue
    }
    const entry = lookupOwn(path)
    const present = entry && look(entry)
    if (!present) continue
    const below = lookupWanted(path)
    if (below?.directory) {
      const shown = look(below) as Look
      if (isSameLook(shown, present)) continue
      addAbove(path)
      pieces.set(path, shown)
    } else if (!below && hides(path)) {
      addAbove(path)
      pieces.set(path, undefined)
      hidden.add(path)
    }
  }
  return pieces
}

/** Looks paths up, parents before what is in them: most are the child of one that was looked up just before. */
function lookupIn(stack: LowerStack): (path: string) => LowerEntry | undefined {
  const known: { path: string; entry: LowerEntry | undefined } = { path: '', entry: undefined }
  return path => {
    const parent = parentOf(path)
    const entry =
      parent !== '' && parent === known.path
        ? known.entry?.directory?.child(bytes(nameOf(path)))
        : stack.lookup(bytes(path))
    Object.assign(known, { path, entry })
    return entry
  }
}

function build(rooted: Rooted, pieces: Pieces, dialect: Dialect): void {
  const made = new Map<string, DirNode>([['', rooted.root]])
  const dressed: [DirNode, Look][] = []
  for (const [path, look] of pieces) {
    const key = nameOf(path)
    const name = cstring(bytes(key))
    const parent = made.get(parentOf(path))
    if (!parent) throw new SystemCallError(-errno.ENOENT, 'mkdirat', name)
    const fd = rooted.fdOf(parent)
    if (look) {
      mkdirat(fd, name, 0o700)
      const node = rooted.child(parent, name, key)
      if (!node) throw new SystemCallError(-errno.ESTALE, 'openat', name)
      made.set(path, node)
      dressed.push([node, look])
    } else {
      mknodat(fd, name, S_IFCHR, 0, 0)
      setXattr(fd, originXattr(dialect), Buffer.alloc(0))
    }
  }
  for (const [node, look] of dressed) dress(rooted.fdOf(node), look, dialect, node.stat)
}

/** Of a path without slashes nothing, the root. */
function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')))
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

function bytes(path: string): Buffer {
  return Buffer.from(path, 'latin1')
}
