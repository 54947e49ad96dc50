// A tree of this machine as the entries of a layer. It is only read, and may change meanwhile: what vanishes is left out.
import {
  closeSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs'
import type { BigIntStats } from 'node:fs'
import type { LayerEntry } from '../lib/layer/layer-writer.ts'

/** What to take of a tree. */
export interface TreeOptions {
  /** Where it is put, without a slash at either end; the directories above come first. Empty: it is the root. */
  readonly as: string
  /** Paths of the machine that are left out. */
  readonly skip?: readonly string[]
  /** No file is begun once so many bytes were taken. */
  readonly maxBytes: number
}

const slash = Buffer.from('/')
const pieceSize = 1 << 20
const types: Record<number, LayerEntry['type']> = {
  0o100000: 'file',
  0o040000: 'directory',
  0o120000: 'symlink',
}

/** Yields directories, files, links and hard links, by name; nothing else, and no extended attributes. */
export function* treeEntries(root: string, options: TreeOptions): Generator<LayerEntry> {
  const links = new Map<string, Buffer>()
  const skip = new Set(options.skip)
  let bytes = 0
  yield* parents(options.as)
  yield* visit(Buffer.from(root), Buffer.from(options.as))

  function* visit(source: Buffer, rawPath: Buffer): Generator<LayerEntry> {
    if (skip.has(source.toString())) return
    const stat = tryDo(() => lstatSync(source, { bigint: true }))
    const type = stat && types[Number(stat.mode) & 0o170000]
    if (!stat || !type) return
    if (type === 'file') {
      if (bytes > options.maxBytes) return
      bytes += Number(stat.size)
    }
    const entry = entryOf(source, rawPath, type, stat, links)
    if (!entry) return
    yield entry
    if (type !== 'directory') return
    const names = tryDo(() => readdirSync(source, { encoding: 'buffer' })) ?? []
    for (const name of names.sort((a, b) => Buffer.compare(a, b)))
      // such names mean something else in a layer
      if (!name.toString('latin1').startsWith('.wh.'))
        yield* visit(join(source, name), join(rawPath, name))
  }
}

/** The directories above a path. */
export function* parents(path: string): Generator<LayerEntry> {
  const parts = path.split('/')
  for (let length = 1; length < parts.length; length += 1)
    yield directoryEntry(parts.slice(0, length).join('/'))
}

/** A directory of root's. */
export function directoryEntry(path: string): LayerEntry {
  return { ...plain, rawPath: Buffer.from(path), type: 'directory', mode: 0o755 }
}

/** A file of root's, with this content. */
export function fileEntry(path: string, content: Buffer): LayerEntry {
  return {
    ...plain,
    rawPath: Buffer.from(path),
    type: 'file',
    size: content.length,
    body: () => [content],
  }
}

/** The removal of a path. */
export function whiteoutEntry(rawPath: Buffer): LayerEntry {
  return { ...plain, rawPath, type: 'whiteout' }
}

const plain = { mode: 0o644, uid: 0, gid: 0, size: 0, mtime: 1_700_000_000_000_000_000n }

function entryOf(
  source: Buffer,
  rawPath: Buffer,
  type: LayerEntry['type'],
  stat: BigIntStats,
  links: Map<string, Buffer>,
): LayerEntry | undefined {
  const common = {
    rawPath,
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    size: 0,
    mtime: stat.mtimeNs,
  }
  if (type === 'symlink') {
    const rawLinkname = tryDo(() => readlinkSync(source, { encoding: 'buffer' }))
    return rawLinkname && { ...common, type, rawLinkname }
  }
  if (type !== 'file') return { ...common, type }
  if (stat.nlink > 1n) {
    const inode = `${stat.dev}:${stat.ino}`
    const rawLinkname = links.get(inode)
    if (rawLinkname) return { ...common, type: 'hardlink', rawLinkname }
    links.set(inode, rawPath)
  }
  const size = Number(stat.size)
  // opened once before, so that what can't be read isn't begun
  const fd = tryDo(() => openSync(source, 'r'))
  if (fd === undefined) return undefined
  closeSync(fd)
  return { ...common, type, size, body: () => readBody(source, size) }
}

/** Exactly `size` bytes, whatever has become of the file. */
function* readBody(source: Buffer, size: number): Generator<Buffer> {
  const fd = openSync(source, 'r')
  try {
    const there = fstatSync(fd).size
    for (let at = 0; at < size;) {
      const piece = Buffer.alloc(Math.min(pieceSize, size - at))
      if (at < there) readSync(fd, piece, 0, piece.length, at)
      yield piece
      at += piece.length
    }
  } finally {
    closeSync(fd)
  }
}

function join(directory: Buffer, name: Buffer): Buffer {
  return directory.length === 0 ? name : Buffer.concat([directory, slash, name])
}

/** Undefined for what may not be read, or is gone. */
function tryDo<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
