// From a name to a driver. A path is followed only if the user gave it; a bundle, which is data, can name koci's own
// drivers and packages that are installed beside koci, and of either only those that are made for it.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import type { RecordedDriver } from '../../lib/bundle/recorded-chain.ts'
import { isDriverPackage } from '../../lib/bundle/recorded-chain.ts'
import { toDriver, type Driver } from '../../lib/driver.ts'
import type { Recipe } from '../../lib/driver-options.ts'
import { createError, wrapError } from '../../lib/errors.ts'
import { didYouMean } from '../usage-error.ts'
import { importModule, placeOf } from './import-module.ts'
import { readDriverOptions } from './read-driver-options.ts'
import { builtIns, findBuiltIn, type Factory } from './registry.ts'
import type { DriverWords, GivenOptions } from './use-words.ts'

/**
 * The driver that the user asked for.
 * @throws {NotFoundError} ERR_KOCI_DRIVER_NOT_FOUND; {UsageError} ERR_KOCI_INVALID_OPTION,
 * ERR_KOCI_INVALID_MIDDLEWARE for a module that exports no factory
 */
export async function loadDriver({ name, options }: DriverWords): Promise<Driver> {
  const where = `--use ${name}`
  const builtIn = findBuiltIn(name)
  if (builtIn) return make(where, await builtIn.load(), options, {})
  if (/^\.{0,2}\//.test(name)) {
    const file = path.resolve(name)
    if (!existsSync(file))
      throw createError('DRIVER_NOT_FOUND', {
        subject: where,
        driver: file,
        remedy: 'there is no such file',
      })
    const loading = importModule(file, { trusted: false })
    return make(where, await factoryOf(where, loading), options, undefined)
  }
  const url = findPackage(name)
  if (url === undefined) {
    const hint = didYouMean(name, Object.keys(builtIns)).replace(/^ - /, '')
    const remedy = hint || 'koci drivers lists those of koci; a path begins with ./'
    throw createError('DRIVER_NOT_FOUND', { subject: where, driver: name, remedy })
  }
  const recipe = isDriverPackage(name) ? { package: name } : undefined
  return make(where, await factoryOf(where, import(url)), options, recipe)
}

/**
 * A driver that a bundle remembers.
 * @throws {NotFoundError} ERR_KOCI_DRIVER_NOT_FOUND if it isn't there, or may not come from a bundle; {UsageError} as
 * `loadDriver`
 */
export async function loadRecorded(bundle: string, recorded: RecordedDriver): Promise<Driver> {
  const { name, options = {}, package: from } = recorded
  const missing = (driver: string, remedy: string): Error =>
    createError('DRIVER_NOT_FOUND', { subject: bundle, driver, remedy })
  const where = `${bundle}: ${name}`
  if (from === undefined) {
    const builtIn = findBuiltIn(name)
    if (!builtIn?.fromBundle)
      throw missing(name, 'it is none that a bundle may name; give the chain with --use')
    return make(where, await builtIn.load(), options, {})
  }
  const url = findPackage(from)
  if (url === undefined)
    throw missing(
      from,
      'the bundle was made with it; install it beside koci, or give the chain with --use',
    )
  return make(where, await factoryOf(where, import(url)), options, { package: from })
}

/** Looks beside koci, as an import of koci's own would; never in the working directory. */
function findPackage(name: string): string | undefined {
  if (!/^(@[\w.-]+\/)?[\w-][\w.-]*$/.test(name)) return undefined
  try {
    return import.meta.resolve(name)
  } catch {
    // one that was written for require()
  }
  try {
    return pathToFileURL(createRequire(import.meta.url).resolve(name)).href
  } catch {
    return undefined
  }
}

async function factoryOf(where: string, loading: Promise<object>): Promise<Factory> {
  const module: { default?: unknown } = await loading.catch((error: unknown) => {
    throw failed(where, error)
  })
  if (typeof module.default === 'function') return module.default as Factory
  const found =
    module.default === undefined
      ? 'it has no default export'
      : 'its default export is no function'
  const reason = `${found}; it has to be one that makes a driver`
  throw createError('INVALID_MIDDLEWARE', { subject: where, reason })
}

/** `base`: what bundles are to remember beside the options; undefined if they can't. */
function make(
  where: string,
  factory: Factory,
  texts: GivenOptions,
  base: Recipe | undefined,
): Driver {
  const isGiven = Object.keys(texts).length > 0
  // only the driver knows its options: one made without any tells
  const options = isGiven
    ? readDriverOptions(where, call(where, factory).options ?? {}, texts)
    : undefined
  const driver = call(where, factory, options)
  const isSilent = driver.recipe !== undefined || !base || !Object.isExtensible(driver)
  return isSilent ? driver : Object.assign(driver, { recipe: { ...base, options } })
}

function call(where: string, factory: Factory, options?: object): Driver {
  let made: unknown
  try {
    made = (factory as (options?: object) => unknown)(options)
  } catch (error) {
    throw failed(where, error)
  }
  if (made instanceof Promise) {
    made.catch(() => {})
    const reason = 'its default export is async; it has to return a driver'
    throw createError('INVALID_MIDDLEWARE', { subject: where, reason })
  }
  return toDriver(made as Driver, 0)
}

/** What a module of the user's threw, with the place. */
function failed(where: string, error: unknown): Error {
  const place = placeOf(error)
  return wrapError(error, place === undefined ? where : `${where}: ${place}`)
}
