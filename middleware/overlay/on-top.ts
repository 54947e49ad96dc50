// A layer that can't be extracted alone is applied, in order, to an overlay of the layers below it; what the kernel puts in
// the upper directory is the layer's tree. The overlay hangs nowhere: it is gone with the process whatever happens to it.
// Upper and work directory are made inside the target, because they have to be on its file system, wherever a store has it.
import { randomUUID } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { writeLayerRecord } from '../../lib/bundle/layer-record.ts'
import type { Next } from '../../lib/compose.ts'
import type { LayerContext } from '../../lib/context.ts'
import { wrapError } from '../../lib/errors.ts'
import {
  close,
  cstring,
  DT_CHR,
  DT_DIR,
  DT_UNKNOWN,
  futimens,
  mknodat,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  open,
  readDirectory,
  RENAME_NOREPLACE,
  renameat2,
  S_IFCHR,
  S_IFDIR,
  S_IFMT,
  statx,
  unlinkat,
  utimensat,
  type CString,
} from '../../lib/fs/libc.ts'
import { openOverlay } from '../../lib/fs/mount.ts'
import { openRooted, type DirNode, type Rooted } from '../../lib/fs/rooted.ts'
import { removeTree } from '../../lib/fs/walk.ts'
import {
  getXattr,
  listXattrs,
  removeXattr,
  setXattr,
  xattrTarget,
  type XattrTarget,
} from '../../lib/fs/xattr.ts'
import type { Dialect } from '../../lib/layer/extraction.ts'
import type { StackingReport } from '../../lib/layer/layer.ts'
import { isWhiteoutDevice, opaqueXattr } from '../../lib/layer/lower-stack.ts'
import type { Home } from './home.ts'
import { dress, isPrivateXattr, lookOf, originXattr, type Look } from './look.ts'
import { planStack } from './stack.ts'

/** What such a layer takes for granted: everything it shows is in it, the root included. */
const stacking: StackingReport = {
  root: true,
  opaque: false,
  implied: [],
  missing: [],
  hollow: [],
}

/**
 * Runs `next()`, which extracts the layer, with the overlay for its target; then moves what was written to `target`, an
 * empty directory, and says so.
 */
export async function extractOnTop(
  context: LayerContext,
  next: Next,
  home: Home,
  target: string,
): Promise<void> {
  const { layer, layers, extraction } = context
  const stack = planStack(layers.slice(0, layer.index), extraction, home)
  const scratch = new Scratch(target, extraction.dialect)
  scratch.make(stack.root)
  const mount = openOverlay({
    lowers: stack.dirs.length > 0 ? stack.dirs.toReversed() : [home.empty],
    upper: scratch.upper,
    work: scratch.work,
    userxattr: extraction.dialect === 'overlay-user',
    subject: target,
    spare: () => home.spare(),
  })
  const merged = `/proc/self/fd/${mount}/.`
  const { dialect, recordTo } = layer
  try {
    layer.target = merged
    layer.dialect = 'plain'
    // it would be one of everything below, too
    layer.recordTo = undefined
    await next()
  } finally {
    close(mount)
    Object.assign(layer, { target, dialect, recordTo })
  }
  const { placed } = layer
  if (placed?.dir !== merged) return
  scratch.settle()
  const { needsBelow } = layer
  const report = placed.report && { ...placed.report, stacking, needsBelow }
  layer.move(target, placed.by, { report })
  if (recordTo === undefined) return
  const { signal } = context
  layer.recorded = await writeLayerRecord(target, recordTo, layer.diffID, { signal })
}

/** Upper and work directory, inside the target under names that no layer can guess. */
class Scratch {
  readonly #target: string
  readonly #dialect: Dialect
  readonly #upperName = `.koci-upper-${randomUUID()}`
  readonly #workName = `.koci-work-${randomUUID()}`

  constructor(target: string, dialect: Dialect) {
    this.#target = target
    this.#dialect = dialect
  }

  get upper(): string {
    return path.join(this.#target, this.#upperName)
  }

  get work(): string {
    return path.join(this.#target, this.#workName)
  }

  make(root: Look): void {
    try {
      mkdirSync(this.upper)
      mkdirSync(this.work)
      withDirectory(this.upper, fd => {
        dress(fd, root, this.#dialect)
      })
    } catch (error) {
      throw wrapError(error, this.#target)
    }
  }

  /** Makes a layer of what the kernel wrote, and puts it where it belongs. */
  settle(): void {
    try {
      withDirectory(this.#target, target => {
        removeTree(target, cstring(this.#workName))
        withDirectory(this.upper, fd => {
          cleanLayer(openRooted(this.upper), this.#dialect)
          const look = lookOf(fd, this.#dialect)
          const hasWhiteouts = getXattr(fd, originXattr(this.#dialect)) !== undefined
          for (const { name } of readDirectory(fd)) {
            const each = cstring(name)
            renameat2(fd, each, target, each, RENAME_NOREPLACE)
          }
          removeTree(target, cstring(this.#upperName))
          dress(target, look, this.#dialect)
          if (hasWhiteouts) setXattr(target, originXattr(this.#dialect), Buffer.alloc(0))
        })
      })
    } catch (error) {
      throw wrapError(error, this.#target)
    }
  }
}

/**
 * Takes out of a tree what the kernel noted for itself, so that it is as if it had been extracted: whiteouts of their own
 * (the kernel's are names of one inode), marks where whiteouts are, none in opaque directories. Closes the tree.
 */
function cleanLayer(rooted: Rooted, dialect: Dialect): void {
  try {
    const rest: DirNode[] = [rooted.root]
    for (let node = rest.pop(); node; node = rest.pop())
      rest.push(...cleanDirectory(rooted, node, dialect))
  } finally {
    rooted.close()
  }
}

function cleanDirectory(rooted: Rooted, node: DirNode, dialect: Dialect): DirNode[] {
  const opaque = opaqueXattr(dialect) ?? Buffer.alloc(0)
  const isOpaque = getXattr(rooted.fdOf(node), opaque)?.toString() === 'y'
  const directories: CString[] = []
  const whiteouts: CString[] = []
  for (const { name, type } of readDirectory(rooted.fdOf(node))) {
    const each = cstring(name)
    const fd = rooted.fdOf(node)
    const stat = type === DT_CHR || type === DT_UNKNOWN ? statx(fd, each) : undefined
    if (type === DT_DIR || (stat && (stat.mode & S_IFMT) === S_IFDIR)) directories.push(each)
    else if (stat && isWhiteoutDevice(stat)) whiteouts.push(each)
    else strip(xattrTarget(fd, each), dialect, undefined)
  }
  const fd = rooted.fdOf(node)
  strip(fd, dialect, isOpaque ? opaque : undefined)
  for (const name of whiteouts) {
    unlinkat(fd, name)
    if (isOpaque) continue
    mknodat(fd, name, S_IFCHR, 0, 0)
    utimensat(fd, name, 0n, 0n)
  }
  if (whiteouts.length > 0) {
    if (!isOpaque) setXattr(fd, originXattr(dialect), Buffer.alloc(0))
    futimens(fd, node.stat.atime, node.stat.mtime)
  }
  return directories.flatMap(name => {
    const child = rooted.child(node, name, name.toString('latin1', 0, name.length - 1))
    return child ? [child] : []
  })
}

function strip(target: XattrTarget, dialect: Dialect, kept: Buffer | undefined): void {
  for (const name of listXattrs(target))
    if (isPrivateXattr(name, dialect) && kept?.equals(name) !== true) removeXattr(target, name)
}

function withDirectory(directory: string, use: (fd: number) => void): void {
  const fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  try {
    use(fd)
  } finally {
    close(fd)
  }
}
