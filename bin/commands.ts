// The commands and what help says of them; a command's own module is loaded only when it runs.
import type { Command } from './command.ts'

/** A command as the list knows it. */
export interface CommandEntry {
  readonly name: string
  readonly alias?: string
  readonly description: string
  readonly load: () => Promise<Command>
}

export const commands: readonly CommandEntry[] = [
  {
    name: 'unpack',
    description: 'unpack an image into a runtime bundle',
    load: async () => (await import('./commands/unpack.ts')).unpack,
  },
  {
    name: 'repack',
    description: 'pack what changed in a bundle into a new image',
    load: async () => (await import('./commands/repack.ts')).repack,
  },
  {
    name: 'init',
    description: 'make an empty image layout',
    load: async () => (await import('./commands/init.ts')).init,
  },
  {
    name: 'new',
    description: 'make an empty image in a layout',
    load: async () => (await import('./commands/new.ts')).newCommand,
  },
  {
    name: 'list',
    alias: 'ls',
    description: 'list the tags of a layout',
    load: async () => (await import('./commands/list.ts')).list,
  },
  {
    name: 'stat',
    description: 'show what an image is made of',
    load: async () => (await import('./commands/stat.ts')).stat,
  },
  {
    name: 'tag',
    description: 'give an image another tag',
    load: async () => (await import('./commands/tag.ts')).tag,
  },
  {
    name: 'remove',
    alias: 'rm',
    description: 'remove a tag',
    load: async () => (await import('./commands/remove.ts')).remove,
  },
  {
    name: 'gc',
    description: 'remove blobs that no tag leads to',
    load: async () => (await import('./commands/gc.ts')).gc,
  },
]

/** The command of this name or alias. */
export function findCommand(name: string): CommandEntry | undefined {
  return commands.find(command => command.name === name || command.alias === name)
}

/** All names under which commands are known. */
export function commandNames(): string[] {
  return commands.flatMap(({ name, alias }) => (alias === undefined ? [name] : [name, alias]))
}
