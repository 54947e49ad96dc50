// The command line: finds the command, loads it, runs it, and turns what comes of it into messages and an exit code.
// 0 is success, 1 every error, 3 an unknown command or help topic (as umoci has it), 128 + N the end by signal N.
import { wrapError } from '../lib/errors.ts'
import type { Command } from './command.ts'
import {
  commandNames,
  findCommand,
  isGroup,
  program,
  type CommandEntry,
  type CommandGroup,
} from './commands.ts'
import { globalOptions } from './options.ts'
import { programName } from './program-name.ts'
import { report } from './report.ts'
import { Session } from './session.ts'
import { listenForSignals } from './signals.ts'
import { findCommandWord, splitArgs } from './split-args.ts'
import { didYouMean, usageError } from './usage-error.ts'
import { printVersion } from './version.ts'

const unknownCommand = 3
const plainReport = { causes: false, stacks: false, canBeRootless: false }

/** Runs the program with these arguments; sets `process.exitCode`. */
export async function main(args: readonly string[]): Promise<void> {
  endQuietlyWithoutReader(args.includes('--json'))
  process.exitCode = await run(args)
}

async function run(args: readonly string[]): Promise<number> {
  const json = args.includes('--json')
  const fail: Fail = (error, code = 1) => {
    report(error, { json, ...plainReport })
    return code
  }
  try {
    return await runIn(program, [], args, fail)
  } catch (error) {
    return fail(error)
  }
}

type Fail = (error: unknown, code?: number) => number

/** Runs the command of a group that `args` begin with; `earlier` are global options that came before. */
async function runIn(
  group: CommandGroup,
  earlier: readonly string[],
  args: readonly string[],
  fail: Fail,
): Promise<number> {
  const { word, before, after } = findCommandWord(args, globalOptions)
  if (word === undefined) return runWithoutCommand(group, before)
  if (word === 'help' || word === 'h') return showTopic(group, after, fail)
  const found = findCommand(group, word)
  if (!found) return fail(noSuchCommand(group, word), unknownCommand)
  splitArgs(before, globalOptions, callOf(group))
  const options = [...earlier, ...before]
  if (isGroup(found)) return runIn(found, options, after, fail)
  return runCommand(found, await found.load(), [...options, ...after])
}

/** How a group, or the program itself, is called. */
function callOf({ name }: CommandGroup): string {
  return name === '' ? programName : `${programName} ${name}`
}

async function runCommand(
  entry: CommandEntry,
  command: Command,
  args: readonly string[],
): Promise<number> {
  const options = { ...globalOptions, ...command.options }
  const split = splitArgs(args, options, `${programName} ${entry.name}`)
  if (split.help) {
    const { commandHelp } = await import('./help.ts')
    process.stdout.write(`${await commandHelp(entry, command)}\n`)
    return 0
  }
  const { parse } = await import('./parse.ts')
  const parsed = parse(entry, command, split)
  const interruption = listenForSignals()
  const session = new Session(parsed, interruption.signal)
  try {
    const run = (): Promise<void> => command.run(parsed, session)
    const file = parsed.text('cpu-profile')
    if (file === undefined) await run()
    else await (await import('./cpu-profile.ts')).profiled(file, run)
    return 0
  } catch (error) {
    report(error, {
      json: session.json,
      causes: session.says('info'),
      stacks: session.says('debug'),
      canBeRootless: command.options['rootless'] !== undefined && !parsed.has('rootless'),
    })
    return interruption.exitCode ?? 1
  }
}

async function runWithoutCommand(
  group: CommandGroup,
  args: readonly string[],
): Promise<number> {
  const version = group === program && args.some(arg => /^(-v|--?version)$/.test(arg))
  if (version) {
    printVersion()
    return 0
  }
  splitArgs(args, globalOptions, callOf(group))
  const { groupHelp } = await import('./help.ts')
  process.stdout.write(`${await groupHelp(group)}\n`)
  return 0
}

async function showTopic(
  group: CommandGroup,
  [topic, ...more]: readonly string[],
  fail: Fail,
): Promise<number> {
  if (topic === undefined) return runWithoutCommand(group, [])
  const found = findCommand(group, topic)
  if (!found)
    return fail(usageError(`help ${topic}`, `no help topic for '${topic}'`), unknownCommand)
  if (isGroup(found)) return showTopic(found, more, fail)
  const { commandHelp } = await import('./help.ts')
  process.stdout.write(`${await commandHelp(found, await found.load())}\n`)
  return 0
}

function noSuchCommand(group: CommandGroup, word: string): Error {
  const remedy = ` - ${callOf(group)} help lists the commands`
  const hint = didYouMean(word, commandNames(group)) || remedy
  return usageError(word, `no such command${hint}`)
}

/** `koci ls | head -1`: ends as programs do that SIGPIPE ends. Where nothing can be written, as on a full disk, says so. */
function endQuietlyWithoutReader(json: boolean): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(141)
    report(wrapError(error, 'standard output'), { json, ...plainReport })
    process.exit(1)
  })
}
