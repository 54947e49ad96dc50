// log(): one line per thing that happened, for programs and pipes; progress() is for terminals.
import type { Driver } from '../../lib/driver.ts'

/** Where lines go. */
export interface LogOptions {
  /** Gets each line without its line feed. @default standard error */
  readonly write?: (line: string) => void
}

/** Says what each layer and each repack took. */
export function log(options: LogOptions = {}): Driver {
  const { write = line => process.stderr.write(`${line}\n`) } = options
  return {
    name: 'log',
    recipe: false,
    async unpack(ctx, next) {
      const seconds = stopwatch()
      await next()
      write(`unpacked ${count(ctx.layers.length, 'layer')} into ${ctx.rootfs} in ${seconds()}`)
    },
    async layer(ctx, next) {
      const seconds = stopwatch()
      await next()
      const { layer } = ctx
      write(`${layer.placed?.by ?? 'nobody'} placed ${layer.digest} in ${seconds()}`)
    },
    async repack(ctx, next) {
      const seconds = stopwatch()
      await next()
      write(`repacked as ${ctx.committed?.descriptor.digest ?? 'nothing'} in ${seconds()}`)
    },
  }
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}

function stopwatch(): () => string {
  const start = performance.now()
  return () => `${((performance.now() - start) / 1000).toFixed(2)} s`
}
