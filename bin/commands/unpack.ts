// koci unpack: an image becomes a bundle.
import type { Command } from '../command.ts'
import { image, platform, use } from '../options.ts'
import { readImage, readMapping, readPlatform } from '../read-options.ts'

export const unpack: Command = {
  positionals: ['bundle'],
  options: {
    image,
    platform,
    'uid-map': {
      type: 'list',
      description: 'owners inside and outside; repeatable',
      value: 'container:host[:size]',
    },
    'gid-map': {
      type: 'list',
      description: 'the same for groups',
      value: 'container:host[:size]',
    },
    rootless: { type: 'switch', description: 'as an ordinary user: owners are only noted' },
    'keep-dirlinks': {
      type: 'switch',
      description: 'a directory over a symlink to a directory keeps the symlink',
    },
    use,
    compat: {
      type: 'text',
      description: 'names with too many ".." stop at the root, as in umoci: no error',
      value: 'clamp',
      choices: ['clamp'],
    },
  },
  notes:
    'Makes <bundle>/config.json and <bundle>/rootfs, ready for runc. Every byte is\n' +
    'verified. If it fails, or is interrupted, nothing of the bundle remains. The\n' +
    'layout may be a tar file (an OCI archive, or what docker save writes).',
  examples: [
    'koci unpack --image images:alpine bundle',
    'koci unpack --image images:alpine --rootless bundle',
    'koci unpack --image alpine.tar --platform linux/arm64 bundle',
  ],

  async run(args, session) {
    const image = readImage(args)
    const platform = readPlatform(args)
    const compat = args.text('compat') === undefined ? undefined : ('clamp' as const)
    const keepDirlinks = args.has('keep-dirlinks')
    const mapping = { ...readMapping(args), keepDirlinks, compat }
    const [bundle = ''] = args.positionals

    const app = await session.application({ use: args.list('use') })
    const { signal } = session
    const result = await app.unpack({ image, bundle, platform, signal, ...mapping })
    if (session.json) {
      const { runtimeConfig: _, ...rest } = result
      session.printJson(rest)
    }
  },
}
