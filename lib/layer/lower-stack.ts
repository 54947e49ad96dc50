// What overlayfs would show of a stack of layers, found out without mounting it: name by name, from the top down, by
// descriptors. For whoever compares with what is below: it works as an ordinary user, and on bundles that aren't mounted.
import {
  cstring,
  errno,
  readDirectory,
  S_IFCHR,
  S_IFDIR,
  S_IFMT,
  SystemCallError,
  type CString,
  type Stat,
} from '../fs/libc.ts'
import { openRooted, type DirNode, type Rooted } from '../fs/rooted.ts'
import { tryStat } from '../fs/stat.ts'
import { getXattr } from '../fs/xattr.ts'
import type { Dialect } from './extraction.ts'

const slash = 0x2f
const yes = Buffer.from('y')

/** Something that the merged view shows. */
export interface LowerEntry {
  /** Of the topmost layer that has it, by its place in the stack; 0 is the base. */
  readonly layer: number
  readonly stat: Stat
  /** For a directory: every layer that shows through in it. */
  readonly directory: LowerDirectory | undefined
  /** Runs with the descriptor of the directory that holds it, and its name there; for the root with its own and no name. */
  at<Result>(run: (dirfd: number, name: CString | undefined) => Result): Result
}

/** A directory of the merged view. */
export interface LowerDirectory {
  /** The layers that have it, top first. */
  readonly layers: readonly number[]
  /** What one of these layers has for it; ENOENT for any other. */
  statIn(layer: number): Stat
  /** Runs with the directory's descriptor in one of these layers. */
  in<Result>(layer: number, run: (fd: number) => Result): Result
  /** The names in it, bytewise sorted, whiteouts carried out. */
  names(): Buffer[]
  /** What it shows under a name of one component. */
  child(name: Buffer): LowerEntry | undefined
}

/** The merged view of layers in directories of their own. */
export interface LowerStack {
  /** The image's root; undefined if there are no layers. */
  readonly root: LowerEntry | undefined
  /** What a clean path leads to; symlinks are not followed. Undefined also where a component on the way is no directory. */
  lookup(path: Buffer): LowerEntry | undefined
  close(): void
  [Symbol.dispose](): void
}

/**
 * Opens a stack of layer directories, base first. The last component of a directory's path may not be a symlink.
 * Everything here throws SystemCallErrors. The caller closes it; entries are of no use then. With `opened`, which the caller
 * closes afterwards, several stacks share what they look into.
 */
export function openLowerStack(
  dirs: readonly string[],
  dialect: Dialect,
  opened?: OpenedLayers,
): LowerStack {
  return new Stack(dirs, dialect, opened)
}

/** Layer directories by their paths, each opened when it is first asked for. */
export class OpenedLayers {
  readonly #opened = new Map<string, Rooted>()

  /** Throws a SystemCallError. */
  open(dir: string): Rooted {
    let layer = this.#opened.get(dir)
    if (!layer) this.#opened.set(dir, (layer = openRooted(dir)))
    return layer
  }

  close(): void {
    for (const layer of this.#opened.values()) layer.close()
    this.#opened.clear()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** The attribute that makes a directory opaque in this dialect. */
export function opaqueXattr(dialect: Dialect): Buffer | undefined {
  if (dialect === 'plain') return undefined
  return Buffer.from(
    dialect === 'overlay-user' ? 'user.overlay.opaque' : 'trusted.overlay.opaque',
  )
}

function isDirectory(stat: Stat): boolean {
  return (stat.mode & S_IFMT) === S_IFDIR
}

/** Whether it stands for a deleted name. */
export function isWhiteoutDevice(stat: Stat): boolean {
  return (stat.mode & S_IFMT) === S_IFCHR && stat.rdevMajor === 0 && stat.rdevMinor === 0
}

class Stack implements LowerStack {
  readonly root: LowerEntry | undefined
  readonly layers: Rooted[] = []
  readonly opaque: Buffer | undefined
  /** What is to be closed with it. */
  readonly #own: OpenedLayers | undefined

  constructor(dirs: readonly string[], dialect: Dialect, opened?: OpenedLayers) {
    this.opaque = opaqueXattr(dialect)
    const source = opened ?? new OpenedLayers()
    this.#own = opened ? undefined : source
    try {
      for (const dir of dirs) this.layers.push(source.open(dir))
    } catch (error) {
      this.close()
      throw error
    }
    const parts = this.layers.map((layer, index) => ({ layer: index, node: layer.root }))
    const top = parts.at(-1)
    if (top) {
      const directory = new Directory(this, parts.toReversed())
      this.root = new Entry(this, top.layer, top.node.stat, directory, top.node, undefined)
    }
  }

  lookup(path: Buffer): LowerEntry | undefined {
    let entry = this.root
    for (const name of components(path)) entry = entry?.directory?.child(name)
    return entry
  }

  close(): void {
    this.#own?.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

interface Part {
  readonly layer: number
  readonly node: DirNode
}

class Directory implements LowerDirectory {
  readonly #stack: Stack
  /** Top first. */
  readonly #parts: readonly Part[]
  readonly #children = new Map<string, LowerEntry | undefined>()

  constructor(stack: Stack, parts: readonly Part[]) {
    this.#stack = stack
    this.#parts = parts
  }

  get layers(): readonly number[] {
    return this.#parts.map(({ layer }) => layer)
  }

  statIn(layer: number): Stat {
    return this.#part(layer).node.stat
  }

  in<Result>(layer: number, run: (fd: number) => Result): Result {
    return this.#rooted(layer).pinned(this.#part(layer).node, run)
  }

  names(): Buffer[] {
    const names = new Map<string, Buffer>()
    for (const { layer, node } of this.#parts)
      for (const { name } of readDirectory(this.#rooted(layer).fdOf(node)))
        names.set(name.toString('latin1'), name)
    return [...names.values()]
      .filter(name => this.child(name) !== undefined)
      .sort((one, other) => Buffer.compare(one, other))
  }

  child(name: Buffer): LowerEntry | undefined {
    const key = name.toString('latin1')
    if (this.#children.has(key)) return this.#children.get(key)
    const entry = this.#find(cstring(name), key)
    this.#children.set(key, entry)
    return entry
  }

  #find(name: CString, key: string): LowerEntry | undefined {
    const stack = this.#stack
    const parts: Part[] = []
    let top: { readonly layer: number; readonly node: DirNode; readonly stat: Stat } | undefined
    const base = this.#parts.at(-1)
    for (const part of this.#parts) {
      const { layer, node } = part
      const rooted = this.#rooted(layer)
      // most that is looked for is a directory, or isn't there: opening it tells, and is needed anyway
      const child = rooted.tryChild(node, name, key)
      if (child === -errno.ENOENT) continue
      if (typeof child !== 'number') {
        top ??= { layer, node, stat: child.stat }
        parts.push({ layer, node: child })
        if (part !== base && this.#isOpaque(rooted, child)) break
        continue
      }
      if (top) break
      const stat = tryStat(rooted.fdOf(node), name)
      if (typeof stat === 'number') throw new SystemCallError(stat, 'statx', name)
      if (isDirectory(stat)) throw new SystemCallError(-errno.ESTALE, 'openat', name)
      if (!isWhiteoutDevice(stat) || stack.opaque === undefined) top = { layer, node, stat }
      break
    }
    if (!top) return undefined
    const directory = parts.length > 0 ? new Directory(stack, parts) : undefined
    return new Entry(stack, top.layer, top.stat, directory, top.node, name)
  }

  #isOpaque(rooted: Rooted, node: DirNode): boolean {
    const { opaque } = this.#stack
    return opaque !== undefined && getXattr(rooted.fdOf(node), opaque)?.equals(yes) === true
  }

  #part(layer: number): Part {
    const part = this.#parts.find(each => each.layer === layer)
    if (!part) throw new SystemCallError(-errno.ENOENT, 'openat')
    return part
  }

  #rooted(layer: number): Rooted {
    return this.#stack.layers[layer] as Rooted
  }
}

class Entry implements LowerEntry {
  readonly layer: number
  readonly stat: Stat
  readonly directory: LowerDirectory | undefined
  readonly #stack: Stack
  /** The directory that holds it, in its layer; for the root itself. */
  readonly #node: DirNode
  readonly #name: CString | undefined

  constructor(
    stack: Stack,
    layer: number,
    stat: Stat,
    directory: LowerDirectory | undefined,
    node: DirNode,
    name: CString | undefined,
  ) {
    this.#stack = stack
    this.layer = layer
    this.stat = stat
    this.directory = directory
    this.#node = node
    this.#name = name
  }

  at<Result>(run: (dirfd: number, name: CString | undefined) => Result): Result {
    const rooted = this.#stack.layers[this.layer] as Rooted
    return rooted.pinned(this.#node, fd => run(fd, this.#name))
  }
}

function* components(path: Buffer): Generator<Buffer> {
  for (let start = 0; start < path.length;) {
    const next = path.indexOf(slash, start)
    const end = next < 0 ? path.length : next
    yield path.subarray(start, end)
    start = end + 1
  }
}
