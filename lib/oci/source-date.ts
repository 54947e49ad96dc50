// SOURCE_DATE_EPOCH (reproducible-builds.org) and the form in which Go writes times.
import { createError } from '../errors.ts'

// From year 1 to year 9999: what RFC 3339 can write
const earliest = -62_135_596_800
const latest = 253_402_300_799

/**
 * Parses the value of SOURCE_DATE_EPOCH: seconds since 1970, in UTC. Unset and empty are undefined.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION
 */
export function parseSourceDate(text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined
  const seconds = /^-?\d{1,15}$/.test(text) ? Number(text) : Number.NaN
  if (seconds >= earliest && seconds <= latest) return seconds
  throw createError('INVALID_OPTION', {
    subject: 'SOURCE_DATE_EPOCH',
    reason: `${JSON.stringify(text.slice(0, 100))} is not a number of seconds between the years 1 and 9999`,
  })
}

/** A time as RFC 3339 with as many fractional digits as it needs, as Go writes it. */
export function formatTime(time: Date): string {
  return time.toISOString().replace(/\.?0*Z$/, 'Z')
}

/** The time to note in what is made now: the source date (in seconds) if there is one, else the clock's. */
export function creationTime(sourceDate: number | undefined, now: Date = new Date()): string {
  return formatTime(sourceDate === undefined ? now : new Date(sourceDate * 1000))
}

/** An RFC 3339 time as Go prints it again: no trailing zeros, Z for UTC, the offset kept otherwise. */
export function normalizeTime(time: string): string {
  return time
    .toUpperCase()
    .replace(/(\.\d*?)0+(?=[Z+-])/, '$1')
    .replace(/\.(?=[Z+-])/, '')
    .replace(/[+-]00:00$/, 'Z')
}
