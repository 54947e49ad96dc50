// koci raw unpack: the tree of an image, and nothing else.
import type { Command } from '../../command.ts'
import { readChain } from '../../read-options.ts'
import { readUnpack, unpackOptions } from '../../unpack-options.ts'

export const unpack: Command = {
  positionals: ['rootfs'],
  options: unpackOptions,
  notes:
    'The directory may exist: layers are applied to what is in it. If it fails, one\n' +
    'that was made is removed, one that was empty is empty again; in any other, what\n' +
    'was unpacked by then stays. No other koci unpacks into it meanwhile.',
  examples: [
    'koci raw unpack --image images:alpine tree',
    'koci raw unpack --image images:alpine --rootless tree',
    'koci raw unpack --image images:app --layers 2.. tree',
  ],

  async run(args, session) {
    const options = readUnpack(args)
    const [rootfs = ''] = args.positionals

    const app = await session.application({ ...readChain(args), unrecorded: true })
    if (args.has('dry-run')) {
      const { sayUnpack } = await import('../../say-unpack.ts')
      return sayUnpack(session, app, options, rootfs)
    }
    const { unpackRootfs } = await import('../../../lib/unpack-rootfs.ts')
    const result = await unpackRootfs(app, { ...options, rootfs, signal: session.signal })
    if (session.json) session.printJson(result)
  },
}
