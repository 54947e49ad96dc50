// Changes on standard output: lines for people, NUL-terminated bytes for programs, JSON.
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

const pieceLength = 1000

/** Prints each change's kind, whatever `columns` has to say of it, and its path; the root is a dot. */
export async function printChanges<T extends Change>(
  session: Session,
  changes: readonly T[],
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
  for (let at = 0; at < changes.length; at += pieceLength)
    await session.write(Buffer.concat(changes.slice(at, at + pieceLength).map(line)))
}

/** The same as JSON; `more` is what there is to say beside kind and path. */
export function printChangesJson<T extends Change>(
  session: Session,
  changes: readonly T[],
  more: (change: T) => object = () => ({}),
): void {
  session.printJson(changes.map(change => ({ ...changeToJson(change), ...more(change) })))
}
