// What a command is: its options and arguments as data, and what it does.
import type { Arguments } from './arguments.ts'
import type { Session } from './session.ts'

/** An option. Texts are given at most once; a list gets one element each time it is given. */
export interface Option {
  readonly type: 'text' | 'list' | 'switch'
  readonly description: string
  /** A letter or digit that stands for the name after one dash. */
  readonly short?: string
  /** Another name, which help doesn't show. */
  readonly alias?: string
  /** What help calls the value. */
  readonly value?: string
  readonly required?: boolean
  /** Neither help nor completion shows it. */
  readonly hidden?: boolean
  /** The only values there are. */
  readonly choices?: readonly string[]
}

export type Options = Readonly<Record<string, Option>>

export interface Command {
  /** Names of the arguments that are no options; all of them are needed. */
  readonly positionals: readonly string[]
  /** Which of these sets of arguments is wanted, where it depends on the options; `positionals` is for help then. */
  positionalsFor?(args: Arguments): readonly string[]
  readonly options: Options
  /** Lines for help, after the options. */
  readonly notes?: string
  readonly examples: readonly string[]
  /** Throws a `KociError` for whatever goes wrong. */
  run(args: Arguments, session: Session): Promise<void>
}
