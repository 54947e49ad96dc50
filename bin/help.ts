// Help that fits a terminal, laid out by yargs.
import yargs, { type Argv } from 'yargs'
import type { Command, Option, Options } from './command.ts'
import { isGroup, lastWord, type CommandEntry, type CommandGroup } from './commands.ts'
import { globalOptions } from './options.ts'
import { programName } from './program-name.ts'
import { placeholders } from './usage-error.ts'

/** Help for one command, in lines of at most 80 columns. */
export async function commandHelp(entry: CommandEntry, command: Command): Promise<string> {
  const { name, alias, description } = entry
  const { options, positionals, notes, examples } = command
  const needed = Object.entries(options).filter(([, { required }]) => required)
  const words = [
    programName,
    name,
    ...needed.map(flagOf),
    '[options]',
    ...placeholders(positionals),
  ]
  const names = alias === undefined || isUmoci ? name : `${name}, ${lastWord(alias)}`
  const program = plainYargs().usage(`Usage: ${words.join(' ')}`)
  describe(program, 'Options:', options)
  const others = Object.entries(globalOptions).filter(([option]) => !options[option])
  describe(program, 'Options of all commands:', Object.fromEntries(others))
  const lines = examples.map(line => `  ${asCalled(line)}`).join('\n')
  program.epilogue(`${notes === undefined ? '' : `${notes}\n\n`}Examples:\n${lines}`)
  return `${heading(names, description)}\n\n${await program.getHelp()}`
}

/** What is said where a command is missing: the commands of the program, or of a group. */
export async function groupHelp(group: CommandGroup): Promise<string> {
  const call = group.name === '' ? programName : `${programName} ${group.name}`
  const help = plainYargs()
    .scriptName(call)
    .usage(`Usage: ${call} <command> [options] [arguments]`)
  for (const found of group.commands) {
    const alias = isGroup(found) ? undefined : found.alias
    const names = [found.name, ...(alias === undefined ? [] : [alias])].map(lastWord)
    help.command(names, found.description)
  }
  const version: Option = { type: 'switch', description: 'show the version (-v)' }
  describe(help, 'Options:', group.name === '' ? { ...globalOptions, version } : globalOptions)
  help.epilogue(`${call} help <command> shows the options of a command.`)
  return `${heading(group.name, group.description)}\n\n${await help.getHelp()}`
}

/** Scripts that look at umoci's help look at its first two lines. */
const isUmoci = programName === 'umoci'

function heading(name: string, description: string): string {
  const line = `${programName}${name === '' ? '' : ` ${name}`} - ${description}`
  return isUmoci ? `NAME:\n   ${line}` : line
}

/** An example under the name that the program was called by. */
function asCalled(example: string): string {
  return example.replace(/^koci /, `${programName} `)
}

/** Puts options into help. Such a program is never parsed with, so the value can be a part of the name. */
function describe(program: Argv, heading: string, options: Options): void {
  for (const entry of Object.entries(options)) {
    if (entry[1].hidden) continue
    const flag = flagOf(entry).slice(2)
    program.option(flag, { description: entry[1].description }).group(flag, heading)
  }
}

function flagOf([name, { value }]: [string, Option]): string {
  return value === undefined ? `--${name}` : `--${name}=${value}`
}

function plainYargs(): Argv {
  // its second argument would be asked of the kernel, and there may be no working directory any more
  return yargs([], '/')
    .scriptName(programName)
    .locale('en')
    .wrap(Math.min(80, process.stdout.columns || 80))
    .help(false)
    .version(false)
    .exitProcess(false)
    .fail(false)
}
