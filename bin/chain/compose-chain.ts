// The chain of the command line, outermost first: what tells the user how far things are, limits, hooks if there is a file of
// them, the drivers that were chosen, and mtree() if nobody of these stores anything. Chosen are those of --use or --config;
// else those that the bundle remembers; else, for a new bundle, those of the user's config file.
import path from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { Koci } from '../../lib/application.ts'
import { Bundle } from '../../lib/bundle/bundle.ts'
import { recordChain, type RecordedDriver } from '../../lib/bundle/recorded-chain.ts'
import { findConfigFile } from '../../lib/config-directories.ts'
import type { Driver } from '../../lib/driver.ts'
import { printable } from '../../lib/text.ts'
import { findHooksFile } from '../../middleware/hooks/find-hooks-file.ts'
import { usageError } from '../usage-error.ts'
import { loadDriver, loadRecorded } from './load-driver.ts'
import { parseUse } from './use-words.ts'

/** Where a chain comes from. */
export interface ChainWishes {
  /** Values of --use; given, the bundle isn't asked. */
  readonly use?: readonly string[] | undefined
  /** A config file, in the place of --use; without one that of the user or the system may count. False: it doesn't. */
  readonly config?: string | false | undefined
  /** A hooks file; without one that of the user or the system counts, if it is there. False: no hooks. */
  readonly hooks?: string | false | undefined
  /** There will be nothing to list changes of: nobody needs to record them. */
  readonly unrecorded?: boolean | undefined
  /** A bundle that may remember its chain. */
  readonly bundle?: string | undefined
}

/** Who put a driver into the chain. */
export interface Origin {
  readonly from: 'default' | 'hooks' | '--hooks' | '--use' | 'config' | '--config' | 'bundle'
  /** The file that names it. */
  readonly file?: string
}

/** A driver, and who put it in the chain. */
export interface ChainPart extends Origin {
  readonly driver: Driver
}

/** A chain. */
export interface Chain {
  /** Outermost first. */
  readonly parts: readonly ChainPart[]
  /** What a config file composed: its listeners are to hear what happens. */
  readonly configured?: Koci | undefined
}

/**
 * Composes the chain.
 * @throws {NotFoundError} ERR_KOCI_DRIVER_NOT_FOUND; {UsageError} ERR_KOCI_INVALID_OPTION, ERR_KOCI_INVALID_MIDDLEWARE,
 * ERR_KOCI_INVALID_CONFIG_FILE, ERR_KOCI_UNTRUSTED
 */
export async function composeChain(
  front: readonly Driver[],
  wishes: ChainWishes,
): Promise<Chain> {
  const { use, config, bundle } = wishes
  const complete = (chosen: Chain): Promise<Chain> => completeChain(front, chosen, wishes)
  if (use) return complete({ parts: await loadAll(use) })
  if (typeof config === 'string') return complete(await configured('--config', config))

  const own = config === false ? undefined : findConfigFile(configNames)
  if (bundle === undefined)
    return complete(own === undefined ? { parts: [] } : await configured('config', own))
  const recorded = (await Bundle.peek(bundle))?.chain ?? []
  const forgotten = recorded.some(({ source }) => source === 'unnamed')
  if (own !== undefined && forgotten) {
    const chain = await complete(await configured('config', own))
    if (hasAll(chain, recorded)) return chain
  }
  return complete({ parts: await recall(bundle, recorded) })
}

/** The names of a config file that counts without being named. */
export const configNames: readonly string[] = ['koci.config.ts', 'koci.config.js']

/** What goes without saying, around the drivers that were chosen. */
async function completeChain(
  front: readonly Driver[],
  { parts: chosen, configured }: Chain,
  wishes: ChainWishes,
): Promise<Chain> {
  const has = (name: string): boolean => chosen.some(({ driver }) => driver.name === name)
  refuseHooksTwice(chosen, wishes)
  const byDefault = async (name: string): Promise<ChainPart> => ({
    driver: await loadDriver({ name, options: {} }),
    from: 'default',
  })
  const parts = [
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
  return { parts, configured }
}

function loadAll(use: readonly string[]): Promise<ChainPart[]> {
  const words = use.map(parseUse)
  return Array.fromAsync(words, async each => ({
    driver: await loadDriver(each),
    from: '--use' as const,
  }))
}

async function configured(from: Origin['from'], file: string): Promise<Chain> {
  const { runConfig } = await import('./config-file.ts')
  const app = await runConfig(file)
  const parts = app.drivers.map(driver => ({ driver, from, file: path.resolve(file) }))
  return { parts, configured: app }
}

/** What the bundle remembers, without those that it can't bring back. */
function recall(bundle: string, recorded: readonly RecordedDriver[]): Promise<ChainPart[]> {
  const known = recorded.filter(({ source }) => source !== 'unnamed')
  const subject = `bundle ${printable(bundle)}`
  return Array.fromAsync(known, async each => ({
    driver: await loadRecorded(subject, each),
    from: 'bundle' as const,
  }))
}

/** Whether a chain has every driver that a bundle remembers, with the same options. */
function hasAll({ parts }: Chain, recorded: readonly RecordedDriver[]): boolean {
  const there = recordChain(parts.map(({ driver }) => driver))
  return recorded.every(each => there.some(other => isDeepStrictEqual(other, each)))
}

/** `--hooks` and `--no-hooks` are about hooks that nobody chose: beside chosen ones they would go unheard. */
function refuseHooksTwice(chosen: readonly ChainPart[], { hooks: wish }: ChainWishes): void {
  const part = chosen.find(({ driver }) => driver.name === 'hooks')
  if (wish === undefined || part === undefined) return
  const [by, instead] =
    part.file === undefined
      ? ['--use', '--use hooks:file=PATH']
      : [printable(part.file), 'hooks({ file }) there']
  const option = wish === false ? '--no-hooks' : '--hooks'
  throw usageError(
    option,
    `hooks are in the chain already, by ${by} - leave out ${option}, or hooks there; another file is chosen by ${instead}`,
  )
}

/** Nothing of them is loaded unless there is a file. */
async function findHooks({ hooks: wish }: ChainWishes): Promise<ChainPart[]> {
  if (wish === false) return []
  const file = wish ?? findHooksFile()
  if (file === undefined) return []
  const { hooks } = await import('../../middleware/hooks/index.ts')
  const from = wish === undefined ? 'hooks' : '--hooks'
  return [{ driver: hooks({ file }), from, file: path.resolve(file) }]
}

/** One that lists changes, and sees to it that they are listed once only: filters do the first, finders neither. */
function isStorage({ delta, refresh }: Driver): boolean {
  return delta !== undefined && refresh !== undefined
}
