// What of a list of changes ends up in a layer. Middleware may leave entries out between the packer and the writer; only what
// gets through to the writer counts as packed, all else is listed again.
import type { TreeRecord } from './bundle/record.ts'
import { RecordBuilder } from './bundle/record-builder.ts'
import type { ChangeList } from './change-list.ts'
import { S_IFMT, S_IFSOCK } from './fs/libc.ts'
import type { FileHashes } from './layer/file-hashes.ts'
import type { LayerEntry } from './layer/layer-writer.ts'

/** What is known of the new layer, to the steps of a refresh. */
export interface Packed {
  /** What it holds. */
  readonly packed: ChangeList
  /** Of the files as they were packed: what doesn't fit has changed since. */
  readonly packedHashes: FileHashes
  /**
   * What the entries were made from: a row for each of `packed`, in their order. A row whose mode is 0, or that is
   * missing, tells nothing: somebody else made the entry, or it is a whiteout.
   */
  readonly packedRecord: TreeRecord | undefined
}

/** Nothing is as new as that: rows are copied as they are, inode and all. */
const never = 2n ** 62n

/** Watches a layer being packed. */
export class PackedChanges {
  /** Gets a row for each change; see {@link packEntries}. */
  readonly rows: RecordBuilder
  readonly #changes: ChangeList
  /** By place in the list. */
  readonly #written: Uint8Array

  constructor(changes: ChangeList) {
    this.#changes = changes
    this.#written = new Uint8Array(changes.length)
    this.rows = new RecordBuilder(changes.length + 1)
  }

  /** Passes entries on to the writer. What doesn't come in the order of the changes isn't recognized. */
  async *watch(
    entries: AsyncIterable<LayerEntry>,
  ): AsyncGenerator<LayerEntry, void, undefined> {
    const changes = this.#changes[Symbol.iterator]()
    let next = changes.next()
    let place = 0
    for await (const entry of entries) {
      while (next.value && Buffer.compare(next.value.rawPath, entry.rawPath) < 0) {
        next = changes.next()
        place++
      }
      if (next.value?.rawPath.equals(entry.rawPath)) this.#written[place] = 1
      yield entry
    }
  }

  /** What was written, with its rows. */
  finish(): Pick<Packed, 'packed' | 'packedRecord'> {
    const record = this.rows.finish(never)
    const isPacked = (place: number): boolean =>
      // what can't be in a layer at all would be listed for ever
      this.#written[place] === 1 || ((record.columns.mode[place] ?? 0) & S_IFMT) === S_IFSOCK
    if (this.#written.every((_, place) => isPacked(place)))
      return { packed: this.#changes, packedRecord: record }
    const rows = new RecordBuilder(record.count)
    let place = 0
    const packed = this.#changes.filter(() => {
      const isKept = isPacked(place)
      if (isKept && place < record.count) rows.copy(record, place, place + 1)
      place++
      return isKept
    })
    return { packed, packedRecord: rows.finish(never) }
  }
}
