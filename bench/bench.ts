// What a case works with: the corpus, a directory for what it makes, the programs, and the built koci.
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Check, Series } from './case.ts'
import { openCorpus, type Corpus } from './corpus.ts'
import type { Command } from './measure.ts'
import { isRoot, type Peers } from './peers.ts'
import { race, type Contender } from './race.ts'
import { removeTree } from './remove-tree.ts'

/** How it is to be measured. */
export interface BenchOptions {
  readonly quick: boolean
  readonly runs: number
  /** The built command line. */
  readonly koci: string
  /** For the corpus, which may be there already. */
  readonly corpusDirectory: string
  /** Empty; for everything else. */
  readonly workDirectory: string
  readonly peers: Peers
  readonly signal: AbortSignal
  readonly log: (line: string) => void
}

/** Given to every case. */
export class Bench {
  readonly options: BenchOptions
  #corpus: Promise<Corpus> | undefined
  #names = 0

  constructor(options: BenchOptions) {
    this.options = options
  }

  get quick(): boolean {
    return this.options.quick
  }

  get peers(): Peers {
    return this.options.peers
  }

  get signal(): AbortSignal {
    return this.options.signal
  }

  /** Made when the first case asks for it. */
  corpus(): Promise<Corpus> {
    const { corpusDirectory: directory } = this.options
    this.#corpus ??= openCorpus({ ...this.options, directory })
    return this.#corpus
  }

  /** A path that isn't there yet. */
  newPath(name: string): string {
    return path.join(this.options.workDirectory, `${name}-${this.#names++}`)
  }

  /** A new, empty directory. */
  newDirectory(name: string): string {
    const directory = this.newPath(name)
    mkdirSync(directory)
    return directory
  }

  remove(target: string): Promise<void> {
    return removeTree(target)
  }

  /** The built koci, in a process of its own. */
  koci(...args: readonly string[]): Command {
    const own = args[0] === 'unpack' && !isRoot ? ['--rootless'] : []
    const [command = '', ...rest] = args
    const words = [this.options.koci, command, ...own, ...rest]
    return { program: process.execPath, args: words }
  }

  /** One of programs/, which use the built library: its address is their first argument. */
  program(name: string, ...args: readonly string[]): Command {
    const file = path.join(import.meta.dirname, 'programs', `${name}.ts`)
    const dist = pathToFileURL(path.join(path.dirname(this.options.koci), '../'))
    return { program: process.execPath, args: [file, dist.href, ...args] }
  }

  /** A contender that makes something at a path of its own, which is removed after each run. */
  making(
    name: string,
    command: (target: string) => Command,
    options: { readonly directory?: boolean } = {},
  ): Contender {
    let target = ''
    return {
      name,
      prepare: () => {
        target = options.directory === true ? this.newDirectory('out') : this.newPath('out')
        return command(target)
      },
      after: () => this.remove(target),
    }
  }

  /** Runs contenders alternately, as often as was asked for. */
  race(contenders: readonly Contender[], runs: number = this.options.runs): Promise<Series[]> {
    return race(contenders, runs, this.signal)
  }

  /** Holds a figure against its target, if what was measured counts. */
  async check(
    name: string,
    value: number,
    target?: number,
    more: { readonly unit?: string; readonly atLeast?: boolean } = {},
  ): Promise<Check> {
    if (target === undefined) return { name, value, ...more }
    const counts = !this.quick && (await this.corpus()).tooSmall.length === 0
    const met = more.atLeast === true ? value >= target : value <= target
    return { name, value, target, ...more, ...(counts ? { met } : {}) }
  }

  /** The ratios of two contenders; the target is for wall time. Nothing if one of them didn't run. */
  async ratios(
    series: readonly Series[],
    one: string,
    other: string,
    target?: number,
  ): Promise<Check[]> {
    const [a, b] = [one, other].map(name => series.find(each => each.name === name)?.median)
    if (!a || !b) return []
    const cpu = (a.user + a.sys) / (b.user + b.sys)
    return [
      await this.check(`wall, ${one} of ${other}`, a.wall / b.wall, target),
      await this.check(`user + sys, ${one} of ${other}`, cpu),
    ]
  }
}
