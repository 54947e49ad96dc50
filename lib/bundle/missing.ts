// Whether a bundle that a store keeps something for is gone. Disks that aren't mounted look like that, too, so it is believed
// only after the bundle was missed several times, for long enough by two clocks.
import { readFileSync } from 'node:fs'
import { uptime } from 'node:os'
import path from 'node:path'
import { bootID } from '../fs/boot-id.ts'

/** What a store remembers of a bundle that wasn't where it was seen last; JSON. */
export interface Missed {
  readonly times: number
  /** Milliseconds since 1970, by this machine's clock at that time. */
  readonly since: number
  /** The boot in which that was, and how many milliseconds old it was. */
  readonly boot: string
  readonly bootMs: number
}

const timesMissed = 3
const graceMs = 7 * 24 * 3_600_000

/** Missed once more. `now` is milliseconds since 1970. */
export function missAgain(missed: Missed | undefined, now: number): Missed {
  if (missed) return { ...missed, times: missed.times + 1 }
  return { times: 1, since: now, boot: bootID(), bootMs: uptime() * 1000 }
}

/** Whether it is taken for deleted. In the boot in which it was missed first the clock that nobody can set has to agree. */
export function isGone({ times, since, boot, bootMs }: Missed, now: number): boolean {
  const isLongAgo = boot !== bootID() || uptime() * 1000 - bootMs >= graceMs
  return times >= timesMissed && now - since >= graceMs && isLongAgo
}

/** Whether a bundle is where it was seen last, and what it keeps for a driver is this. One that can't be read may well be there. */
export function bundleKeeps(
  bundle: string,
  driver: string,
  isThis: (kept: unknown) => boolean,
): boolean {
  try {
    const { drivers } = JSON.parse(readFileSync(path.join(bundle, 'koci.json'), 'utf8')) as {
      drivers?: Record<string, unknown>
    }
    return isThis(drivers?.[driver])
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const isMissing = code === 'ENOENT' || code === 'ENOTDIR'
    return !isMissing && !(error instanceof SyntaxError)
  }
}
