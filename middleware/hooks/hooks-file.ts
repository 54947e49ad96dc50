// hooks.toml: found, trusted, parsed, and every key of it understood, before anything is run.
import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import path from 'node:path'
import { createError, wrapError } from '../../lib/errors.ts'
import { close } from '../../lib/fs/libc.ts'
import { openTrusted, readTrusted } from '../../lib/fs/trusted-file.ts'
import type { Dialect, Layering } from '../../lib/layer/extraction.ts'
import { hookKinds, hookNames, type HookName } from './hook-names.ts'
import { invalid, readToml, type TomlNode, type TomlTable } from './toml.ts'

/** A command for a hook. */
export interface HookCommand {
  readonly hook: HookName
  /** The program's absolute path, and what it is given before koci's own arguments. */
  readonly command: readonly [program: string, ...args: string[]]
  readonly timeoutMs: number
  /** Variables of koci's environment that it gets. */
  readonly env: readonly string[]
  /** Of `delta-list`: if it fails, the next lister is asked. */
  readonly fallback: boolean
  /** Of `try-skip`: layers are looked up at the same time. */
  readonly parallel: boolean
}

/** What a file says. */
export interface HooksFile {
  readonly path: string
  /** How the scripts want layers put on disk, if they say so. */
  readonly chosen: { readonly layering: Layering; readonly dialect: Dialect } | undefined
  /** In the order of the file. */
  readonly commands: Readonly<Partial<Record<HookName, readonly HookCommand[]>>>
}

const layerings: readonly Layering[] = ['merged', 'stacked']
const dialects: readonly Dialect[] = ['plain', 'overlay-trusted', 'overlay-user']
const defaultTimeoutS = 600
const maxTimeoutS = 7 * 24 * 60 * 60

/**
 * Reads a file and checks all of it.
 * @throws {UsageError} ERR_KOCI_UNTRUSTED if somebody else could have written it, or a command of it; {FormatError}
 * ERR_KOCI_INVALID_HOOKS with line and key; {SystemError} ERR_KOCI_IO
 */
export function readHooksFile(file: string): HooksFile {
  const subject = path.resolve(file)
  return parseHooks(readTrusted(subject), subject)
}

/**
 * Whether the command can be run now, and is nobody else's.
 * @throws {UsageError} ERR_KOCI_UNTRUSTED; {SystemError} ERR_KOCI_IO
 */
export async function assertRunnable({ command: [program] }: HookCommand): Promise<void> {
  close(openTrusted(program))
  await access(program, constants.X_OK).catch(error => {
    throw wrapError(error, program)
  })
}

function parseHooks(bytes: Uint8Array, subject: string): HooksFile {
  const root = readToml(bytes, subject)
  const commands: Partial<Record<HookName, readonly HookCommand[]>> = {}
  const top = new Map(root.entries)
  top.delete('layering')
  top.delete('dialect')
  const visit = (entries: ReadonlyMap<string, TomlNode>, prefix: string): void => {
    for (const [name, node] of entries) {
      const key = `${prefix}${name}`
      const hook = hookNames.find(known => known === key)
      const tables = node.type === 'tables' ? node.items : [node]
      if (hook)
        commands[hook] = tables.map(table => readCommand(hook, tableOf(table, key), subject))
      else if (hookNames.some(known => known.startsWith(`${key}.`)))
        visit(tableOf(node, key).entries, `${key}.`)
      else throw invalid(subject, node.line, key, unknownKey(prefix))
    }
  }
  const tableOf = (node: TomlNode, key: string): TomlTable => {
    if (node.type === 'table') return node
    throw invalid(subject, node.line, key, 'a table was expected')
  }
  visit(top, '')
  return { path: subject, chosen: readChosen(root, subject), commands }
}

function unknownKey(prefix: string): string {
  const known = hookNames
    .filter(name => name.startsWith(prefix))
    .map(name => name.slice(prefix.length).split('.')[0])
  const own = prefix === '' ? ['layering', 'dialect'] : []
  return `unknown key - there are ${[...new Set([...own, ...known])].join(', ')}`
}

function readChosen(root: TomlTable, subject: string): HooksFile['chosen'] {
  const layering = oneOf(root, 'layering', layerings, subject)
  const dialect = oneOf(root, 'dialect', dialects, subject)
  const line = (root.entries.get('layering') ?? root.entries.get('dialect'))?.line ?? 1
  if (layering === undefined && dialect === undefined) return undefined
  if (layering === undefined)
    throw invalid(subject, line, 'dialect', 'means nothing without layering')
  if (layering === 'merged' && (dialect ?? 'plain') !== 'plain')
    throw invalid(
      subject,
      line,
      'dialect',
      'merged layers have no whiteouts: it can only be plain',
    )
  if (layering === 'stacked' && dialect === undefined)
    throw invalid(subject, line, 'layering', 'stacked layers need a dialect, too')
  return { layering, dialect: dialect ?? 'plain' }
}

function oneOf<T extends string>(
  table: TomlTable,
  key: string,
  choices: readonly T[],
  subject: string,
): T | undefined {
  const node = table.entries.get(key)
  if (!node) return undefined
  const found = choices.find(choice => node.type === 'value' && node.value === choice)
  if (found !== undefined) return found
  throw invalid(subject, node.line, key, `is not one of ${choices.join(', ')}`)
}

function readCommand(hook: HookName, table: TomlTable, subject: string): HookCommand {
  const own = hookKinds[hook].keys
  const known = ['command', 'timeout', 'env', ...own]
  for (const [name, { line }] of table.entries)
    if (!known.includes(name))
      throw invalid(
        subject,
        line,
        `${hook}.${name}`,
        `unknown key - there are ${known.join(', ')}`,
      )
  const value = <T>(name: string, isRight: (value: unknown) => value is T, what: string) => {
    const node = table.entries.get(name)
    if (!node) return undefined
    if (node.type === 'value' && isRight(node.value)) return node.value
    throw invalid(subject, node.line, `${hook}.${name}`, `has to be ${what}`)
  }
  const command = value('command', isCommand, 'a list of texts, the first an absolute path')
  if (!command) throw invalid(subject, table.line, `${hook}.command`, 'is missing')
  const timeout = value('timeout', isTimeout, 'a number of seconds')
  const entry: HookCommand = {
    hook,
    command,
    timeoutMs: (timeout ?? defaultTimeoutS) * 1000,
    env: value('env', isNames, 'a list of names of variables') ?? [],
    fallback: value('fallback', isBoolean, 'true or false') ?? false,
    parallel: value('parallel', isBoolean, 'true or false') ?? false,
  }
  try {
    close(openTrusted(command[0]))
  } catch (error) {
    const { code, message } = wrapError(error, command[0])
    if (code === 'ERR_KOCI_UNTRUSTED') throw error
    throw createError(
      'INVALID_HOOKS',
      {
        subject,
        line: table.entries.get('command')?.line ?? table.line,
        key: `${hook}.command`,
        reason: message,
      },
      error,
    )
  }
  return entry
}

function isCommand(value: unknown): value is [string, ...string[]] {
  return (
    Array.isArray(value) &&
    value.length > 0 &&
    value.every(each => typeof each === 'string' && !each.includes('\0')) &&
    path.isAbsolute(value[0] as string)
  )
}

function isTimeout(value: unknown): value is number {
  return typeof value === 'number' && value > 0 && value <= maxTimeoutS
}

function isNames(value: unknown): value is string[] {
  return Array.isArray(value) && value.every(each => /^[A-Za-z_]\w*$/.test(String(each)))
}

function isBoolean(value: unknown): value is boolean {
  return typeof value === 'boolean'
}
