// What a command notes in the history of the image it makes.
import type { HistoryOptions } from '../lib/layout/commit-image.ts'
import type { Arguments } from './arguments.ts'
import type { Option, Options } from './command.ts'
import { programName } from './program-name.ts'
import { readTime } from './read-options.ts'
import { usageError } from './usage-error.ts'

/** `--no-history` and the `--history.…` of a command. */
export function historyOptions(
  command: string,
  author = "who made it; by default the image's author",
): Options {
  return {
    'no-history': { type: 'switch', description: 'add no entry to the history of the image' },
    'history.author': text(author),
    'history.comment': text('a comment'),
    'history.created': text('when, as in 2026-01-31T12:00:00Z; by default now'),
    'history.created_by': text(`how; by default "${programName} ${command}"`),
  }
}

/** Reads them; false for no entry. */
export function readHistory(args: Arguments, command: string): HistoryOptions | false {
  const given = {
    author: args.text('history.author'),
    comment: args.text('history.comment'),
    created: readTime(args, 'history.created'),
    createdBy: args.text('history.created_by'),
  }
  if (!args.has('no-history'))
    return { ...given, createdBy: given.createdBy ?? `${programName} ${command}` }
  if (Object.values(given).some(value => value !== undefined))
    throw usageError('--no-history', 'can not go together with --history options')
  return false
}

function text(description: string): Option {
  return { type: 'text', description, value: 'text' }
}
