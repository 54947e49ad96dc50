// The words that may come next in a command line that isn't finished. Where there is nothing to offer the shell offers
// files. Whatever goes wrong while tags are looked up, there are just none.
import { isRefName } from '../../lib/oci/reference.ts'
import { builtIns } from '../chain/registry.ts'
import type { Option, Options } from '../command.ts'
import { commandNames, findCommand, isGroup, program } from '../commands.ts'
import { globalOptions } from '../options.ts'

/** Completes the last word of a line that begins with the program's name; the candidates are whole words. */
export async function completeLine(line: string): Promise<string[]> {
  const words = line.trimStart().split(/\s+/).slice(1)
  const current = words.pop() ?? ''
  const { options, names, previous, argument } = await follow(words)
  if (previous) return (await valuesOf(...previous, current)).filter(startsWith(current))
  const equals = current.indexOf('=')
  if (current.startsWith('-') && equals > 0) {
    const name = current.slice(0, equals).replace(/^--?/, '')
    const option = Object.hasOwn(options, name) ? options[name] : undefined
    if (!option) return []
    const values = await valuesOf(name, option, current.slice(equals + 1))
    return values
      .map(value => `${current.slice(0, equals + 1)}${value}`)
      .filter(startsWith(current))
  }
  if (argument?.endsWith('[:tag]') && !current.startsWith('-'))
    return (await imagesOf(current)).filter(startsWith(current))
  const candidates = current.startsWith('-') ? flagsOf(options) : names
  return candidates.filter(startsWith(current))
}

interface Place {
  readonly options: Options
  /** Of commands, if one has to come. */
  readonly names: readonly string[]
  /** The option whose value comes. */
  readonly previous: readonly [name: string, option: Option] | undefined
  /** What the command calls the argument that comes. */
  readonly argument: string | undefined
}

async function follow(words: readonly string[]): Promise<Place> {
  let group = program
  let options = globalOptions
  let isNamed = false
  const positionals: string[] = []
  let previous: Place['previous']
  for (const word of words) {
    if (previous) previous = undefined
    else if (word.startsWith('-')) {
      const name = word.replace(/^--?/, '')
      const option = Object.hasOwn(options, name) ? options[name] : undefined
      if (option && option.type !== 'switch') previous = [name, option]
    } else if (!isNamed && word !== 'help') {
      const found = findCommand(group, word)
      if (found && isGroup(found)) group = found
      else {
        isNamed = true
        if (!found) continue
        const command = await found.load()
        options = { ...globalOptions, ...command.options }
        positionals.push(...command.positionals)
      }
    } else positionals.shift()
  }
  const names = isNamed ? [] : [...commandNames(group), 'help']
  return { options, names, previous, argument: positionals[0] }
}

function flagsOf(options: Options): string[] {
  return Object.entries(options)
    .filter(([, { hidden }]) => hidden !== true)
    .map(flagOf)
}

function flagOf([name, { type }]: [string, Option]): string {
  return type === 'switch' ? `--${name}` : `--${name}=`
}

async function valuesOf(name: string, option: Option, typed: string): Promise<string[]> {
  if (option.choices) return option.choices.filter(choice => choice !== '')
  if (name === 'use') return Object.keys(builtIns)
  if (name === 'log') return ['debug', 'info', 'warn', 'error', 'fatal']
  return name === 'image' ? imagesOf(typed) : []
}

/** Once a colon was typed. */
async function imagesOf(typed: string): Promise<string[]> {
  const colon = typed.indexOf(':')
  if (colon < 0) return []
  return (await tagsOf(typed.slice(0, colon))).map(tag => `${typed.slice(0, colon)}:${tag}`)
}

/** What isn't a tag by the grammar isn't offered: it could be anything. */
async function tagsOf(path: string): Promise<string[]> {
  try {
    const { ImageLayout } = await import('../../lib/layout/image-layout.ts')
    await using layout = await ImageLayout.open(path)
    const names = (await layout.refs()).map(({ refName }) => refName)
    return [...new Set(names)].filter(isRefName)
  } catch {
    return []
  }
}

function startsWith(current: string): (word: string) => boolean {
  return word => word.startsWith(current)
}
