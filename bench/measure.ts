// Runs one command and says what it took, together with all of its descendants. One at a time: the kernel adds up the
// CPU time of all children in one place. Memory is sampled, because no counter holds the peak of a whole tree.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { BenchError } from './bench-error.ts'

/** A program with its arguments. */
export interface Command {
  readonly program: string
  readonly args: readonly string[]
  readonly env?: NodeJS.ProcessEnv
}

/** What one run of a command took. Seconds and bytes. */
export interface Measurement {
  readonly wall: number
  readonly user: number
  readonly sys: number
  /** The most that the processes had resident at the same time; pages they share count for each. */
  readonly peak: number
}

/** A measurement, and what the command printed. */
export interface Finished extends Measurement {
  readonly stdout: string
}

const sampleMs = 20
/** Every so many samples new descendants are looked for. */
const lookEvery = 4
const ticksPerSecond = 100 // of /proc, on every architecture
const limitMs = 20 * 60_000
const keptOutput = 1 << 20

/**
 * Runs a command to its end. Its descendants are killed with it when the signal aborts, or after 20 minutes.
 * CPU time is exact to 10 ms, and lacks processes for which nobody waited.
 * @throws {BenchError} if it can't be started, or fails
 */
export async function measure(command: Command, signal: AbortSignal): Promise<Finished> {
  signal.throwIfAborted()
  const { program, args, env } = command
  const before = childTimes()
  const start = performance.now()
  const child = spawn(program, args, {
    detached: true, // a group of its own, so that all of it can be killed
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  })
  const { pid } = child
  const kill = (): void => {
    if (pid !== undefined && child.exitCode === null && child.signalCode === null)
      process.kill(-pid, 'SIGKILL')
  }
  const sampler = new Sampler(pid ?? 0)
  const interval = setInterval(() => sampler.sample(), sampleMs)
  const limit = setTimeout(kill, limitMs)
  signal.addEventListener('abort', kill, { once: true })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout = (stdout + text).slice(0, keptOutput)
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-4096)
  })
  let wall = 0
  child.once('exit', () => {
    wall = (performance.now() - start) / 1000
  })
  try {
    const [code] = (await once(child, 'close')) as [number | null]
    signal.throwIfAborted()
    if (code !== 0) {
      const reason =
        stderr.trim() || lastLine(stdout) || `it ended by ${child.signalCode ?? `code ${code}`}`
      throw new BenchError(`${describe(command)}: ${reason}`)
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error
    throw new BenchError(`${program} can't be run: ${(error as Error).message}`)
  } finally {
    clearInterval(interval)
    clearTimeout(limit)
    signal.removeEventListener('abort', kill)
  }
  const after = childTimes()
  return {
    wall,
    user: after.user - before.user,
    sys: after.sys - before.sys,
    peak: sampler.peak,
    stdout,
  }
}

/** The middle one of some numbers; of an even count the mean of the two in the middle. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** Each figure's own median: they need not come from the same run. */
export function medianOf(runs: readonly Measurement[]): Measurement {
  const of = (pick: (run: Measurement) => number): number => median(runs.map(pick))
  return {
    wall: of(run => run.wall),
    user: of(run => run.user),
    sys: of(run => run.sys),
    peak: of(run => run.peak),
  }
}

/** User and system time of all children that were waited for so far. */
function childTimes(): { user: number; sys: number } {
  const stat = readFileSync('/proc/self/stat', 'latin1')
  // the name of the program, in parentheses, may hold anything
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return {
    user: Number(fields[13]) / ticksPerSecond,
    sys: Number(fields[14]) / ticksPerSecond,
  }
}

/** Watches the resident memory of a process and its descendants. */
class Sampler {
  peak = 0
  #pids: string[]
  #samples = 0
  readonly #root: string

  constructor(pid: number) {
    this.#root = String(pid)
    this.#pids = [this.#root]
  }

  sample(): void {
    if (this.#samples++ % lookEvery === 0) this.#pids = withDescendants(this.#root)
    let sum = 0
    for (const pid of this.#pids) {
      const status = tryRead(`/proc/${pid}/status`)
      sum += kilobytes(status, 'VmRSS')
      // of one process the kernel knows the peak that fell between two samples
      this.peak = Math.max(this.peak, kilobytes(status, 'VmHWM') * 1024)
    }
    this.peak = Math.max(this.peak, sum * 1024)
  }
}

function withDescendants(root: string): string[] {
  const pids = [root]
  for (const pid of pids)
    for (const thread of tryList(`/proc/${pid}/task`))
      pids.push(...(tryRead(`/proc/${pid}/task/${thread}/children`).match(/\d+/g) ?? []))
  return pids
}

function kilobytes(status: string, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0)
}

/** Empty for a process that has just ended. */
function tryRead(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

function tryList(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? ''
}

function describe({ program, args }: Command): string {
  const text = [program, ...args].join(' ')
  return text.length > 200 ? `${text.slice(0, 200)}…` : text
}
