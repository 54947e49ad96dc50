// The record of a bundle of stacked layers, put together from those of its layers: what overlayfs shows of them, worked out
// row by row. Only for who really compares with it; it knows no inodes, so that every file is read then.
import type { Xattr } from '../fs/entry-xattrs.ts'
import { S_IFCHR, S_IFMT } from '../fs/libc.ts'
import type { Dialect } from '../layer/extraction.ts'
import type { StackingReport } from '../layer/layer.ts'
import { opaqueXattr } from '../layer/lower-stack.ts'
import { overlayNamespace } from '../layer/metadata.ts'
import type { Extra } from './extra.ts'
import { RecordBuilder, type Row } from './record-builder.ts'
import type { TreeRecord } from './record.ts'

/** A layer in a directory of its own. */
export interface RecordedLayer {
  readonly record: TreeRecord
  /** Without it every directory counts as the layer's own. */
  readonly stacking?: StackingReport | undefined
}

/** What a layer has of a directory. */
interface Part {
  readonly layer: RecordedLayer
  readonly row: number
  /** An opaque directory is above: nothing in this one is seen, but it may give the other one its looks. */
  readonly isHidden?: boolean
}

/** One name in a directory: what the topmost layer has, or every layer that has a directory. */
interface Child {
  readonly name: string
  readonly parts: readonly Part[]
  readonly isDirectory: boolean
}

/**
 * Assembles the record; layers base first. `root` is the image's root where no layer has an entry for it. All of it is to
 * be looked at.
 */
export function assembleRecord(
  layers: readonly RecordedLayer[],
  dialect: Dialect,
  root: Row,
): TreeRecord {
  return new Assembly(dialect).run(layers, root)
}

class Assembly {
  readonly #builder = new RecordBuilder()
  readonly #opaque: Buffer | undefined
  readonly #reserved: string | undefined
  readonly #sets = new Map<RecordedLayer, { missing: Set<string>; hollow: Set<string> }>()

  constructor(dialect: Dialect) {
    this.#opaque = opaqueXattr(dialect)
    this.#reserved = overlayNamespace(dialect)
  }

  run(layers: readonly RecordedLayer[], root: Row): TreeRecord {
    const base = layers.findLastIndex(({ stacking }) => stacking?.opaque === true)
    const visible = layers.slice(Math.max(base, 0)).toReversed()
    for (const layer of visible) {
      const { missing = [], hollow = [] } = layer.stacking ?? {}
      this.#sets.set(layer, { missing: new Set(missing), hollow: new Set(hollow) })
    }
    const parts = visible.map(layer => ({ layer, row: 0 }))
    const own = layers.findLast(({ stacking }) => stacking?.root !== false)
    const row = own
      ? this.#add({ layer: own, row: 0 }, '')
      : this.#builder.add({ ...root, ctime: 0n, ino: 0n }, Buffer.alloc(0), 0, 0)
    this.#addChildren(parts, '')
    this.#builder.leave(row)
    return this.#builder.finish(0n)
  }

  #addChildren(parts: readonly Part[], path: string): void {
    const children = this.#childrenOf(parts).sort((one, other) =>
      one.isDirectory === other.isDirectory
        ? one.name < other.name
          ? -1
          : 1
        : one.isDirectory
          ? 1
          : -1,
    )
    for (const { name, parts, isDirectory } of children) {
      const own = path === '' ? name : `${path}/${name}`
      const has = (set: 'missing' | 'hollow', { layer }: Part): boolean =>
        this.#sets.get(layer)?.[set].has(own) === true
      if (isDirectory && parts.every(part => has('hollow', part))) continue
      // of those that only imply it, the lowest: that is what there is without the others
      const described = isDirectory ? parts.find(part => !has('missing', part)) : parts[0]
      const row = this.#add((described ?? parts.at(-1)) as Part, name)
      if (!isDirectory) continue
      this.#addChildren(
        parts.filter(({ isHidden }) => !isHidden),
        own,
      )
      this.#builder.leave(row)
    }
  }

  #childrenOf(parts: readonly Part[]): Child[] {
    const found = new Map<string, Part[]>()
    const closed = new Set<string>()
    const opaque = new Set<string>()
    for (const { layer, row: parent } of parts) {
      const { record } = layer
      const { end } = record.columns
      const last = end[parent] as number
      for (let row = parent + 1; row < last; row = end[row] as number) {
        const name = record.name(row).toString('latin1')
        if (closed.has(name)) continue
        const above = found.get(name)
        const isDirectory = record.isDirectory(row)
        if (this.#isWhiteout(record, row) || (above && !isDirectory)) {
          closed.add(name)
          continue
        }
        if (above) above.push({ layer, row, isHidden: opaque.has(name) })
        else found.set(name, [{ layer, row }])
        if (!isDirectory) closed.add(name)
        else if (this.#isOpaque(record, row)) opaque.add(name)
      }
    }
    return [...found].map(([name, parts]) => ({
      name,
      parts,
      isDirectory: parts.every(({ layer, row }) => layer.record.isDirectory(row)),
    }))
  }

  #isWhiteout(record: TreeRecord, row: number): boolean {
    if (this.#opaque === undefined) return false
    if (((record.columns.mode[row] as number) & S_IFMT) !== S_IFCHR) return false
    const [major, minor] = record.extra(row).device ?? [0, 0]
    return major === 0 && minor === 0
  }

  #isOpaque(record: TreeRecord, row: number): boolean {
    return record.extra(row).xattrs?.some(([name]) => this.#opaque?.equals(name)) === true
  }

  #add({ layer: { record }, row: from }: Part, name: string): number {
    const { columns } = record
    const values: Row = {
      mode: columns.mode[from] as number,
      uid: columns.uid[from] as number,
      gid: columns.gid[from] as number,
      nlink: columns.nlink[from] as number,
      size: columns.size[from] as number,
      mtime: columns.mtime[from] as bigint,
      ctime: 0n,
      ino: 0n,
    }
    const bytes = Buffer.from(name, 'latin1')
    const row = this.#builder.add(values, bytes, 0, bytes.length)
    const sum = record.hash(from)
    if (sum) this.#builder.setHash(row, sum)
    this.#builder.setExtra(row, this.#visible(record.extra(from)))
    return row
  }

  /** As the mount shows it: overlayfs's own attributes aren't there, and those stored escaped are themselves. */
  #visible(extra: Extra): Extra {
    const reserved = this.#reserved
    if (reserved === undefined || !extra.xattrs) return extra
    const escape = `${reserved}overlay.`
    const xattrs = extra.xattrs.flatMap(([name, value]): Xattr[] => {
      const text = name.toString('latin1')
      if (!text.startsWith(reserved)) return [[name, value]]
      if (!text.startsWith(escape)) return []
      return [[Buffer.from(`${reserved}${text.slice(escape.length)}`, 'latin1'), value]]
    })
    return { ...extra, xattrs }
  }
}
