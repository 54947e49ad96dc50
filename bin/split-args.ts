// The words of a command line, made plain before they are parsed: `koci [globals] command [options] [arguments]`.
// Every option is known by name here, so that nothing is guessed: umoci's forms (-flag, --flag=true) mean what they
// mean there, a value may look like an option, and what nobody knows is an error that names what was meant.
import type { Option, Options } from './command.ts'
import { programName } from './program-name.ts'
import { didYouMean, usageError } from './usage-error.ts'

/** A command line in pieces. */
export interface SplitArgs {
  /** `--name`, `--name value`, or `--name=value` where the value starts with a dash: as the parser of yargs reads them exactly. */
  readonly flags: readonly string[]
  readonly positionals: readonly string[]
  /** Whether help was asked for; mistakes don't count then. */
  readonly help: boolean
}

/**
 * Finds the command: what comes before it are global options, what comes after it is its own. Nothing is looked for
 * behind an option that isn't global: whether the next word is its value can't be known.
 */
export function findCommandWord(
  args: readonly string[],
  globals: Options,
): { word: string | undefined; before: readonly string[]; after: readonly string[] } {
  for (let at = 0; at < args.length; at++) {
    const token = args[at] as string
    if (!isOption(token))
      return { word: token, before: args.slice(0, at), after: args.slice(at + 1) }
    const { option, value } = lookUp(token, globals)
    if (!option) break
    if (option.type !== 'switch' && value === undefined) at++
  }
  return { word: undefined, before: args, after: [] }
}

/**
 * Sorts words into options and arguments. `where` says in errors whose options these are.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION unless help was asked for
 */
export function splitArgs(args: readonly string[], options: Options, where: string): SplitArgs {
  const flags: string[] = []
  const positionals: string[] = []
  const given = new Set<string>()
  let help = false
  let mistake: Error | undefined

  for (let at = 0; at < args.length; at++) {
    const token = args[at] as string
    if (token === '--') {
      positionals.push(...args.slice(at + 1))
      break
    }
    if (!isOption(token)) {
      positionals.push(token)
      continue
    }
    const { flag, name, option, value } = lookUp(token, options)
    if (name === 'help') help = true
    else if (!option) mistake ??= unknownOption(flag, options, where)
    else if (option.type === 'switch') {
      const on = toBoolean(value)
      if (on === undefined)
        mistake ??= usageError(`--${name}`, `${value} is neither true nor false`)
      else if (on) flags.push(`--${name}`)
    } else {
      const text = value ?? args[++at]
      if (text === undefined)
        mistake ??= usageError(
          `--${name}`,
          `needs a value - give --${name}=${option.value ?? 'value'}`,
        )
      else flags.push(...(text.startsWith('-') ? [`--${name}=${text}`] : [`--${name}`, text]))
      if (option.type === 'text' && given.has(name))
        mistake ??= usageError(`--${name}`, 'given twice - it takes one value')
      given.add(name)
    }
  }
  if (mistake && !help) throw mistake
  return { flags, positionals, help }
}

function isOption(token: string): boolean {
  return token.startsWith('-') && token !== '-'
}

function lookUp(
  token: string,
  options: Options,
): { flag: string; name: string; option: Option | undefined; value: string | undefined } {
  const equals = token.indexOf('=')
  const flag = equals < 0 ? token : token.slice(0, equals)
  const name = longName(flag, options)
  const option = Object.hasOwn(options, name) ? options[name] : undefined
  return { flag, name, option, value: equals < 0 ? undefined : token.slice(equals + 1) }
}

function longName(flag: string, options: Options): string {
  const word = flag === '-h' ? 'help' : flag.replace(/^--?/, '')
  const isShort = !flag.startsWith('--') && word.length === 1
  const found = Object.entries(options).find(
    ([, { short, alias }]) => alias === word || (isShort && short === word),
  )
  return found ? found[0] : word
}

/** As Go reads booleans; a switch without a value is on. */
function toBoolean(value: string | undefined): boolean | undefined {
  if (value === undefined || /^(1|t|true)$/i.test(value)) return true
  return /^(0|f|false)$/i.test(value) ? false : undefined
}

function unknownOption(flag: string, options: Options, where: string): Error {
  const hint = didYouMean(flag.replace(/^-+/, ''), Object.keys(options), '--')
  const remedy =
    where === programName ? 'options of a command come after it' : `see ${where} --help`
  return usageError(flag, `${where} has no such option${hint || ` - ${remedy}`}`)
}
