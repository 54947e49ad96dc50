// From the names that a command lists to changes. A name that is there was added or modified, one that isn't was deleted: the
// tree says which. Deleted is said of the topmost directory that is gone; what a directory took the place of isn't followed.
import { change, type Change } from '../../lib/change.ts'
import type { DeltaContext } from '../../lib/context.ts'
import { wrapError } from '../../lib/errors.ts'
import { cstring, errno, SystemCallError } from '../../lib/fs/libc.ts'
import { readStated } from '../../lib/fs/open-file.ts'
import { closeTree, openTree } from '../../lib/fs/open-tree.ts'
import type { DirNode, Rooted } from '../../lib/fs/rooted.ts'
import { tryStat } from '../../lib/fs/stat.ts'
import type { Dialect } from '../../lib/layer/extraction.ts'
import {
  OpenedLayers,
  openLowerStack,
  type LowerEntry,
  type LowerStack,
} from '../../lib/layer/lower-stack.ts'
import { printable } from '../../lib/text.ts'
import type { HookCommand } from './hooks-file.ts'
import { refused } from './reply.ts'
import type { Spool } from './spool.ts'

/** Before the name of a directory that was removed and made again: all that it held is gone, but for what is in it now. */
export const opaquePrefix = '/opaque:'

const prefixBytes = Buffer.from(opaquePrefix)
const slash = 0x2f
const dot = 0x2e
const maxRemembered = 10_000

/**
 * Reads a list through, so that what is wrong with it is known before anybody relies on it.
 * @throws {FormatError} ERR_KOCI_INVALID_REPLY for what isn't a path below the rootfs
 */
export async function assertList(
  hook: HookCommand,
  context: DeltaContext,
  list: Spool,
): Promise<void> {
  for await (const { name, ended } of list.names()) {
    if (!ended) throw refused(hook, `${printable(name.subarray(-80))}: NUL expected after it`)
    const { isOpaque, rawPath } = readName(hook, name)
    if (isOpaque && context.extraction.layering !== 'stacked')
      throw refused(hook, `${printable(rawPath)}: only stacked layers have opaque directories`)
  }
}

/** The changes that a list amounts to; it is read while they are, and closed in the end. */
export async function* toChanges(
  hook: HookCommand,
  context: DeltaContext,
  list: Spool,
): AsyncGenerator<Change, void, undefined> {
  const tree = openTree(context.rootfs)
  try {
    using below = new LayersBelow(context)
    for await (const { name } of list.names()) {
      context.signal.throwIfAborted()
      const { isOpaque, rawPath } = readName(hook, name)
      const found = readStated(rawPath, () => changeAt(tree, rawPath))
      yield found.kind === 'M' && below.lacks(found.rawPath)
        ? change('A', found.rawPath)
        : found
      if (isOpaque) yield* goneFrom(below, tree, rawPath)
    }
  } catch (error) {
    throw wrapError(error, context.rootfs)
  } finally {
    closeTree(tree)
    await list.close()
  }
}

function readName(hook: HookCommand, name: Buffer): { isOpaque: boolean; rawPath: Buffer } {
  const isOpaque = name.subarray(0, prefixBytes.length).equals(prefixBytes)
  const path = isOpaque ? name.subarray(prefixBytes.length) : name
  return { isOpaque, rawPath: cleanPath(hook, path) }
}

/** `./a/b/` and `a/b` are one; the rootfs itself is the empty path. */
function cleanPath(hook: HookCommand, name: Buffer): Buffer {
  if (isClean(name)) return name
  const parts = name.toString('latin1').split('/')
  if (parts[0] === '' && parts.length > 1)
    throw refused(hook, `${printable(name)}: paths are relative to the rootfs`)
  const kept = parts.filter(part => part !== '' && part !== '.')
  if (kept.includes('..'))
    throw refused(hook, `${printable(name)}: ".." leads out of the directory`)
  return Buffer.from(kept.join('/'), 'latin1')
}

/** Whether no part of it is empty or begins with a dot, as of millions of paths almost all are: that is told without decoding. */
function isClean(name: Buffer): boolean {
  let last = slash
  for (const byte of name) {
    if (last === slash && (byte === slash || byte === dot)) return false
    last = byte
  }
  return last !== slash
}

function changeAt(tree: Rooted, rawPath: Buffer): Change {
  let node: DirNode = tree.root
  for (let start = 0; start < rawPath.length;) {
    const next = rawPath.indexOf(slash, start)
    const end = next < 0 ? rawPath.length : next
    const name = rawPath.subarray(start, end)
    if (end === rawPath.length) return change(isThere(tree, node, name) ? 'M' : 'D', rawPath)
    const found = look(tree, node, name)
    if (found === undefined) return change('D', rawPath.subarray(0, end))
    // what was beneath it is gone with the directory that was here
    if (typeof found === 'string') return change('M', rawPath.subarray(0, end))
    node = found
    start = end + 1
  }
  return change('M', rawPath)
}

/** A directory, something else, or nothing. */
function look(tree: Rooted, node: DirNode, name: Buffer): DirNode | 'other' | undefined {
  const at = cstring(name)
  const child = tree.child(node, at, name.toString('latin1'))
  return child ?? (isThere(tree, node, name) ? 'other' : undefined)
}

function isThere(tree: Rooted, node: DirNode, name: Buffer): boolean {
  const at = cstring(name)
  const stat = tryStat(tree.fdOf(node), at)
  if (stat === -errno.ENOENT) return false
  if (typeof stat === 'number') throw new SystemCallError(stat, 'statx', at)
  return true
}

/** What stacked layers show; of merged ones nobody can tell. */
class LayersBelow implements Disposable {
  readonly #dirs: readonly string[] | undefined
  readonly #dialect: Dialect
  readonly #opened = new OpenedLayers()
  #stack: LowerStack | undefined
  #lookups = 0

  constructor({ layers, extraction }: DeltaContext) {
    this.#dialect = extraction.dialect
    if (extraction.layering === 'stacked')
      this.#dirs = layers.flatMap(({ placed }) => (placed?.dir ? [placed.dir] : []))
  }

  lookup(rawPath: Buffer): LowerEntry | undefined {
    // a stack remembers every name that it was asked for
    if (this.#lookups++ % maxRemembered === 0) this.#stack = undefined
    this.#stack ??= openLowerStack(this.#dirs ?? [], this.#dialect, this.#opened)
    return this.#stack.lookup(rawPath)
  }

  /** Whether it is known to have nothing at this path. */
  lacks(rawPath: Buffer): boolean {
    return this.#dirs !== undefined && this.lookup(rawPath) === undefined
  }

  [Symbol.dispose](): void {
    this.#opened.close()
  }
}

/** What the layers below have in a directory, and the tree hasn't any more. */
function* goneFrom(
  layers: LayersBelow,
  tree: Rooted,
  rawPath: Buffer,
): Generator<Change, void, undefined> {
  const below = layers.lookup(rawPath)
  const node = readStated(rawPath, () => directoryAt(tree, rawPath))
  if (below && node) yield* compare(tree, node, below, rawPath)
}

function* compare(
  tree: Rooted,
  node: DirNode,
  { directory }: LowerEntry,
  rawPath: Buffer,
): Generator<Change, void, undefined> {
  for (const name of directory?.names() ?? []) {
    const path = rawPath.length === 0 ? name : Buffer.concat([rawPath, Buffer.from('/'), name])
    const found = readStated(path, () => look(tree, node, name))
    const below = directory?.child(name)
    if (found === undefined) yield change('D', path)
    else if (typeof found === 'object' && below) yield* compare(tree, found, below, path)
  }
}

function directoryAt(tree: Rooted, rawPath: Buffer): DirNode | undefined {
  let node: DirNode | undefined = tree.root
  for (const key of rawPath.length === 0 ? [] : rawPath.toString('latin1').split('/')) {
    const name = cstring(Buffer.from(key, 'latin1'))
    if (node) node = tree.child(node, name, key)
  }
  return node
}

/** A list of names for a command: `M path`, each ended by a NUL. */
export function encodeChange({ kind, rawPath }: Change): Buffer {
  return Buffer.concat([Buffer.from(`${kind} `), rawPath, Buffer.from([0])])
}
