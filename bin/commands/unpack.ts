// koci unpack: an image becomes a bundle.
import type { Command } from '../command.ts'
import { chain, compat, image, keepDirlinks, mapping, platform } from '../options.ts'
import { readChain, readCompat, readImage, readMapping, readPlatform } from '../read-options.ts'

export const unpack: Command = {
  positionals: ['bundle'],
  options: {
    image,
    platform,
    ...mapping,
    'keep-dirlinks': keepDirlinks,
    ...chain,
    compat,
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
    const compat = readCompat(args)
    const owners = { ...readMapping(args), keepDirlinks: args.has('keep-dirlinks') }
    const [bundle = ''] = args.positionals

    const app = await session.application({ ...readChain(args) })
    const { signal } = session
    const result = await app.unpack({ image, bundle, platform, signal, compat, ...owners })
    if (session.json) {
      const { runtimeConfig: _, ...rest } = result
      session.printJson(rest)
    }
  },
}
