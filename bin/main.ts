// The command line: finds the command, loads it, runs it, and turns what comes of it into messages and an exit code.
// 0 is success, 1 every error, 3 an unknown command or help topic (as umoci has it), 128 + N the end by signal N.
import type { Command } from './command.ts'
import { commandNames, findCommand, type CommandEntry } from './commands.ts'
import { globalOptions } from './options.ts'
import { report } from './report.ts'
import { Session } from './session.ts'
import { listenForSignals } from './signals.ts'
import { findCommandWord, splitArgs } from './split-args.ts'
import { didYouMean, usageError } from './usage-error.ts'
import { printVersion } from './version.ts'

const unknownCommand = 3

/** Runs the program with these arguments; sets `process.exitCode`. */
export async function main(args: readonly string[]): Promise<void> {
  endQuietlyWithoutReader()
  process.exitCode = await run(args)
}

async function run(args: readonly string[]): Promise<number> {
  const { word, before, after } = findCommandWord(args, globalOptions)
  const json = args.includes('--json')
  const fail = (error: unknown, code = 1): number => {
    report(error, { json, causes: false, stacks: false, canBeRootless: false })
    return code
  }
  try {
    if (word === undefined) return await runWithoutCommand(before)
    if (word === 'help' || word === 'h') return await showTopic(after, fail)
    const entry = findCommand(word)
    if (!entry) return fail(noSuchCommand(word), unknownCommand)
    splitArgs(before, globalOptions, 'koci')
    return await runCommand(entry, await entry.load(), [...before, ...after])
  } catch (error) {
    return fail(error)
  }
}

async function runCommand(
  entry: CommandEntry,
  command: Command,
  args: readonly string[],
): Promise<number> {
  const options = { ...globalOptions, ...command.options }
  const split = splitArgs(args, options, `koci ${entry.name}`)
  const { commandHelp, parse } = await import('./parse.ts')
  if (split.help) {
    process.stdout.write(`${await commandHelp(entry, command)}\n`)
    return 0
  }
  const parsed = await parse(entry, command, split)
  const interruption = listenForSignals()
  const session = new Session(parsed, interruption.signal)
  try {
    await command.run(parsed, session)
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

async function runWithoutCommand(args: readonly string[]): Promise<number> {
  const version = args.some(arg => /^(-v|--?version)$/.test(arg))
  if (version) {
    printVersion()
    return 0
  }
  splitArgs(args, globalOptions, 'koci')
  const { programHelp } = await import('./parse.ts')
  process.stdout.write(`${await programHelp()}\n`)
  return 0
}

async function showTopic(
  [topic]: readonly string[],
  fail: (error: unknown, code: number) => number,
): Promise<number> {
  if (topic === undefined) return runWithoutCommand([])
  const entry = findCommand(topic)
  if (!entry)
    return fail(usageError(`help ${topic}`, `no help topic for '${topic}'`), unknownCommand)
  const { commandHelp } = await import('./parse.ts')
  process.stdout.write(`${await commandHelp(entry, await entry.load())}\n`)
  return 0
}

function noSuchCommand(word: string): Error {
  const hint = didYouMean(word, commandNames()) || ' - koci help lists the commands'
  return usageError(word, `no such command${hint}`)
}

/** `koci ls | head -1`: ends as programs do that SIGPIPE ends. */
function endQuietlyWithoutReader(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? 141 : 1)
  })
}
