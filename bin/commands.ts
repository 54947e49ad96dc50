// The commands and what help says of them; a command's own module is loaded only when it runs.
import type { Command } from './command.ts'

/** A command as the list knows it. */
export interface CommandEntry {
  /** The words it is called by: those of its group come first. */
  readonly name: string
  readonly alias?: string
  readonly description: string
  readonly load: () => Promise<Command>
}

/** Commands that are called by two words, of which this is the first. */
export interface CommandGroup {
  /** Empty for the program itself. */
  readonly name: string
  readonly description: string
  readonly commands: readonly (CommandEntry | CommandGroup)[]
}

const raw: CommandGroup = {
  name: 'raw',
  description: 'single steps of what other commands do',
  commands: [
    {
      name: 'raw unpack',
      description: 'unpack an image into a directory, without a bundle',
      load: async () => (await import('./commands/raw/unpack.ts')).unpack,
    },
    {
      name: 'raw add-layer',
      description: 'put a tar file on top of an image, as it is',
      load: async () => (await import('./commands/raw/add-layer.ts')).addLayer,
    },
    {
      name: 'raw mtree-validate',
      description: 'compare a directory with an mtree manifest',
      load: async () => (await import('./commands/raw/mtree-validate.ts')).mtreeValidate,
    },
    {
      name: 'raw runtime-config',
      alias: 'raw config',
      description: 'write the runtime configuration for an image',
      load: async () => (await import('./commands/raw/runtime-config.ts')).runtimeConfig,
    },
  ],
}

const cache: CommandGroup = {
  name: 'cache',
  description: 'look into a store of extracted layers, and clean it up',
  commands: [
    {
      name: 'cache ls',
      alias: 'cache list',
      description: 'list the layers of a store',
      load: async () => (await import('./commands/cache/list.ts')).list,
    },
    {
      name: 'cache du',
      description: 'show what a store takes',
      load: async () => (await import('./commands/cache/usage.ts')).usage,
    },
    {
      name: 'cache verify',
      description: 'compare stored layers with what was recorded of them',
      load: async () => (await import('./commands/cache/verify.ts')).verify,
    },
    {
      name: 'cache gc',
      description: 'remove what nobody needs',
      load: async () => (await import('./commands/cache/gc.ts')).gc,
    },
    {
      name: 'cache rm',
      alias: 'cache remove',
      description: 'remove a layer',
      load: async () => (await import('./commands/cache/remove.ts')).remove,
    },
  ],
}

const commands: readonly (CommandEntry | CommandGroup)[] = [
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
    name: 'mount',
    description: 'put the rootfs of a bundle in place again, as after a reboot',
    load: async () => (await import('./commands/mount.ts')).mount,
  },
  {
    name: 'umount',
    alias: 'unmount',
    description: 'take the rootfs of a bundle down; changes are kept',
    load: async () => (await import('./commands/mount.ts')).umount,
  },
  {
    name: 'delta',
    description: 'list what changed in a bundle, without packing it',
    load: async () => (await import('./commands/delta.ts')).delta,
  },
  {
    name: 'explain',
    description: 'show what an unpack would do, and why',
    load: async () => (await import('./commands/explain.ts')).explain,
  },
  {
    name: 'drivers',
    description: 'list what --use takes',
    load: async () => (await import('./commands/drivers.ts')).drivers,
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
    name: 'config',
    description: 'change what an image says of itself',
    load: async () => (await import('./commands/config.ts')).config,
  },
  {
    name: 'insert',
    description: 'put files into an image, or remove a path from it',
    load: async () => (await import('./commands/insert.ts')).insert,
  },
  {
    name: 'flatten',
    alias: 'squash',
    description: 'make one layer of several',
    load: async () => (await import('./commands/flatten.ts')).flatten,
  },
  {
    name: 'diff',
    description: 'list how the trees of two images differ',
    load: async () => (await import('./commands/diff.ts')).diff,
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
    name: 'copy',
    alias: 'cp',
    description: 'copy images into another layout, or an archive',
    load: async () => (await import('./commands/copy.ts')).copy,
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
  cache,
  {
    name: 'verify',
    description: 'read everything in a layout and tell what is wrong with it',
    load: async () => (await import('./commands/verify.ts')).verify,
  },
  {
    name: 'completion',
    description: 'print what a shell needs to complete command lines',
    load: async () => (await import('./commands/completion.ts')).completion,
  },
  raw,
]

/** The program: the group of all commands. */
export const program: CommandGroup = {
  name: '',
  description: 'unpack OCI images into bundles, and pack what changed into new layers',
  commands,
}

/** Whether it is called by one more word. */
export function isGroup(found: CommandEntry | CommandGroup): found is CommandGroup {
  return 'commands' in found
}

/** The command or group that a group has under this word. */
export function findCommand(
  group: CommandGroup,
  word: string,
): CommandEntry | CommandGroup | undefined {
  const name = group.name === '' ? word : `${group.name} ${word}`
  return group.commands.find(
    found => found.name === name || (!isGroup(found) && found.alias === name),
  )
}

/** All commands, those of groups included. */
export function allCommands(group: CommandGroup = program): CommandEntry[] {
  return group.commands.flatMap(found => (isGroup(found) ? allCommands(found) : [found]))
}

/** All names under which a group's commands are known, by their last word. */
export function commandNames(group: CommandGroup = program): string[] {
  return group.commands.flatMap(found => {
    const names =
      isGroup(found) || found.alias === undefined ? [found.name] : [found.name, found.alias]
    return names.map(lastWord)
  })
}

/** The word by which a command of a group is told from the others. */
export function lastWord(name: string): string {
  return name.slice(name.lastIndexOf(' ') + 1)
}
