// What an image's layers amount to, worked out on a tree in memory: the rules of the image-spec in their plainest form,
// with nothing of koci's engine in it, to compare koci's result with. Slow, recursive, and says no the same way.
import { createHash } from 'node:crypto'
import { printable } from '../../lib/text.ts'

/** An entry of a layer. Whiteouts are files of their names. */
export interface Entry {
  readonly type: 'file' | 'directory' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo'
  /** As the tar has it: perhaps absolute, with dots, with a slash at the end. */
  readonly path: Buffer
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Nanoseconds. */
  readonly mtime: bigint
  /** Of a file; or what is known of it. */
  readonly content: Buffer | { readonly size: number; readonly sha256: string }
  /** Of a symlink, or a hard link. */
  readonly linkname: Buffer
  readonly devmajor: number
  readonly devminor: number
  readonly xattrs: ReadonlyArray<readonly [name: Buffer, value: Buffer]>
}

/** Why an entry can't be applied; `code` is the error's without `ERR_KOCI_`. */
export class Refusal extends Error {
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** How ownership is kept: by name, or, without privileges, in an attribute of what belongs to this user. */
export interface OracleOptions {
  readonly rootless?: { readonly uid: number; readonly gid: number } | undefined
}

interface Inode {
  type: 'file' | 'dir' | 'link' | 'char' | 'block' | 'fifo'
  mode: number
  uid: number
  gid: number
  mtime: bigint
  xattrs: ReadonlyMap<string, Buffer>
  /** Size and hash, link target, or device numbers, as they are printed. */
  extra: string
  /** Verbatim, of a symlink. */
  target: Buffer
  names: number
  /** A directory that has its metadata from no entry. */
  implied: boolean
}

/** A name, and the layer that wrote it. Directories have their content, and the layer that listed or made them. */
interface Binding {
  readonly inode: Inode
  writtenIn: number
  readonly children: Map<string, Binding> | undefined
  readonly parent: Binding | undefined
}

interface Directory extends Binding {
  readonly children: Map<string, Binding>
}

const maxLinks = 255
const whiteoutPrefix = '.wh.'
const opaque = '.wh..wh..opq'

/** A rootfs, to which layers are applied entry by entry. */
export class Oracle {
  readonly #root: Directory
  readonly #options: OracleOptions
  #layer = -1

  constructor(options: OracleOptions = {}) {
    this.#options = options
    this.#root = {
      inode: this.#implied(),
      writtenIn: -1,
      children: new Map(),
      parent: undefined,
    }
  }

  /** All that follows is of the next layer. */
  beginLayer(): void {
    this.#layer += 1
  }

  /** @throws {Refusal} after which the tree is not to be used */
  apply(entry: Entry): void {
    const path = clean(entry.path)
    const name = path.at(-1)
    if (name === undefined) {
      if (entry.type !== 'directory')
        throw new Refusal('INVALID_ENTRY', 'the root is no directory')
      this.#describe(this.#root, entry)
      return
    }
    if (name.startsWith(whiteoutPrefix)) {
      this.#applyWhiteout(path.slice(0, -1), name)
      return
    }
    const parent = this.#directory(path.slice(0, -1), true)
    if (entry.type === 'hardlink') this.#link(parent, name, entry)
    else if (entry.type === 'directory') this.#makeDirectory(parent, name, entry)
    else this.#bind(parent, name, this.#inodeOf(entry))
  }

  /** In the form of `describeTree`. */
  describe(): string[] {
    const first = new Map<Inode, string>()
    return this.#all().map(([path, inode]) => line(path, inode, first))
  }

  /** Directories that no entry describes, or not since a whiteout hid them: not all programs agree what they are like. */
  implied(): string[] {
    return this.#all().flatMap(([path, inode]) => (inode.implied ? [path] : []))
  }

  #all(): Array<[path: string, inode: Inode]> {
    const found: Array<[string, Inode]> = []
    const visit = (path: string, { inode, children }: Binding): void => {
      found.push([path === '' ? '.' : path, inode])
      for (const [name, child] of [...(children ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))) {
        const text = printable(Buffer.from(name, 'latin1'))
        visit(path === '' ? text : `${path}/${text}`, child)
      }
    }
    visit('', this.#root)
    return found
  }

  /** Whether there is something of that name, links not followed. */
  has(path: Buffer): boolean {
    return this.#plainly(clean(path)) !== undefined
  }

  /** Whether all that a path goes through are directories. */
  hasParent(path: Buffer): boolean {
    const parent = this.#plainly(clean(path).slice(0, -1))
    return parent !== undefined && isDirectory(parent)
  }

  /** Whether a path goes through something that is neither a directory nor a link. */
  hasFileParent(path: Buffer): boolean {
    try {
      this.#directory(clean(path).slice(0, -1), false)
      return false
    } catch (error) {
      return error instanceof Refusal && error.code === 'occupied'
    }
  }

  #plainly(path: readonly string[]): Binding | undefined {
    let at: Binding | undefined = this.#root
    for (const name of path) at = at?.children?.get(name)
    return at
  }

  #applyWhiteout(parent: readonly string[], name: string): void {
    const rest = name.slice(whiteoutPrefix.length)
    if (rest === '' || rest === '.' || rest === '..')
      throw new Refusal('INVALID_WHITEOUT', 'it names nothing that could be deleted')
    const isOpaque = name === opaque
    if (rest.startsWith(whiteoutPrefix) && !isOpaque) return
    // there is nothing below the first layer
    if (this.#layer === 0) return
    const directory = this.#hidden(parent)
    if (directory === undefined) {
      if (isOpaque) this.#hideFile(parent)
    } else if (isOpaque) this.#hideContent(directory)
    else this.#hide(directory, rest)
  }

  /** Deletes a name of lower layers; a directory in which this layer wrote loses what isn't this layer's. */
  #hide(directory: Directory, name: string): void {
    const binding = directory.children.get(name)
    if (binding === undefined) return
    if (!this.#isOurs(binding)) this.#unbind(directory, name)
    else if (isDirectory(binding)) {
      if (binding.writtenIn !== this.#layer) Object.assign(binding.inode, this.#implied())
      this.#hideContent(binding)
    }
  }

  #hideContent(directory: Directory): void {
    for (const name of directory.children.keys()) this.#hide(directory, name)
  }

  /** An opaque directory where lower layers have a file. */
  #hideFile(path: readonly string[]): void {
    const name = path.at(-1)
    const directory = this.#hidden(path.slice(0, -1))
    if (name === undefined || directory === undefined) return
    const type = directory.children.get(name)?.inode.type
    if (type !== 'dir' && type !== 'link') this.#hide(directory, name)
  }

  /** Whether this layer wrote the name, or anything beneath it. */
  #isOurs(binding: Binding): boolean {
    if (binding.writtenIn === this.#layer) return true
    return [...(binding.children?.values() ?? [])].some(child => this.#isOurs(child))
  }

  #makeDirectory(parent: Directory, name: string, entry: Entry): void {
    const existing = parent.children.get(name)
    const directory =
      existing !== undefined && isDirectory(existing)
        ? existing
        : this.#bind(parent, name, this.#implied())
    this.#describe(directory, entry)
  }

  #describe(directory: Binding, entry: Entry): void {
    Object.assign(directory.inode, this.#inodeOf(entry), { names: 1 })
    directory.writtenIn = this.#layer
  }

  #link(parent: Directory, name: string, entry: Entry): void {
    const path = clean(entry.linkname)
    const last = path.at(-1)
    const directory = this.#find(path.slice(0, -1))
    const target = last === undefined ? this.#root : directory?.children.get(last)
    if (target === undefined) throw new Refusal('INVALID_ENTRY', 'the target does not exist')
    if (isDirectory(target)) throw new Refusal('INVALID_ENTRY', 'the target is a directory')
    if (directory === parent && last === name)
      throw new Refusal('INVALID_ENTRY', 'it links to itself')
    const replaced = parent.children.get(name)
    for (let at: Binding | undefined = directory; at !== undefined; at = at.parent)
      if (at === replaced) throw new Refusal('INVALID_ENTRY', 'it would replace its target')
    this.#bind(parent, name, target.inode)
  }

  #bind(parent: Directory, name: string, inode: Inode): Directory {
    this.#unbind(parent, name)
    inode.names += 1
    const children = new Map<string, Binding>()
    const binding = { inode, writtenIn: this.#layer, children, parent }
    const isFile = inode.type !== 'dir'
    parent.children.set(name, isFile ? { ...binding, children: undefined } : binding)
    return binding
  }

  #unbind(parent: Directory, name: string): void {
    const binding = parent.children.get(name)
    if (binding === undefined) return
    if (isDirectory(binding))
      for (const below of binding.children.keys()) this.#unbind(binding, below)
    binding.inode.names -= 1
    parent.children.delete(name)
  }

  /** Where a whiteout hides something; links that lead in a circle lead nowhere. */
  #hidden(path: readonly string[]): Directory | undefined {
    try {
      return this.#find(path)
    } catch (error) {
      if (error instanceof Refusal && error.code === 'IO') return undefined
      throw error
    }
  }

  /** Undefined where there is none. */
  #find(path: readonly string[]): Directory | undefined {
    try {
      return this.#directory(path, false)
    } catch (error) {
      if (error instanceof Refusal && ['missing', 'occupied'].includes(error.code))
        return undefined
      throw error
    }
  }

  /** The directory that a path leads to, as after chroot(2); made of whatever is on the way, if need be. */
  #directory(path: readonly string[], create: boolean): Directory {
    let at = this.#root
    let links = 0
    const rest = [...path]
    for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
      if (name === '' || name === '.') continue
      if (name === '..') {
        at = (at.parent as Directory | undefined) ?? at
        continue
      }
      const next: Binding | undefined = at.children.get(name)
      if (next !== undefined && isDirectory(next)) at = next
      else if (next?.inode.type === 'link') {
        links += 1
        if (links > maxLinks) throw new Refusal('IO', 'too many links')
        const text = next.inode.target.toString('latin1')
        if (text.startsWith('/')) at = this.#root
        rest.unshift(...text.split('/'))
      } else if (create) at = this.#bind(at, name, this.#implied())
      else throw new Refusal(next ? 'occupied' : 'missing', 'no such directory')
    }
    return at
  }

  #implied(): Inode {
    return {
      type: 'dir',
      mode: 0o755,
      ...(this.#options.rootless ?? { uid: 0, gid: 0 }),
      mtime: 0n,
      xattrs: new Map(),
      extra: '',
      target: Buffer.alloc(0),
      names: 0,
      implied: true,
    }
  }

  #inodeOf(entry: Entry): Inode {
    const { rootless } = this.#options
    const isDevice = entry.type === 'char' || entry.type === 'block'
    const type = rootless && isDevice ? 'file' : shortTypes[entry.type]
    const xattrs = new Map(
      entry.xattrs.map(([name, value]) => [name.toString('latin1'), value]),
    )
    const { uid, gid } = entry
    if (rootless && (uid !== 0 || gid !== 0) && (type === 'file' || type === 'dir'))
      xattrs.set('user.rootlesscontainers', encodeOwner(uid, gid))
    const content = isDevice ? { size: 0, sha256: emptySum } : contentOf(entry)
    return {
      type,
      mode: type === 'link' ? 0o777 : entry.mode,
      ...(rootless ?? { uid, gid }),
      mtime: entry.mtime,
      xattrs,
      extra:
        type === 'file'
          ? `${content.size} ${content.sha256.slice(0, 16)}`
          : type === 'link'
            ? `-> ${printable(entry.linkname)}`
            : isDevice
              ? `${entry.devmajor},${entry.devminor}`
              : '',
      target: entry.linkname,
      names: 0,
      implied: false,
    }
  }
}

const emptySum = sum(Buffer.alloc(0))
const shortTypes = {
  file: 'file',
  directory: 'dir',
  symlink: 'link',
  hardlink: 'file',
  char: 'char',
  block: 'block',
  fifo: 'fifo',
} as const

/** The rootfs that an image's layers make; throws the first Refusal. */
export function applyAll(
  layers: ReadonlyArray<readonly Entry[]>,
  options: OracleOptions = {},
): Oracle {
  const oracle = new Oracle(options)
  for (const layer of layers) {
    oracle.beginLayer()
    for (const entry of layer) oracle.apply(entry)
  }
  return oracle
}

/** The components of a name, lexically. */
function clean(path: Buffer): string[] {
  const parts: string[] = []
  for (const part of path.toString('latin1').split('/')) {
    if (part === '' || part === '.') continue
    if (part !== '..') parts.push(part)
    else if (parts.pop() === undefined) throw new Refusal('PATH_ESCAPE', 'it climbs')
  }
  return parts
}

function isDirectory(binding: Binding): binding is Directory {
  return binding.children !== undefined
}

function contentOf({ content }: Entry): { size: number; sha256: string } {
  return Buffer.isBuffer(content) ? { size: content.length, sha256: sum(content) } : content
}

function sum(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex')
}

function line(path: string, inode: Inode, first: Map<Inode, string>): string {
  const { type, mode, uid, gid, extra, mtime, xattrs } = inode
  const parts = [path, type, mode.toString(8), `${uid}:${gid}`]
  if (extra !== '') parts.push(extra)
  parts.push(`@${mtime}`)
  parts.push(
    ...[...xattrs]
      .map(
        ([name, value]) => `${printable(Buffer.from(name, 'latin1'))}=${value.toString('hex')}`,
      )
      .sort(),
  )
  if (type !== 'dir' && inode.names > 1) {
    const known = first.get(inode)
    if (known === undefined) first.set(inode, path)
    else parts.push(`=${known}`)
  }
  return parts.join(' ')
}

/** The message of `user.rootlesscontainers`: field 1 the user, field 2 the group, -1 standing for 0. */
function encodeOwner(uid: number, gid: number): Buffer {
  const varint = (value: number): number[] => {
    const bytes: number[] = []
    for (let rest = BigInt(value === 0 ? 0xffffffff : value); ; rest >>= 7n) {
      if (rest < 0x80n) return [...bytes, Number(rest)]
      bytes.push(Number(rest & 0x7fn) | 0x80)
    }
  }
  return Buffer.from([0x08, ...varint(uid), 0x10, ...varint(gid)])
}
