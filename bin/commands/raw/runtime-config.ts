// koci raw runtime-config: what `config.json` of a bundle would be, written wherever it is wanted.
import type { Command } from '../../command.ts'
import { image, mapping, platform } from '../../options.ts'
import { readImage, readMapping, readPlatform } from '../../read-options.ts'
import { usageError } from '../../usage-error.ts'

export const runtimeConfig: Command = {
  positionals: ['config.json'],
  options: {
    image,
    platform,
    rootfs: {
      type: 'text',
      description: 'look users and groups up in this directory, and name it as the root',
      value: 'path',
    },
    ...mapping,
  },
  notes:
    'Without --rootfs, users that are no numbers become root, with a warning.\n' +
    'The file is replaced if it exists. No drivers run.',
  examples: [
    'koci raw runtime-config --image images:alpine config.json',
    'koci raw config --image images:alpine --rootfs bundle/rootfs config.json',
  ],

  async run(args, session) {
    const image = readImage(args)
    const platform = readPlatform(args)
    const rootfs = args.text('rootfs')
    if (rootfs === '') throw usageError('--rootfs', 'is empty')
    const [file = ''] = args.positionals
    const { writeRuntimeConfig } = await import('../../../lib/bundle/write-runtime-config.ts')
    await writeRuntimeConfig(file, {
      image,
      platform,
      rootfs,
      ...readMapping(args),
      warn: message => session.warn('USER_GUESSED', message),
    })
  },
}
