// Words become typed arguments, by the parser of yargs alone: the rest of it is loaded for help only, as loading it takes half as
// long as all of a small command does.
import parser from 'yargs-parser'
import { Arguments } from './arguments.ts'
import type { Command, Option, Options } from './command.ts'
import type { CommandEntry } from './commands.ts'
import { globalOptions } from './options.ts'
import type { SplitArgs } from './split-args.ts'
import { placeholders, usageError } from './usage-error.ts'

/**
 * Reads what `splitArgs` sorted.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for an option or argument that is missing, empty, or too many
 */
export function parse(entry: CommandEntry, command: Command, split: SplitArgs): Arguments {
  const { flags, positionals } = split
  const options = { ...globalOptions, ...command.options }
  const args = new Arguments(positionals, readFlags(flags, options))
  for (const [name, option] of Object.entries(options)) checkOption(name, option, args)
  checkPositionals(
    entry.name,
    command.positionalsFor?.(args) ?? command.positionals,
    positionals,
  )
  return args
}

function readFlags(flags: readonly string[], options: Options): Record<string, unknown> {
  const namesOf = (...types: Option['type'][]): string[] =>
    Object.keys(options).filter(name => types.includes((options[name] as Option).type))
  return parser([...flags], {
    string: namesOf('text', 'list'),
    array: namesOf('list'),
    boolean: namesOf('switch'),
    configuration: {
      'boolean-negation': false,
      'camel-case-expansion': false,
      'dot-notation': false,
      'greedy-arrays': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
    },
  })
}

function checkOption(name: string, option: Option, args: Arguments): void {
  const { required, value = 'value', choices } = option
  const given = args.text(name)
  if (required && given === undefined)
    throw usageError(`--${name}`, `missing - give --${name}=${value}`)
  if (required && given === '') throw usageError(`--${name}`, 'is empty')
  if (choices && given !== undefined && !choices.includes(given))
    throw usageError(
      `--${name}`,
      `${given} is not one of ${choices.filter(choice => choice !== '').join(', ')}`,
    )
}

function checkPositionals(
  name: string,
  expected: readonly string[],
  given: readonly string[],
): void {
  const wanted = expected.length === 0 ? 'no arguments' : placeholders(expected).join(' ')
  if (given.length !== expected.length) {
    const found = given.length === 0 ? 'nothing' : given.join(' ')
    throw usageError(name, `invalid number of arguments: expected ${wanted}, found ${found}`)
  }
  for (const [at, text] of given.entries())
    if (text === '') throw usageError(name, `argument <${expected[at]}> is empty`)
}
