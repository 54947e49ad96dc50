// The options of a driver, from text to what its own description says they are.
import type { DriverOption, OptionValue } from '../../lib/driver-options.ts'
import type { GivenOptions } from './use-words.ts'
import { didYouMean, usageError } from '../usage-error.ts'

/**
 * The options as the factory takes them. `where` says in errors where they were given.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for one that the driver doesn't have, or that isn't of its type
 */
export function readDriverOptions(
  where: string,
  known: Readonly<Record<string, DriverOption>>,
  given: GivenOptions,
): Record<string, OptionValue> {
  return Object.fromEntries(
    Object.entries(given).map(([key, text]) => {
      const option = Object.hasOwn(known, key) ? known[key] : undefined
      if (!option) throw unknownOption(where, key, Object.keys(known))
      return [key, readValue(where, key, option, text)]
    }),
  )
}

function readValue(
  where: string,
  key: string,
  { type }: DriverOption,
  text: string | true,
): OptionValue {
  if (text === true && type !== 'boolean')
    throw usageError(where, `${key} needs a value: ${key}=${type.toUpperCase()}`)
  if (text === true) return true
  if (type === 'string') return text
  if (type === 'number') {
    const number = text.trim() === '' ? NaN : Number(text)
    if (Number.isNaN(number)) throw usageError(`${where}:${key}`, `${text} is not a number`)
    return number
  }
  if (text === 'true' || text === 'false') return text === 'true'
  throw usageError(`${where}:${key}`, `${text} is neither true nor false`)
}

function unknownOption(where: string, key: string, names: readonly string[]): Error {
  const choices = names.length === 0 ? 'it takes none' : `it takes ${names.join(', ')}`
  const hint = didYouMean(key, names) || ` - ${choices}`
  return usageError(where, `there is no option ${key}${hint}`)
}
