// koci raw unpack: the tree of an image, and nothing else.
import type { Command } from '../../command.ts'
import { chain, compat, image, keepDirlinks, mapping, platform } from '../../options.ts'
import {
  readChain,
  readCompat,
  readImage,
  readMapping,
  readPlatform,
} from '../../read-options.ts'

export const unpack: Command = {
  positionals: ['rootfs'],
  options: {
    image,
    platform,
    ...mapping,
    'keep-dirlinks': keepDirlinks,
    ...chain,
    compat,
  },
  notes:
    'The directory may exist: layers are applied to what is in it. If it fails, one\n' +
    'that was made is removed, one that was empty is empty again; in any other, what\n' +
    'was unpacked by then stays.',
  examples: [
    'koci raw unpack --image images:alpine tree',
    'koci raw unpack --image images:alpine --rootless tree',
  ],

  async run(args, session) {
    const image = readImage(args)
    const platform = readPlatform(args)
    const compat = readCompat(args)
    const owners = { ...readMapping(args), keepDirlinks: args.has('keep-dirlinks') }
    const [rootfs = ''] = args.positionals
    const { unpackRootfs } = await import('../../../lib/unpack-rootfs.ts')

    const app = await session.application({ ...readChain(args), unrecorded: true })
    const { signal } = session
    const result = await unpackRootfs(app, {
      image,
      rootfs,
      platform,
      signal,
      compat,
      ...owners,
    })
    if (session.json) session.printJson(result)
  },
}
