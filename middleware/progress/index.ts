// progress(): how far layers and repacks are, on a line of the terminal, or in a line now and then.
import type { Context } from '../../lib/context.ts'
import type { Driver } from '../../lib/driver.ts'
import { statusOn, type ProgressStream } from './status-line.ts'

export type { ProgressStream } from './status-line.ts'

/** Where progress is shown. */
export interface ProgressOptions {
  /** @default standard error */
  readonly stream?: ProgressStream
  /** Draw even if the stream is no terminal. @default false */
  readonly force?: boolean
  /** Seconds between lines where there is no terminal. @default 30 */
  readonly interval?: number
}

const barWidth = 16
const windowMs = 3000

/** Shows how far layers and repacks are. */
export function progress(options: ProgressOptions = {}): Driver {
  const { stream = process.stderr, force = false, interval = 30 } = options
  const isDrawn = force || stream.isTTY === true
  const line = statusOn(stream, { isDrawn, seconds: interval })
  return {
    name: 'progress',
    recipe: false,
    options: {
      force: { type: 'boolean', description: 'draw even where there is no terminal' },
      interval: {
        type: 'number',
        description: 'seconds between lines where there is no terminal; by default 30',
      },
    },
    explain: () => `shows how far layers are${isDrawn ? '' : `, every ${interval} seconds`}`,

    async unpack(ctx, next) {
      const seconds = stopwatch()
      const rate = meter()
      const done = await line.during(() => unpackText(ctx, rate), next)
      const { layers, entries } = countsOf(ctx)
      done(`unpacked ${plural(layers, 'layer')}, ${plural(entries, 'entry')} in ${seconds()}`)
    },

    async repack(ctx, next) {
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

function unpackText(ctx: Context, rate: (bytes: number) => number): string {
  const { layers, placed, active, bytes, read } = countsOf(ctx)
  const share = bytes === 0 ? (layers === placed ? 1 : 0) : read / bytes
  const filled = Math.floor(share * barWidth)
  const bar = `[${'#'.repeat(filled)}${'.'.repeat(barWidth - filled)}]`
  const percent = `${Math.floor(share * 100)}%`.padStart(4)
  const [unit, divisor] = unitOf(bytes)
  const amount = `${(read / divisor).toFixed(1)}/${(bytes / divisor).toFixed(1)} ${unit}`
  const speed = `${(rate(read) / 1e6).toFixed(1)} MB/s`
  const parallel = active > 1 ? `, ${active} at once` : ''
  return `${bar}${percent}  ${amount}  ${speed}  ${placed}/${plural(layers, 'layer')}${parallel}`
}

function unitOf(bytes: number): [unit: string, divisor: number] {
  if (bytes < 1e6) return ['kB', 1e3]
  return bytes < 1e9 ? ['MB', 1e6] : ['GB', 1e9]
}

/** Bytes in a second, over the last few seconds. */
function meter(): (bytes: number) => number {
  const seen: { at: number; bytes: number }[] = [{ at: performance.now(), bytes: 0 }]
  return bytes => {
    const at = performance.now()
    seen.push({ at, bytes })
    while (seen.length > 2 && at - (seen[1]?.at ?? at) > windowMs) seen.shift()
    const [first = { at, bytes }] = seen
    return at > first.at ? ((bytes - first.bytes) * 1000) / (at - first.at) : 0
  }
}

function countsOf({ layers }: Context): {
  layers: number
  placed: number
  active: number
  bytes: number
  read: number
  entries: number
} {
  const counts = { layers: layers.length, placed: 0, active: 0, bytes: 0, read: 0, entries: 0 }
  for (const { placed, progress, size } of layers) {
    counts.bytes += size
    counts.read += placed ? size : Math.min(progress.read, size)
    counts.entries += placed?.report?.entries ?? progress.entries
    if (placed) counts.placed += 1
    else if (progress.read > 0) counts.active += 1
  }
  return counts
}

function plural(count: number, noun: string): string {
  const words = count === 1 ? noun : `${noun.replace(/y$/, 'ie')}s`
  return `${grouped(count)} ${words}`
}

/** 1,234,567; asking Node for it would load its tables of all languages, a tenth of what a small repack takes. */
function grouped(count: number): string {
  return String(count).replaceAll(/\B(?=(\d{3})+$)/g, ',')
}

function stopwatch(): () => string {
  const start = performance.now()
  return () => `${((performance.now() - start) / 1000).toFixed(1)} s`
}
