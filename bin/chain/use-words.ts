// --use NAME[:key=value,…] in pieces. A backslash before a comma, or before another backslash, keeps it from ending a value.
import { usageError } from '../usage-error.ts'

/** A driver that was asked for, its options not looked at yet. */
export interface DriverWords {
  /** Of one of koci's drivers, of a package, or a path that begins with `./`, `../` or `/`. */
  readonly name: string
  readonly options: GivenOptions
}

/** Options as text; true for a key without a value. */
export type GivenOptions = Readonly<Record<string, string | true>>

/**
 * Reads one value of --use. A key without a value is a switch that is on.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION
 */
export function parseUse(text: string): DriverWords {
  const colon = text.indexOf(':')
  const name = colon < 0 ? text : text.slice(0, colon)
  if (name === '') throw usageError('--use', `${text} names no driver`)
  const options: Record<string, string | true> = {}
  for (const [word = ''] of colon < 0 ? [] : text.slice(colon + 1).matchAll(/(\\.|[^,])+/g)) {
    const equals = word.indexOf('=')
    const key = equals < 0 ? word : word.slice(0, equals)
    if (key === '' || Object.hasOwn(options, key))
      throw usageError(
        `--use ${name}`,
        key === '' ? `${word} has no key` : `${key} given twice`,
      )
    const value = equals < 0 || word.slice(equals + 1).replaceAll(/\\(.)/g, '$1')
    Object.defineProperty(options, key, {
      value,
      enumerable: true,
    })
  }
  return { name, options }
}
