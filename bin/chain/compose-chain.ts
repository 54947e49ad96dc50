// The chain of the command line, outermost first: what tells the user how far things are, limits, then the drivers that
// were asked for, or that the bundle remembers; hooks, if there is a file of them; and mtree(), if nobody of these stores anything.
import { Bundle } from '../../lib/bundle/bundle.ts'
import type { Driver } from '../../lib/driver.ts'
import { printable } from '../../lib/text.ts'
import { findHooksFile } from '../../middleware/hooks/find-hooks-file.ts'
import { loadDriver, loadRecorded } from './load-driver.ts'
import { parseUse } from './use-words.ts'

/** Where a chain comes from. */
export interface ChainWishes {
  /** Values of --use; given, the bundle isn't asked. */
  readonly use?: readonly string[] | undefined
  /** A hooks file; without one that of the user or the system counts, if it is there. False: no hooks. */
  readonly hooks?: string | false | undefined
  /** There will be nothing to list changes of: nobody needs to record them. */
  readonly unrecorded?: boolean | undefined
  /** A bundle that may remember its chain. */
  readonly bundle?: string | undefined
}

/** A driver, and who put it in the chain. */
export interface ChainPart {
  readonly driver: Driver
  readonly from: 'default' | '--hooks' | '--use' | 'bundle'
}

/**
 * Composes the chain.
 * @throws {NotFoundError} ERR_KOCI_DRIVER_NOT_FOUND; {UsageError} ERR_KOCI_INVALID_OPTION, ERR_KOCI_INVALID_MIDDLEWARE
 */
export async function composeChain(
  front: readonly Driver[],
  wishes: ChainWishes,
): Promise<readonly ChainPart[]> {
  const chosen = await chooseDrivers(wishes)
  const has = (name: string): boolean => chosen.some(({ driver }) => driver.name === name)
  const byDefault = async (name: string): Promise<ChainPart> => ({
    driver: await loadDriver({ name, options: {} }),
    from: 'default',
  })
  return [
    ...front
      .filter(({ name }) => !has(name))
      .map((driver): ChainPart => ({ driver, from: 'default' })),
    ...(has('limits') ? [] : [await byDefault('limits')]),
    ...(has('hooks') ? [] : await findHooks(wishes)),
    ...chosen,
    ...(wishes.unrecorded || chosen.some(({ driver }) => isStorage(driver))
      ? []
      : [await byDefault('mtree')]),
  ]
}

async function chooseDrivers({ use, bundle }: ChainWishes): Promise<ChainPart[]> {
  if (use) {
    const words = use.map(parseUse)
    return Array.fromAsync(words, async each => ({
      driver: await loadDriver(each),
      from: '--use' as const,
    }))
  }
  const recorded = bundle === undefined ? [] : ((await Bundle.peek(bundle))?.chain ?? [])
  const known = recorded.filter(({ source }) => source !== 'unnamed')
  const subject = `bundle ${printable(bundle ?? '')}`
  return Array.fromAsync(known, async each => ({
    driver: await loadRecorded(subject, each),
    from: 'bundle' as const,
  }))
}

/** Nothing of them is loaded unless there is a file. */
async function findHooks({ hooks: wish }: ChainWishes): Promise<ChainPart[]> {
  if (wish === false) return []
  const file = wish ?? findHooksFile()
  if (file === undefined) return []
  const { hooks } = await import('../../middleware/hooks/index.ts')
  return [{ driver: hooks({ file }), from: wish === undefined ? 'default' : '--hooks' }]
}

/** One that lists changes, and sees to it that they are listed once only: filters do the first, finders neither. */
function isStorage({ delta, refresh }: Driver): boolean {
  return delta !== undefined && refresh !== undefined
}
