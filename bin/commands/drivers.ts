// koci drivers: what --use takes.
import type { DriverOption } from '../../lib/driver-options.ts'
import { loadDriver } from '../chain/load-driver.ts'
import { builtIns, findBuiltIn } from '../chain/registry.ts'
import { parseUse } from '../chain/use-words.ts'
import type { Command } from '../command.ts'
import { hang } from '../hang.ts'

export const drivers: Command = {
  positionals: [],
  options: {
    use: {
      type: 'list',
      description: "this driver instead of koci's own, to see its options; repeatable",
      value: 'name',
    },
  },
  notes:
    'Beside these, --use takes the name of a package that is installed beside koci,\n' +
    'and a path that begins with ./, ../ or /.',
  examples: ['koci drivers', 'koci drivers --json', 'koci drivers --use ./my-driver.ts'],

  async run(args, session) {
    const asked = args.list('use') ?? Object.keys(builtIns)
    const list = await Array.fromAsync(asked, text => describe(text))
    if (session.json) {
      session.printJson(list)
      return
    }
    for (const { name, description, needs, requires, options } of list) {
      const about = [
        ...(description === undefined ? [] : [description]),
        ...(needs === undefined ? [] : [`needs ${needs}`]),
        ...(requires.length === 0 ? [] : [`together with ${requires.join(', ')}`]),
      ]
      const [first = '', ...rest] = about
      for (const line of hang(name, 12, first)) session.print(line.trimEnd())
      for (const each of rest) for (const line of hang('', 12, each)) session.print(line)
      for (const [key, { type, description }] of Object.entries(options))
        for (const line of hang(
          `  ${type === 'boolean' ? key : `${key}=${type}`}`,
          24,
          description,
        ))
          session.print(line)
    }
  },
}

interface Described {
  readonly name: string
  readonly description: string | undefined
  readonly needs: string | undefined
  readonly requires: readonly string[]
  readonly options: Readonly<Record<string, DriverOption>>
  readonly fromBundle: boolean
}

async function describe(text: string): Promise<Described> {
  const { name } = parseUse(text)
  const builtIn = findBuiltIn(name)
  const driver = await loadDriver({ name, options: {} })
  return {
    name: builtIn ? name : driver.name,
    description: builtIn?.description,
    needs: builtIn?.needs,
    requires: driver.requires ?? [],
    options: driver.options ?? {},
    fromBundle: builtIn?.fromBundle ?? Boolean(driver.recipe),
  }
}
