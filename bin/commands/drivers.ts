// koci drivers: what --use takes.
import { loadDriver } from '../chain/load-driver.ts'
import { builtIns } from '../chain/registry.ts'
import type { Command } from '../command.ts'
import { hang } from '../hang.ts'

export const drivers: Command = {
  positionals: [],
  options: {},
  notes:
    'Beside these, --use takes the name of a package that is installed beside koci,\n' +
    'and a path that begins with ./, ../ or /.',
  examples: ['koci drivers', 'koci drivers --json'],

  async run(_args, session) {
    const list = await Array.fromAsync(Object.entries(builtIns), async ([name, builtIn]) => {
      const { options = {}, requires = [] } = await loadDriver({ name, options: {} })
      const { description, needs, fromBundle } = builtIn
      return { name, description, needs, requires, options, fromBundle }
    })
    if (session.json) {
      session.printJson(list)
      return
    }
    for (const { name, description, needs, requires, options } of list) {
      for (const line of hang(name, 12, description)) session.print(line)
      if (needs !== undefined)
        for (const line of hang('', 12, `needs ${needs}`)) session.print(line)
      if (requires.length > 0)
        for (const line of hang('', 12, `with ${requires.join(', ')}`)) session.print(line)
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
