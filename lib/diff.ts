// How the trees of two images differ, without unpacking either: the layers that both have at the base are read once, and of
// all others the entries; contents only of files that nothing else tells apart.
import { change, type Change } from './change.ts'
import { ImageTree, pairs, type Inode, type TreeNode } from './layer/image-tree.ts'
import type { Layer } from './layer/layer.ts'
import { readTree, sumOf, WantedFiles } from './layer/read-tree.ts'
import { openImage, type ImageOptions } from './layout/open-image.ts'
import { layersOf } from './unpack.ts'

/** What of a path can differ. */
export type Aspect =
  'type' | 'size' | 'content' | 'target' | 'device' | 'mode' | 'owner' | 'xattrs' | 'mtime'

/** A path that isn't the same in both images. */
export interface Difference extends Change {
  /** Of an `M`. */
  readonly aspects: readonly Aspect[]
  /** Bytes of a file, undefined for what is none; of a directory that is gone, those of all files in it. */
  readonly oldSize: number | undefined
  readonly newSize: number | undefined
}

/** Which images. */
export interface DiffOptions {
  readonly before: ImageOptions
  readonly after: ImageOptions
  /** Something of which only the modification time differs is the same. @default false */
  readonly ignoreTimes?: boolean | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Lists what differs between the trees of two images, sorted bytewise; of what is gone only the topmost directory. Whether
 * two names are one file isn't compared.
 * @throws {KociError} whatever is wrong with the images
 */
export async function diffImages(options: DiffOptions): Promise<readonly Difference[]> {
  const before = await openImage(options.before)
  try {
    const after = await openImage(options.after)
    try {
      return await diffLayers(layersOf(before), layersOf(after), options)
    } finally {
      await after.layout.close()
    }
  } finally {
    await before.layout.close()
  }
}

async function diffLayers(
  old: readonly Layer[],
  now: readonly Layer[],
  { ignoreTimes = false, signal }: DiffOptions,
): Promise<readonly Difference[]> {
  const common = commonLength(old, now)
  if (common === old.length && common === now.length) return []

  const oldTree = new ImageTree()
  await readTree(oldTree, old.slice(0, common), signal)
  const newTree = oldTree.clone()
  await readTree(oldTree, old.slice(common), signal)
  await readTree(newTree, now.slice(common), signal)

  const found: { path: string; before?: TreeNode; after?: TreeNode; aspects: Aspect[] }[] = []
  const doubtful: { a: Inode; b: Inode; aspects: Aspect[] }[] = []
  for (const { path, before, after } of pairs(oldTree, newTree)) {
    const [a, b] = [before?.inode, after?.inode]
    if (a && b && (a === b || isSameEntry(a, old, b, now))) continue
    const aspects = a && b ? compare(a, b, ignoreTimes) : []
    found.push({ path, ...(before ? { before } : {}), ...(after ? { after } : {}), aspects })
    const isDoubtful = a?.type === 'file' && b?.type === 'file' && a.size === b.size
    if (isDoubtful && a.size > 0) doubtful.push({ a, b, aspects })
  }
  await compareContents(doubtful, old, now, signal)
  return found
    .filter(({ before, after, aspects }) => !before || !after || aspects.length > 0)
    .map(({ path, before, after, aspects }) => ({
      ...change(before ? (after ? 'M' : 'D') : 'A', Buffer.from(path, 'latin1')),
      aspects: aspects.toSorted(),
      oldSize: before && sizeOf(before, after === undefined),
      newSize: after && sizeOf(after, false),
    }))
    .sort((a, b) => Buffer.compare(a.rawPath, b.rawPath))
}

function commonLength(old: readonly Layer[], now: readonly Layer[]): number {
  const at = old.findIndex(({ diffID }, index) => diffID !== now[index]?.diffID)
  return at < 0 ? old.length : at
}

/** The very same entry, of a layer that both have, but not at the base. */
function isSameEntry(
  a: Inode,
  old: readonly Layer[],
  b: Inode,
  now: readonly Layer[],
): boolean {
  if (!a.source || !b.source || a.source.entry !== b.source.entry) return false
  return old[a.source.layer]?.diffID === now[b.source.layer]?.diffID
}

function compare(a: Inode, b: Inode, ignoreTimes: boolean): Aspect[] {
  if (a.type !== b.type) return ['type']
  const isLink = a.type === 'symlink'
  const different: readonly (Aspect | false)[] = [
    a.size !== b.size && 'size',
    !a.rawLinkname.equals(b.rawLinkname) && 'target',
    (a.devmajor !== b.devmajor || a.devminor !== b.devminor) && 'device',
    !isLink && a.mode !== b.mode && 'mode',
    (a.uid !== b.uid || a.gid !== b.gid) && 'owner',
    !hasSameXattrs(a, b) && 'xattrs',
    !ignoreTimes && a.mtime !== b.mtime && 'mtime',
  ]
  return different.filter(aspect => aspect !== false)
}

function hasSameXattrs({ xattrs: a }: Inode, { xattrs: b }: Inode): boolean {
  if (a.length !== b.length) return false
  const values = new Map(b.map(([name, value]) => [name.toString('latin1'), value]))
  return a.every(([name, value]) => values.get(name.toString('latin1'))?.equals(value) === true)
}

/** Adds `content` where it differs. */
async function compareContents(
  doubtful: readonly { a: Inode; b: Inode; aspects: Aspect[] }[],
  old: readonly Layer[],
  now: readonly Layer[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const sums = new Map<Inode, string>()
  for (const [which, layers] of [
    ['a', old],
    ['b', now],
  ] as const) {
    const wanted = new WantedFiles<Inode>()
    for (const pair of doubtful) wanted.add(pair[which], pair[which])
    for await (const { wanted: inode, body } of wanted.read(layers, signal))
      sums.set(inode, await sumOf(body))
  }
  for (const { a, b, aspects } of doubtful)
    if (sums.get(a) !== sums.get(b)) aspects.push('content')
}

function sizeOf(node: TreeNode, withContent: boolean): number | undefined {
  if (node.inode.type === 'file') return node.inode.size
  if (!node.children || !withContent) return undefined
  const inodes = new Set<Inode>()
  const pending = [node]
  for (let next = pending.pop(); next; next = pending.pop()) {
    if (next.inode.type === 'file') inodes.add(next.inode)
    for (const child of next.children?.values() ?? []) pending.push(child)
  }
  return inodes.values().reduce((sum, { size }) => sum + size, 0)
}
