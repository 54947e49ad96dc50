// What the layers of an image amount to, as a tree in memory: names, metadata, and where the contents of files are. It
// follows the rules by which layers are applied to a directory (apply.ts), without needing privileges or a file system.
// Names are bytes as latin1 text. Nothing here recurses: how deep a tree is, the image decides.
import { createError, wrapError } from '../errors.ts'
import { errno, SystemCallError } from '../fs/libc.ts'
import { cleanPath } from './clean-path.ts'
import type { EntryType, TarHeader } from './tar-header.ts'
import { isWhiteout, parseWhiteout } from './whiteout-name.ts'

/** What a name stands for; several names may stand for the same. Never changed: a directory that is described anew gets another. */
export interface Inode extends Pick<
  TarHeader,
  'mode' | 'uid' | 'gid' | 'size' | 'mtime' | 'rawLinkname' | 'devmajor' | 'devminor' | 'xattrs'
> {
  readonly type: Exclude<EntryType, 'hardlink'>
  /** The layer, and the entry in it, that it comes from, both counted from 0. Undefined: a directory that no entry describes. */
  readonly source: { readonly layer: number; readonly entry: number } | undefined
}

/** A name in the tree; those of directories have children. */
export class TreeNode {
  inode: Inode
  readonly parent: TreeNode | undefined
  readonly children: Map<string, TreeNode> | undefined
  /** Of its path, which may be far longer than what made it: that of each directory on the way counts, too. */
  readonly pathLength: number
  /** The last layer that wrote it. */
  writtenIn: number
  /** The last layer that wrote it or something beneath it. */
  touchedIn: number
  /** The last layer that hid what lower layers had in it. */
  clearedIn = -1

  constructor(inode: Inode, parent: TreeNode | undefined, name: string, layer: number) {
    this.inode = inode
    this.parent = parent
    this.pathLength = parent ? parent.pathLength + 1 + name.length : 0
    this.children = inode.type === 'directory' ? new Map<string, TreeNode>() : undefined
    this.writtenIn = layer
    this.touchedIn = layer
  }
}

/** How many names a tree may have: it is in memory. */
export const maxNames = 4_000_000
/** How long all its paths together may be: whoever compares trees has them in memory. */
export const maxPathBytes: number = 2 ** 29
const maxLinks = 255
/** What no file system stores, and the engine therefore doesn't. */
const maxName = 255
const maxTarget = 4095

/** A directory that no entry describes: always the same. */
const implied: Inode = {
  type: 'directory',
  mode: 0o755,
  uid: 0,
  gid: 0,
  size: 0,
  mtime: 0n,
  rawLinkname: Buffer.alloc(0),
  devmajor: 0,
  devminor: 0,
  xattrs: [],
  source: undefined,
}

/**
 * A tree to which layers are applied, entry by entry. After an error it isn't to be used any more.
 * @throws {FormatError} ERR_KOCI_INVALID_ENTRY, ERR_KOCI_INVALID_WHITEOUT; {BreakoutError} ERR_KOCI_PATH_ESCAPE;
 * {LimitError} ERR_KOCI_LIMIT_EXCEEDED; as the engine does for the same entries
 */
export class ImageTree {
  readonly root: TreeNode = new TreeNode(implied, undefined, '', -1)
  #layer = -1
  #entry = -1
  #names = 0
  #pathBytes = 0
  /** The directory that was looked up last: neighbours come in runs. */
  #memo: { readonly path: string; readonly node: TreeNode } | undefined

  /** What follows are the entries of the next layer. */
  beginLayer(): void {
    this.#layer += 1
    this.#entry = -1
  }

  /** Applies an entry; gives its number in the layer. */
  apply(header: TarHeader): number {
    this.#entry += 1
    const rawPath = cleanPath(header.rawPath)
    try {
      this.#apply(rawPath, header)
    } catch (error) {
      throw wrapError(error, rawPath)
    }
    return this.#entry
  }

  /** A copy as it is now; inodes are the same ones. */
  clone(): ImageTree {
    const copy = new ImageTree()
    copy.#layer = this.#layer
    copy.#names = this.#names
    copy.#pathBytes = this.#pathBytes
    copy.root.inode = this.root.inode
    const pending: [TreeNode, TreeNode][] = [[this.root, copy.root]]
    for (let next = pending.pop(); next; next = pending.pop()) {
      const [from, to] = next
      for (const [name, child] of from.children ?? []) {
        const node = new TreeNode(child.inode, to, name, child.writtenIn)
        node.touchedIn = child.touchedIn
        to.children?.set(name, node)
        pending.push([child, node])
      }
    }
    return copy
  }

  #apply(rawPath: Buffer, header: TarHeader): void {
    if (rawPath.length === 0) {
      if (header.type !== 'directory')
        throw invalid(rawPath, `the root can only be a directory, not a ${header.type}`)
      this.#describe(this.root, header)
      return
    }
    const start = rawPath.lastIndexOf(0x2f) + 1
    const parent = rawPath.toString('latin1', 0, Math.max(0, start - 1))
    if (isWhiteout(rawPath, start)) {
      this.#applyWhiteout(parent, rawPath, start)
      return
    }
    const directory = this.#makeDirectory(parent)
    const name = rawPath.toString('latin1', start)
    if (header.type === 'directory') {
      const existing = directory.children?.get(name)
      this.#describe(
        existing?.children ? existing : this.#bind(directory, name, implied),
        header,
      )
    } else if (header.type === 'hardlink') this.#link(directory, name, rawPath, header)
    else if (header.type === 'symlink' && header.rawLinkname.length === 0)
      throw invalid(rawPath, 'the target is empty')
    else if (header.type === 'symlink' && header.rawLinkname.length > maxTarget)
      throw new SystemCallError(-errno.ENAMETOOLONG, 'symlinkat', rawPath)
    else this.#bind(directory, name, this.#inodeOf(header, header.type))
  }

  #inodeOf(header: TarHeader, type: Inode['type']): Inode {
    const { mode, uid, gid, size, mtime, rawLinkname, devmajor, devminor, xattrs } = header
    const source = { layer: this.#layer, entry: this.#entry }
    const numbers = { mode, uid, gid, size, mtime, devmajor, devminor }
    return { type, ...numbers, rawLinkname, xattrs, source }
  }

  #describe(node: TreeNode, header: TarHeader): void {
    node.inode = this.#inodeOf(header, 'directory')
    node.writtenIn = this.#layer
    this.#touch(node)
  }

  #link(directory: TreeNode, name: string, rawPath: Buffer, header: TarHeader): void {
    const target = cleanPath(header.rawLinkname).toString('latin1')
    const slash = target.lastIndexOf('/')
    const from = this.#find(target.slice(0, Math.max(0, slash)))
    const found = target === '' ? this.root : from?.children?.get(target.slice(slash + 1))
    if (!found) throw invalid(rawPath, 'the target does not exist')
    if (found.children) throw invalid(rawPath, 'the target is a directory')
    const replaced = directory.children?.get(name)
    if (found === replaced) throw invalid(rawPath, 'it links to itself')
    for (let at = from; at; at = at.parent)
      if (at === replaced)
        throw invalid(rawPath, 'the target is in the directory that it would replace')
    this.#bind(directory, name, found.inode)
  }

  #bind(directory: TreeNode, name: string, inode: Inode): TreeNode {
    if (name.length > maxName)
      throw new SystemCallError(-errno.ENAMETOOLONG, 'openat', Buffer.from(name, 'latin1'))
    this.#unbind(directory, name)
    const node = new TreeNode(inode, directory, name, this.#layer)
    this.#names += 1
    this.#pathBytes += node.pathLength
    expectAtMost('number of names', this.#names, maxNames)
    expectAtMost('length of all paths together', this.#pathBytes, maxPathBytes)
    directory.children?.set(name, node)
    this.#touch(directory)
    return node
  }

  #unbind(directory: TreeNode, name: string): void {
    const node = directory.children?.get(name)
    if (!node) return
    directory.children?.delete(name)
    this.#memo = undefined
    const pending = [node]
    for (let next = pending.pop(); next; next = pending.pop()) {
      this.#names -= 1
      this.#pathBytes -= next.pathLength
      // not all at once: there may be more than a call has arguments
      for (const child of next.children?.values() ?? []) pending.push(child)
    }
  }

  #touch(node: TreeNode): void {
    for (let at: TreeNode | undefined = node; at; at = at.parent) {
      if (at !== node && at.touchedIn === this.#layer) return
      at.touchedIn = this.#layer
    }
  }

  /** The type and body of a whiteout's entry mean nothing; below the first layer there is nothing to hide. */
  #applyWhiteout(parent: string, rawPath: Buffer, start: number): void {
    const whiteout = parseWhiteout(rawPath, start)
    if (whiteout.kind === 'ignored' || this.#layer === 0) return
    const directory = this.#findHidden(parent)
    if (whiteout.kind === 'whiteout') {
      if (directory) this.#hide(directory, whiteout.name.toString('latin1'))
    } else if (directory) this.#hideContent(directory)
    else this.#hideFile(parent)
  }

  /** Deletes a name of lower layers; a directory in which this layer wrote loses what isn't this layer's. */
  #hide(directory: TreeNode, name: string): void {
    const pending: [TreeNode, string][] = [[directory, name]]
    for (let next = pending.pop(); next; next = pending.pop()) {
      const [parent, key] = next
      const node = parent.children?.get(key)
      if (!node) continue
      if (node.touchedIn !== this.#layer) this.#unbind(parent, key)
      else if (node.children) {
        if (node.writtenIn !== this.#layer) node.inode = implied
        if (!this.#isCleared(node))
          for (const child of node.children.keys()) pending.push([node, child])
      }
    }
  }

  /** Once in a layer is enough: nothing of lower layers comes back within it. */
  #isCleared(directory: TreeNode): boolean {
    const isCleared = directory.clearedIn === this.#layer
    directory.clearedIn = this.#layer
    return isCleared
  }

  #hideContent(directory: TreeNode): void {
    if (this.#isCleared(directory)) return
    for (const name of directory.children?.keys() ?? []) this.#hide(directory, name)
  }

  /** What was a file in lower layers is an opaque directory in this one. */
  #hideFile(path: string): void {
    const slash = path.lastIndexOf('/')
    const directory = this.#findHidden(path.slice(0, Math.max(0, slash)))
    const name = path.slice(slash + 1)
    const node = directory?.children?.get(name)
    if (directory && node && !node.children && node.inode.type !== 'symlink')
      this.#hide(directory, name)
  }

  /** Links that lead in a circle lead nowhere, to a whiteout. */
  #findHidden(path: string): TreeNode | undefined {
    try {
      return this.#find(path)
    } catch (error) {
      if (error instanceof SystemCallError) return undefined
      throw error
    }
  }

  /** The directory that a path leads to, as after chroot(2); undefined if there is none. */
  #find(path: string): TreeNode | undefined {
    return this.#walk(path, () => undefined)
  }

  /** The same; directories are made of whatever is on the way, if need be. */
  #makeDirectory(path: string): TreeNode {
    if (this.#memo?.path === path) return this.#memo.node
    const node = this.#walk(path, (at, name) => this.#bind(at, name, implied)) as TreeNode
    this.#memo = { path, node }
    return node
  }

  #walk(
    path: string,
    make: (at: TreeNode, name: string) => TreeNode | undefined,
  ): TreeNode | undefined {
    let at = this.root
    let links = 0
    const rest = path.split('/').reverse()
    for (let name = rest.pop(); name !== undefined; name = rest.pop()) {
      if (name === '' || name === '.') continue
      if (name === '..') {
        at = at.parent ?? at
        continue
      }
      const next = at.children?.get(name)
      if (next?.inode.type === 'symlink') {
        if (++links > maxLinks)
          throw new SystemCallError(-errno.ELOOP, 'openat', Buffer.from(name, 'latin1'))
        const target = next.inode.rawLinkname.toString('latin1')
        if (target.startsWith('/')) at = this.root
        rest.push(...target.split('/').reverse())
        continue
      }
      const directory = next?.children ? next : make(at, name)
      if (!directory) return undefined
      at = directory
    }
    return at
  }
}

/** A path that one tree has or both have. */
export interface TreePair {
  /** Bytes as latin1; the root is empty. */
  readonly path: string
  readonly before: TreeNode | undefined
  readonly after: TreeNode | undefined
}

/** All paths of two trees, parents first; not those beneath one that is gone, or that isn't a directory any more. */
export function* pairs(before: ImageTree, after: ImageTree): Generator<TreePair> {
  const pending: TreePair[] = [{ path: '', before: before.root, after: after.root }]
  for (let next = pending.pop(); next; next = pending.pop()) {
    yield next
    const { path, before, after } = next
    if (!after?.children) continue
    const names = new Set([...after.children.keys(), ...(before?.children?.keys() ?? [])])
    for (const name of names)
      pending.push({
        path: path === '' ? name : `${path}/${name}`,
        before: before?.children?.get(name),
        after: after.children.get(name),
      })
  }
}

function expectAtMost(limit: string, value: number, maximum: number): void {
  if (value > maximum)
    throw createError('LIMIT_EXCEEDED', { subject: 'image', limit, value, maximum })
}

function invalid(subject: Buffer, reason: string): Error {
  return createError('INVALID_ENTRY', { subject, reason })
}
