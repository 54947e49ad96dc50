// progress(): one line on a terminal, drawn over itself at most ten times a second. It is never the cursor's place
// that is hidden or moved to another line, so a program that dies leaves nothing to be mended but half a line.
import { clearLine, cursorTo } from 'node:readline'
import type { Context } from '../../lib/context.ts'
import type { Driver } from '../../lib/driver.ts'

/** What the line is written to; standard error is one. */
export interface ProgressStream extends NodeJS.WritableStream {
  readonly isTTY?: boolean
  readonly columns?: number
}

/** Where progress is shown. */
export interface ProgressOptions {
  /** @default standard error */
  readonly stream?: ProgressStream
  /** Draw even if the stream is no terminal. @default false */
  readonly force?: boolean
}

const intervalMs = 100
const barWidth = 24

/** Shows how far layers and repacks are, on a terminal; elsewhere it does nothing. */
export function progress(options: ProgressOptions = {}): Driver {
  const { stream = process.stderr, force = false } = options
  const line = new StatusLine(stream)
  const isShown = (): boolean => force || stream.isTTY === true
  return {
    name: 'progress',
    recipe: false,
    options: {
      force: { type: 'boolean', description: 'draw even where there is no terminal' },
    },
    explain: () => `${isShown() ? 'shows' : 'would show, on a terminal,'} how far layers are`,

    async unpack(ctx, next) {
      if (!isShown()) return next()
      const seconds = stopwatch()
      const done = await line.during(() => unpackText(ctx), next)
      const { layers, entries } = countsOf(ctx)
      done(`unpacked ${plural(layers, 'layer')}, ${plural(entries, 'entry')} in ${seconds()}`)
    },

    async repack(ctx, next) {
      if (!isShown()) return next()
      const seconds = stopwatch()
      const state: RepackState = { phase: 'preparing', changes: 0 }
      repacks.set(ctx.state, state)
      const done = await line.during(() => `${state.phase}  ${seconds()}`, next)
      done(`repacked ${plural(state.changes, 'change')} in ${seconds()}`)
    },
    async delta(ctx, next) {
      note(ctx, { phase: 'looking for changes' })
      await next()
    },
    async pack(ctx, next) {
      const changes = ctx.changes.length
      note(ctx, { phase: `packing ${plural(changes, 'change')}`, changes })
      await next()
    },
    async refresh(ctx, next) {
      note(ctx, { phase: 'refreshing the bundle' })
      await next()
    },
  }
}

/** How far a repack is. */
interface RepackState {
  phase: string
  changes: number
}

/** By the one object that all contexts of a run share. */
const repacks = new WeakMap<object, RepackState>()

function note(ctx: Context, now: Partial<RepackState>): void {
  Object.assign(repacks.get(ctx.state) ?? {}, now)
}

/** One line of a terminal, shared by the runs that are under way. */
class StatusLine {
  readonly #stream: ProgressStream
  readonly #texts = new Set<() => string>()
  #timer: NodeJS.Timeout | undefined

  constructor(stream: ProgressStream) {
    this.#stream = stream
  }

  /** Shows the text while something is done; clears the line whatever the outcome. Then a last text may stay. */
  async during(
    text: () => string,
    action: () => Promise<void>,
  ): Promise<(last: string) => void> {
    this.#texts.add(text)
    this.#timer ??= setInterval(() => this.#draw(), intervalMs).unref()
    try {
      await action()
    } finally {
      this.#texts.delete(text)
      if (this.#texts.size === 0) {
        clearInterval(this.#timer)
        this.#timer = undefined
      }
      this.#clear()
    }
    return last => void this.#stream.write(`${last}\n`)
  }

  #draw(): void {
    const text = Array.from(this.#texts, text => text()).join(' | ')
    this.#clear()
    // a full line would make some terminals go to the next one
    this.#stream.write(text.slice(0, (this.#stream.columns ?? 80) - 1))
  }

  #clear(): void {
    cursorTo(this.#stream, 0)
    clearLine(this.#stream, 0)
  }
}

function unpackText(ctx: Context): string {
  const { layers, placed, bytes, read, entries } = countsOf(ctx)
  const share = bytes === 0 ? (layers === placed ? 1 : 0) : read / bytes
  const filled = Math.floor(share * barWidth)
  const bar = `[${'#'.repeat(filled)}${'.'.repeat(barWidth - filled)}]`
  const percent = `${Math.floor(share * 100)}%`.padStart(4)
  return `${bar}${percent}  ${placed}/${plural(layers, 'layer')}  ${plural(entries, 'entry')}`
}

function countsOf({ layers }: Context): {
  layers: number
  placed: number
  bytes: number
  read: number
  entries: number
} {
  const counts = { layers: layers.length, placed: 0, bytes: 0, read: 0, entries: 0 }
  for (const { placed, progress, size } of layers) {
    counts.bytes += size
    counts.read += placed ? size : Math.min(progress.read, size)
    counts.entries += placed?.report?.entries ?? progress.entries
    if (placed) counts.placed += 1
  }
  return counts
}

function plural(count: number, noun: string): string {
  const words = count === 1 ? noun : `${noun.replace(/y$/, 'ie')}s`
  return `${count.toLocaleString('en')} ${words}`
}

function stopwatch(): () => string {
  const start = performance.now()
  return () => `${((performance.now() - start) / 1000).toFixed(1)} s`
}
