// Files from outside become a layer of an image: a tree of the host at some path in it, or a whiteout of a path.
// Parents of the path aren't in the layer: they stay what they are below.
import { lstatSync, type Stats } from 'node:fs'
import path from 'node:path'
import { joinPath } from '../bundle/record.ts'
import { leaveDirectory } from '../bundle/scan.ts'
import { change, leafChange, type Change } from '../change.ts'
import { createError, wrapError } from '../errors.ts'
import type { Warning } from '../events.ts'
import { cstring, DT_DIR, DT_UNKNOWN } from '../fs/libc.ts'
import { scanError } from '../fs/open-file.ts'
import { closeTree, openTree } from '../fs/open-tree.ts'
import type { DirNode, Rooted } from '../fs/rooted.ts'
import { readEntries } from '../fs/walk.ts'
import { addLayer, type ChangeOptions } from '../layout/change-image.ts'
import type { ResolvedImage } from '../layout/image-layout.ts'
import { Extraction, type Mapping } from './extraction.ts'
import type { LayerEntry } from './layer-writer.ts'
import { packEntries } from './pack-entries.ts'
import { chooseCompression, writeLayerBlob, type Compress } from './write-layer-blob.ts'

/** What is inserted, and where. */
export interface InsertOptions extends ChangeOptions, Mapping {
  /** A file or directory of the host; a symlink is inserted as one. Undefined: `target` is removed instead. */
  readonly source: string | undefined
  /** The path in the image; relative to its root, which `..` doesn't leave. */
  readonly target: string
  /** Nothing that lower layers have in the directory `target` stays visible. @default false */
  readonly opaque?: boolean | undefined
  /** `auto` takes what the newest layer of the image has. @default 'auto' */
  readonly compress?: Compress | undefined
  /** Of the new layer's descriptor. */
  readonly annotations?: Readonly<Record<string, string>> | undefined
  readonly signal: AbortSignal
  readonly warn: (warning: Warning) => void
}

/**
 * Puts a layer on top of an image that adds `source` at `target`, or removes `target`.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for something that can't be at `target`; {FormatError}
 * ERR_KOCI_INVALID_WHITEOUT for a name that would be a whiteout, ERR_KOCI_INVALID_ENTRY for an owner in no id map;
 * {IntegrityError} ERR_KOCI_FILE_CHANGED. The image is as it was then.
 */
export function insertLayer(options: InsertOptions): Promise<ResolvedImage> {
  const { source, target, compress = 'auto', annotations } = options
  const entries = source === undefined ? whiteout(target) : insertion(source, options)
  return addLayer(options, async ({ layout, manifest }) => {
    const compression = chooseCompression(compress, manifest)
    return { ...(await writeLayerBlob(layout, entries, compression)), annotations }
  })
}

const nothing = { mode: 0, uid: 0, gid: 0, size: 0, mtime: 0n }

async function* whiteout(target: string): AsyncGenerator<LayerEntry, void, undefined> {
  const rawPath = toRawPath(target)
  if (rawPath.length === 0) throw invalid(target, 'the root itself can not be removed')
  yield { rawPath, type: 'whiteout', ...nothing }
}

async function* insertion(
  source: string,
  options: InsertOptions,
): AsyncGenerator<LayerEntry, void, undefined> {
  const rawTarget = toRawPath(options.target)
  const isDirectory = stat(source).isDirectory()
  if (!isDirectory && rawTarget.length === 0)
    throw invalid(options.target, `${source} is no directory and can not be the root`)
  if (!isDirectory && /\/\.?$/.test(options.target))
    throw invalid(
      options.target,
      `${source} is no directory - give the whole path, with the name of the file`,
    )
  // what is no directory replaces one, with all that is in it
  if (isDirectory && options.opaque)
    yield { rawPath: rawTarget, type: 'opaqueWhiteout', ...nothing }

  const { signal, warn } = options
  const file = path.resolve(source)
  const rootfs = isDirectory ? file : path.dirname(file)
  const name = Buffer.from(path.basename(file))
  const changes = isDirectory ? walk(rootfs) : [change('A', name)]
  const place = (rawPath: Buffer): Buffer =>
    isDirectory ? join(rawTarget, rawPath) : rawTarget
  const tree = { rootfs, changes, extraction: new Extraction(options), signal, warn }
  for await (const entry of packEntries(tree)) {
    const rawPath = place(entry.rawPath)
    const { rawLinkname } = entry
    if (entry.type === 'hardlink' && rawLinkname)
      yield { ...entry, rawPath, rawLinkname: place(rawLinkname) }
    else yield { ...entry, rawPath }
  }
}

/** A directory and everything in it, each directory before what is in it, names sorted. */
function* walk(directory: string): Generator<Change, void, undefined> {
  const root = openTree(directory)
  try {
    yield change('A', Buffer.alloc(0))
    yield* walkDirectory(root, root.root, Buffer.alloc(0))
  } catch (error) {
    throw scanError(error, directory)
  } finally {
    closeTree(root)
  }
}

function* walkDirectory(
  root: Rooted,
  node: DirNode,
  rawPath: Buffer,
): Generator<Change, void, undefined> {
  for (const { name, type } of readEntries(root.fdOf(node))) {
    const rawName = Buffer.from(name)
    const rawChild = joinPath(rawPath, rawName)
    // it is stat'ed by now, before its mode may be widened here
    const mayBeDirectory = type === DT_DIR || type === DT_UNKNOWN
    yield mayBeDirectory ? change('A', rawChild) : leafChange('A', rawChild)
    if (!mayBeDirectory) continue
    const child = root.child(node, cstring(rawName), rawName.toString('latin1'))
    if (!child && type === DT_DIR) throw createError('FILE_CHANGED', { subject: rawChild })
    if (!child) continue
    yield* walkDirectory(root, child, rawChild)
    leaveDirectory(root, child)
  }
}

function join(directory: Buffer, rawPath: Buffer): Buffer {
  return rawPath.length === 0 ? directory : joinPath(directory, rawPath)
}

/** Without empty components, `.`, and `..`, which stops at the root. */
function toRawPath(target: string): Buffer {
  return Buffer.from(path.posix.resolve('/', target).slice(1))
}

function stat(source: string): Stats {
  try {
    return lstatSync(source)
  } catch (error) {
    throw wrapError(error, source)
  }
}

function invalid(subject: string, reason: string): Error {
  return createError('INVALID_OPTION', { subject, reason })
}
