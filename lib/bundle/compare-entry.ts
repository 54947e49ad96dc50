// One entry against its row: whether its stat proves it unchanged, and if not, whether its metadata is the same.
import type { Xattr } from '../fs/entry-xattrs.ts'
import { S_IFDIR, S_IFMT, type Stat } from '../fs/libc.ts'
import { trackedXattrs, type Extra } from './extra.ts'
import { floorSeconds } from './mtree-writer.ts'
import { clampTime, flagRough, type TreeRecord } from './record.ts'

/** Metadata that is the same only because something is ignored proves nothing for another time. */
export type Verdict = 'same' | 'same but for what is ignored' | 'different'

/** Compares entries with the rows of a record; rough rows only in what mtree text can hold. */
export class EntryComparison {
  readonly #record: TreeRecord
  readonly #ignored: readonly string[]

  /** `ignored`: names of attributes that don't count; one that ends in a dot stands for all that begin with it. */
  constructor(record: TreeRecord, ignored: readonly string[]) {
    this.#record = record
    this.#ignored = ignored
  }

  /** Whether the stat proves that nothing changed since it was recorded. */
  isSettled(row: number, stat: Stat): boolean {
    const { columns, freshTime } = this.#record
    return (
      stat.ino === columns.ino[row] &&
      stat.ctime === columns.ctime[row] &&
      stat.ctime < freshTime &&
      stat.size === columns.size[row] &&
      stat.mtime === columns.mtime[row] &&
      stat.mode === columns.mode[row]
    )
  }

  /** Whether everything but the content is what was recorded. `extra` is what was found beside the stat. */
  compareMetadata(row: number, stat: Stat, extra: Extra | undefined): Verdict {
    const { columns } = this.#record
    const isRough = ((columns.flags[row] as number) & flagRough) !== 0
    if (
      stat.mode !== columns.mode[row] ||
      stat.uid !== columns.uid[row] ||
      stat.gid !== columns.gid[row] ||
      !isSameTime(columns.mtime[row] as bigint, clampTime(stat.mtime), isRough)
    )
      return 'different'
    const isDirectory = (stat.mode & S_IFMT) === S_IFDIR
    if (!isDirectory && (stat.size !== columns.size[row] || stat.nlink !== columns.nlink[row]))
      return 'different'
    if (columns.extra[row] === 0 && extra === undefined) return 'same'
    const recorded = this.#record.extra(row)
    if (
      !isSameBytes(recorded.rawLinkname, extra?.rawLinkname) ||
      !isSameDevice(recorded.device, extra?.device)
    )
      return 'different'
    const found = extra?.xattrs ?? []
    return this.#compareXattrs(
      recorded.xattrs ?? [],
      isRough ? trackedXattrs(stat.mode, found) : found,
    )
  }

  #compareXattrs(recorded: readonly Xattr[], found: readonly Xattr[]): Verdict {
    if (isSameList(recorded, found)) return 'same'
    const isSame = isSameList(this.#counting(recorded), this.#counting(found))
    return isSame ? 'same but for what is ignored' : 'different'
  }

  /** The attributes that count. */
  #counting(xattrs: readonly Xattr[]): Xattr[] {
    return xattrs.filter(([name]) => !this.#isIgnored(name))
  }

  #isIgnored(name: Buffer): boolean {
    const text = name.toString('latin1')
    return this.#ignored.some(ignored =>
      ignored.endsWith('.') ? text.startsWith(ignored) : text === ignored,
    )
  }
}

function isSameTime(recorded: bigint, found: bigint, isRough: boolean): boolean {
  return recorded === found || (isRough && floorSeconds(recorded) === floorSeconds(found))
}

// Text made by umoci has them in the order in which the kernel listed them.
function isSameList(recorded: readonly Xattr[], found: readonly Xattr[]): boolean {
  if (recorded.length !== found.length) return false
  const sorted = found.toSorted(byName)
  return recorded.toSorted(byName).every(([name, value], at) => {
    const [otherName, otherValue] = sorted[at] as Xattr
    return name.equals(otherName) && value.equals(otherValue)
  })
}

function byName([a]: Xattr, [b]: Xattr): number {
  return Buffer.compare(a, b)
}

function isSameBytes(a: Buffer | undefined, b: Buffer | undefined): boolean {
  return a === undefined || b === undefined ? a === b : a.equals(b)
}

// Text doesn't say which device it is.
function isSameDevice(recorded: Extra['device'], found: Extra['device']): boolean {
  return !recorded || !found || (recorded[0] === found[0] && recorded[1] === found[1])
}
