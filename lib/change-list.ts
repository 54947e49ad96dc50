// Lists of changes that may be longer than memory: sorted bytewise by path, each path in it once. Short ones, which is almost
// all, are arrays. Of long ones sorted runs go to a file without a name and are merged there; whoever iterates reads them
// back one by one.
import { inspect } from 'node:util'
import { Turns } from './bundle/scan.ts'
import type { Change } from './change.ts'
import { mergeRuns, readRun, Records, RunWriter, type Run } from './change-runs.ts'
import { createError } from './errors.ts'
import { NamelessFile } from './fs/nameless-file.ts'

/** What a lister lists, in any order. */
export type ListedChanges = Iterable<Change> | AsyncIterable<Change>

/** How much is in memory at once. */
export interface ChangeListLimits {
  /**
   * Of a list that isn't long. Objects that outlive a collection make V8 let more garbage gather until the next one: tens of
   * thousands of them cost 100 MB.
   * @default 4096
   */
  readonly maxChanges?: number | undefined
  /** The size of a run. @default 4 MiB */
  readonly runSize?: number | undefined
}

/**
 * Changes, sorted bytewise by path. It is iterated as often as you like but is no array, for it may hold millions; of what you
 * know to be short `[...list]` makes one.
 *
 * A long list has a file open until it is disposed of or forgotten.
 */
export class ChangeList implements Iterable<Change>, Disposable {
  readonly #changes: readonly Change[] | Run

  /** Of what is sorted already, each path once. @internal */
  constructor(changes: readonly Change[] | Run) {
    this.#changes = changes
  }

  /**
   * Drains a list in any order. Of changes with one path the last one counts; it is opaque if any of them says so.
   * @throws {SystemError} ERR_KOCI_ABORTED; ERR_KOCI_IO if there is no room for a long one in the directory for
   * temporary files; whatever the list throws
   */
  static async from(
    changes: ListedChanges,
    options: ChangeListLimits & {
      readonly signal?: AbortSignal
      readonly subject?: string
    } = {},
  ): Promise<ChangeList> {
    if (changes instanceof ChangeList) return changes
    const turns = new Turns(options.signal, options.subject ?? 'changes')
    using sorter = new ChangeSorter(options)
    // awaiting what is there already takes its time
    if (Symbol.iterator in changes)
      for (const each of changes) {
        sorter.add(assertChange(each))
        if (turns.isDue()) await turns.take()
      }
    else
      for await (const each of changes) {
        sorter.add(assertChange(each))
        if (turns.isDue()) await turns.take()
      }
    return sorter.finish()
  }

  get length(): number {
    return isRun(this.#changes) ? this.#changes.count : this.#changes.length
  }

  /** Whether some are in it only for the sake of others. */
  get hasAliases(): boolean {
    const changes = this.#changes
    return isRun(changes)
      ? changes.hasAliases
      : changes.some(({ aliasOf }) => aliasOf !== undefined)
  }

  [Symbol.iterator](): Iterator<Change, void, undefined> {
    return isRun(this.#changes) ? readRun(this.#changes) : this.#changes.values()
  }

  /** What the function makes of each; all in memory. */
  map<T>(make: (change: Change) => T): T[] {
    return Array.from(this, make)
  }

  /** The ones that the predicate keeps, as a list of its own. */
  filter(keep: (change: Change) => boolean): ChangeList {
    const changes = this.#changes
    if (!isRun(changes)) return new ChangeList(changes.filter(keep))
    const file = new NamelessFile()
    try {
      const writer = new RunWriter(file)
      for (const each of readRun(changes)) if (keep(each)) writer.addChange(each)
      return new ChangeList(writer.finish())
    } catch (error) {
      file[Symbol.dispose]()
      throw error
    }
  }

  [Symbol.dispose](): void {
    if (isRun(this.#changes)) this.#changes.file[Symbol.dispose]()
  }
}

/** A list comes from middleware, which needn't be TypeScript. */
function assertChange(value: Change): Change {
  const { kind, rawPath } = (value ?? {}) as Partial<Change>
  if (rawPath instanceof Uint8Array && (kind === 'A' || kind === 'M' || kind === 'D'))
    return value
  throw createError('INVALID_OPTION', {
    subject: 'a list of changes',
    reason: `${inspect(value)} is no change - make each with change(kind, rawPath)`,
  })
}

/** Takes changes in any order, and makes a sorted list of them. Disposed of before, there is none. */
export class ChangeSorter implements Disposable {
  readonly #maxChanges: number
  readonly #runSize: number
  /** What a list that isn't long consists of. */
  #changes: Change[] = []
  #spilled: SpilledChanges | undefined

  constructor({ maxChanges = 2 ** 12, runSize = 2 ** 22 }: ChangeListLimits = {}) {
    this.#maxChanges = maxChanges
    this.#runSize = runSize
  }

  add(change: Change): void {
    if (this.#spilled) return this.#spilled.add(change)
    this.#changes.push(change)
    if (this.#changes.length <= this.#maxChanges) return
    this.#spilled = new SpilledChanges(this.#runSize)
    for (const each of this.#changes) this.#spilled.add(each)
    this.#changes = []
  }

  /** The list; nothing can be added any more. */
  finish(): ChangeList {
    return new ChangeList(this.#spilled?.finish() ?? sortChanges(this.#changes))
  }

  [Symbol.dispose](): void {
    this.#spilled?.[Symbol.dispose]()
  }
}

const mergedAtOnce = 64

class SpilledChanges implements Disposable {
  readonly #file = new NamelessFile()
  #isGivenAway = false
  readonly #records: Records
  /** In the order in which they came; `level` is how often they were merged. */
  readonly #runs: { readonly run: Run; readonly level: number }[] = []

  constructor(runSize: number) {
    this.#records = new Records(runSize)
  }

  add(change: Change): void {
    if (this.#records.add(change)) return
    this.#spill()
    this.#records.add(change)
  }

  /** One run, in a file of its own. */
  finish(): Run {
    this.#spill()
    // where runs were merged, the file still holds them
    const [first] = this.#runs
    if (first?.run.size === this.#file.size) {
      this.#isGivenAway = true
      return first.run
    }
    const file = new NamelessFile()
    try {
      return mergeRuns(this.#lastRuns(this.#runs.length), file)
    } catch (error) {
      file[Symbol.dispose]()
      throw error
    }
  }

  [Symbol.dispose](): void {
    if (!this.#isGivenAway) this.#file[Symbol.dispose]()
  }

  #spill(): void {
    this.#runs.push({ run: this.#records.moveTo(this.#file), level: 0 })
    // each run that is merged has a piece in memory: there mustn't be many
    for (;;) {
      const level = this.#runs.at(-mergedAtOnce)?.level
      if (level === undefined || level !== this.#runs.at(-1)?.level) return
      const run = mergeRuns(this.#lastRuns(mergedAtOnce), this.#file)
      this.#runs.splice(-mergedAtOnce, mergedAtOnce, { run, level: level + 1 })
    }
  }

  #lastRuns(count: number): Run[] {
    return this.#runs.slice(-count).map(({ run }) => run)
  }
}

function isRun(changes: readonly Change[] | Run): changes is Run {
  return !Array.isArray(changes)
}

/** Sorted, each path once. Lists that are sorted already, as most are, cost one comparison for each change. */
function sortChanges(changes: Change[]): Change[] {
  changes.sort((a, b) => Buffer.compare(a.rawPath, b.rawPath))
  const unique: Change[] = []
  for (const each of changes) {
    const last = unique.at(-1)
    if (!last?.rawPath.equals(each.rawPath)) unique.push(each)
    else unique[unique.length - 1] = last.opaque ? { ...each, opaque: true } : each
  }
  return unique
}
