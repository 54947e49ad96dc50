// Whiteouts carried out: what lower layers left is deleted, what this layer wrote stays, whichever came first.
// Directories that hold nothing of lower layers any more are marked, so that no part of a tree is searched twice.
import {
  AT_REMOVEDIR,
  check,
  cstring,
  errno,
  readDirectory,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  SystemCallError,
} from '../fs/libc.ts'
import type { Location, Rooted } from '../fs/rooted.ts'
import { tryStat } from '../fs/stat.ts'
import * as sys from '../fs/syscall.ts'
import { removeTree } from '../fs/walk.ts'
import type { Directory, DirectoryState } from './directory-state.ts'
import { leadsNowhere, type Whiteouts } from './whiteouts.ts'
import type { WorkingTree } from './working-tree.ts'

/** Whiteouts in the plain dialect. */
export class PlainWhiteouts implements Whiteouts {
  readonly #tree: WorkingTree
  readonly #rooted: Rooted<DirectoryState>
  readonly #first: boolean

  /** `first`: the tree was empty, so there is nothing to delete. */
  constructor(tree: WorkingTree, first: boolean) {
    this.#tree = tree
    this.#rooted = tree.rooted
    this.#first = first
  }

  hideName(parent: Buffer, rawName: Buffer): void {
    if (this.#first) return
    const node = this.#findDirectory(parent)
    if (node !== undefined) this.#deleteName(node, rawName)
  }

  hideContent(path: Buffer): void {
    if (this.#first) return
    const node = this.#findDirectory(path)
    if (node === undefined) {
      this.#hideFile(path)
      return
    }
    this.#tree.stateOf(node)
    deleteContent(this.#rooted, node, this.#tree.makeImplicit)
  }

  /** They were carried out at once. */
  finish(): void {
    return
  }

  /** Whiteouts make no directories: where there is none, there is nothing to hide. */
  #findDirectory(path: Buffer): Directory | undefined {
    try {
      return this.#rooted.directory(path)
    } catch (error) {
      if (leadsNowhere(error)) return undefined
      throw error
    }
  }

  #deleteName(node: Directory, rawName: Buffer): void {
    if (deleteName(this.#rooted, node, rawName, this.#tree.makeImplicit))
      this.#tree.stateOf(node).changed = true
  }

  /** What was a file in lower layers is an opaque directory in this one: the file is hidden. */
  #hideFile(path: Buffer): void {
    let location: Location<DirectoryState>
    try {
      location = this.#rooted.locate(path)
    } catch (error) {
      if (leadsNowhere(error)) return
      throw error
    }
    const { node, name } = location
    if (name === undefined) return
    const stat = tryStat(this.#rooted.fdOf(node), name)
    if (typeof stat === 'number' || [S_IFDIR, S_IFLNK].includes(stat.mode & S_IFMT)) return
    this.#deleteName(node, name.subarray(0, -1))
  }
}

/** What the applier has to do for a directory that a whiteout kept only because this layer wrote beneath it. */
type MakeImplicit = (node: Directory) => void

/**
 * Deletes a name of lower layers. A directory in which this layer wrote is kept with what was written, and `makeImplicit`
 * is called for it and for those beneath, unless they have entries: the whiteout hides their metadata, too.
 * Gives whether anything was deleted from `node` itself.
 */
function deleteName(
  rooted: Rooted<DirectoryState>,
  node: Directory,
  rawName: Buffer,
  makeImplicit: MakeImplicit,
): boolean {
  if (node.data?.own === true) return false
  expectOneMount(rooted, node)
  const key = rawName.toString('latin1')
  if (node.data?.written?.has(key) === true) return false
  const child = node.children.get(key)
  if (child?.data?.touched === true) {
    if (!child.data.explicit && !child.data.fresh) makeImplicit(child)
    deleteContent(rooted, child, makeImplicit)
    return false
  }
  const name = cstring(rawName)
  const fd = rooted.fdOf(node)
  const code = sys.unlinkat(fd, name, 0)
  if (code === -errno.ENOENT) return false
  if (code === -errno.EISDIR) {
    // mostly empty by now, if the layer deletes its children one by one
    if (sys.unlinkat(fd, name, AT_REMOVEDIR) < 0) removeTree(fd, name)
  } else check(code, 'unlinkat', name)
  rooted.forget(node, key)
  return true
}

/** Deletes what lower layers left in a directory, which itself stays. */
function deleteContent(
  rooted: Rooted<DirectoryState>,
  top: Directory,
  makeImplicit: MakeImplicit,
): void {
  const rest = [top]
  for (let node = rest.pop(); node !== undefined; node = rest.pop()) {
    const state = node.data
    if (state?.own === true) continue
    expectOneMount(rooted, node)
    const fd = rooted.fdOf(node)
    for (const { name } of readDirectory(fd)) {
      const key = name.toString('latin1')
      if (state?.written?.has(key) === true) continue
      const child = node.children.get(key)
      if (child?.data?.touched === true) {
        if (!child.data.explicit && !child.data.fresh) makeImplicit(child)
        rest.push(child)
      } else {
        removeTree(fd, cstring(name))
        rooted.forget(node, key)
      }
    }
    if (state !== undefined) {
      state.own = true
      state.changed = true
    }
  }
}

/** What is mounted in the tree isn't a lower layer's. */
function expectOneMount(rooted: Rooted<DirectoryState>, node: Directory): void {
  if (node.stat.mountID !== rooted.root.stat.mountID)
    throw new SystemCallError(-errno.EBUSY, 'unlinkat', node.name)
}
