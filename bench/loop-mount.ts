// A file system of some type in a file, mounted: what storage drivers can do depends on it.
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { BenchError } from './bench-error.ts'
import type { Bench } from './bench.ts'
import { measure } from './measure.ts'

/** Where it is mounted; `Bench.remove` of `home` unmounts and removes it. */
export interface LoopMount {
  readonly home: string
  readonly path: string
}

/** Makes and mounts one; or says why it can't be had. */
export async function mountLoop(
  bench: Bench,
  type: 'btrfs' | 'xfs',
): Promise<LoopMount | string> {
  const home = bench.newDirectory(type)
  const image = path.join(home, 'image')
  const target = path.join(home, 'mount')
  mkdirSync(target)
  writeFileSync(image, '')
  truncateSync(image, bench.quick ? 400 << 20 : 12 * 2 ** 30)
  const run = (program: string, ...args: string[]): Promise<unknown> =>
    measure({ program, args }, bench.signal)
  try {
    await run(`mkfs.${type}`, '-q', image)
    await run('mount', '-o', 'loop', image, target)
    return { home, path: target }
  } catch (error) {
    await bench.remove(home)
    bench.signal.throwIfAborted()
    if (!(error instanceof BenchError)) throw error
    return error.message
  }
}
