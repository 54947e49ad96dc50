// Checks shared by all OCI documents: which fields an object may have, and of which type.
// Go, in which other runtimes are written, matches JSON keys in any case: what it would read differently is refused.
import { createError } from '../errors.ts'
import { isRawNumber } from './json.ts'

/** A JSON object; fields nobody knows are kept. */
export type JsonObject = Record<string, unknown>

/** The types a known field can have; `null` counts as absent, as it does in Go. */
export type FieldType =
  'string' | 'boolean' | 'integer' | 'object' | 'strings' | 'objects' | 'stringMap' | 'set'

/** The error that says which kind of document is wrong. */
export type DocumentError =
  | 'INVALID_DESCRIPTOR'
  | 'INVALID_INDEX'
  | 'INVALID_MANIFEST'
  | 'INVALID_CONFIG'
  | 'INVALID_LAYOUT'

/** Known fields of one kind of object, in the order in which they are written. */
export type Fields = Readonly<Record<string, FieldType>>

/** Whether a parsed value is an object: neither null nor an array, nor a number kept as text. */
export function isObject(value: unknown): value is JsonObject {
  return (
    typeof value === 'object' && value !== null && !Array.isArray(value) && !isRawNumber(value)
  )
}

/**
 * Copies an object whose known fields have their types; known fields that are null are left out, unknown ones stay.
 * @throws {FormatError} the named error: not an object, or a field of another type
 * @throws {FormatError} ERR_KOCI_INVALID_JSON a key differs from a known one in case only
 */
export function checkFields(
  value: unknown,
  fields: Fields,
  subject: string,
  name: DocumentError,
): JsonObject {
  if (!isObject(value)) throw createError(name, { subject, reason: 'not an object' })
  const folded = foldedKeys(fields)
  const kept: Array<[string, unknown]> = []
  for (const [key, field] of Object.entries(value)) {
    const type = Object.hasOwn(fields, key) ? fields[key] : undefined
    const known = type ? key : folded.get(fold(key))
    if (known !== undefined && known !== key)
      throw createError('INVALID_JSON', {
        subject,
        reason: `key ${JSON.stringify(key)} differs from ${JSON.stringify(known)} in case only`,
      })
    if (type && field === null) continue
    if (type && !checks[type](field))
      throw createError(name, { subject, reason: `field ${key} is not ${words[type]}` })
    kept.push([key, field])
  }
  // fromEntries defines properties: a key __proto__ stays an ordinary key
  return Object.fromEntries(kept)
}

const isString = (value: unknown): boolean => typeof value === 'string'
const isArrayOf = (value: unknown, check: (item: unknown) => boolean): boolean =>
  Array.isArray(value) && value.every(check)

const checks: Record<FieldType, (value: unknown) => boolean> = {
  string: isString,
  boolean: value => typeof value === 'boolean',
  integer: value => Number.isSafeInteger(value),
  object: isObject,
  strings: value => isArrayOf(value, isString),
  objects: value => isArrayOf(value, isObject),
  stringMap: value => isObject(value) && Object.values(value).every(isString),
  set: isObject,
}

const words: Record<FieldType, string> = {
  string: 'a string',
  boolean: 'a boolean',
  integer: 'an integer',
  object: 'an object',
  strings: 'a list of strings',
  objects: 'a list of objects',
  stringMap: 'a map of strings',
  set: 'an object',
}

const cache = new WeakMap<Fields, ReadonlyMap<string, string>>()

function foldedKeys(fields: Fields): ReadonlyMap<string, string> {
  let folded = cache.get(fields)
  if (!folded) {
    folded = new Map(Object.keys(fields).map(key => [fold(key), key]))
    cache.set(fields, folded)
  }
  return folded
}

// Go folds two more letters onto ASCII: the long s, and the Kelvin sign (which toLowerCase knows).
function fold(key: string): string {
  return key.toLowerCase().replaceAll('\u017f', 's')
}
