// Mistakes on the command line, with the nearest thing that would have been right.
import { createError } from '../lib/errors.ts'
import { nearest } from '../lib/nearest.ts'

/** The command line is wrong: what, why, and what to do. */
export function usageError(subject: string, reason: string): Error {
  return createError('INVALID_OPTION', { subject, reason })
}

/** ` - did you mean X?`, or nothing if no word is near. */
export function didYouMean(typed: string, words: Iterable<string>, prefix = ''): string {
  const best = nearest(typed, words)
  return best === undefined ? '' : ` - did you mean ${prefix}${best}?`
}

/** Arguments as help and errors show them. */
export function placeholders(names: readonly string[]): string[] {
  return names.map(name => `<${name}>`)
}
