// Changes on standard output: lines for people, NUL-terminated bytes for programs, JSON. All of it in pieces.
import type { Change } from '../lib/change.ts'
import { printable } from '../lib/text.ts'
import type { Arguments } from './arguments.ts'
import { changeToJson } from './change-json.ts'
import type { Option } from './command.ts'
import type { Session } from './session.ts'
import { usageError } from './usage-error.ts'

/** `--null`, `-0`. */
export const nul: Option = {
  type: 'switch',
  short: '0',
  description: 'end each line with NUL, and leave names as they are (-0)',
}

/** Whether names are printed as they are; checked before anything is done. */
export function readNull(args: Arguments, session: Session): boolean {
  const isRaw = args.has('null')
  if (isRaw && session.json) throw usageError('--null', 'can not go together with --json')
  return isRaw
}

/** Prints each change's kind, whatever `columns` has to say of it, and its path; the root is a dot. */
export async function printChanges<T extends Change>(
  session: Session,
  changes: Iterable<T>,
  isRaw: boolean,
  columns: (change: T) => string = () => '',
): Promise<void> {
  const line = (change: T): Buffer => {
    const { rawPath } = change
    const path = rawPath.length === 0 ? Buffer.from('.') : rawPath
    const start = `${change.kind}${columns(change)} `
    return isRaw
      ? Buffer.concat([Buffer.from(start), path, Buffer.from('\0')])
      : Buffer.from(`${start}${printable(path)}\n`)
  }
  await session.writeAll(map(changes, line))
}

/** How they are printed as JSON. */
export interface JsonOptions<T> {
  /** What there is to say of each beside kind and path. */
  readonly more?: (change: T) => object
  /** What they are the `changes` of; without it they are an array. */
  readonly object?: object
}

/** Prints changes as one line of JSON. */
export async function printChangesJson<T extends Change>(
  session: Session,
  changes: Iterable<T>,
  { more = () => ({}), object }: JsonOptions<T> = {},
): Promise<void> {
  // piece by piece: the list may be longer than memory
  const whole = JSON.stringify(object === undefined ? [] : { ...object, changes: [] })
  const end = whole.lastIndexOf(']')
  let separator = whole.slice(0, end)
  const toJson = (change: T): string => {
    const text = separator + JSON.stringify({ ...changeToJson(change), ...more(change) })
    separator = ','
    return text
  }
  await session.writeAll(map(changes, toJson))
  await session.writeAll([separator === ',' ? '' : separator, `${whole.slice(end)}\n`])
}

function* map<T, R>(items: Iterable<T>, make: (item: T) => R): Generator<R, void, undefined> {
  for (const item of items) yield make(item)
}
