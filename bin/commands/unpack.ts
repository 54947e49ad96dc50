// koci unpack: an image becomes a bundle.
import type { Command } from '../command.ts'
import { readChain } from '../read-options.ts'
import { readUnpack, unpackOptions } from '../unpack-options.ts'

export const unpack: Command = {
  positionals: ['bundle'],
  options: unpackOptions,
  notes:
    'Makes <bundle>/config.json and <bundle>/rootfs, ready for runc. Every byte is\n' +
    'verified. If it fails, or is interrupted, nothing of the bundle remains. The\n' +
    'layout may be a tar file (an OCI archive, or what docker save writes). A bundle\n' +
    'of some layers only can not be repacked.',
  examples: [
    'koci unpack --image images:alpine bundle',
    'koci unpack --image images:alpine --rootless bundle',
    'koci unpack --image alpine.tar --platform linux/arm64 bundle',
  ],

  async run(args, session) {
    const options = readUnpack(args)
    const [bundle = ''] = args.positionals

    const app = await session.application({ ...readChain(args) })
    if (args.has('dry-run')) {
      const { sayUnpack } = await import('../say-unpack.ts')
      return sayUnpack(session, app, { ...options, bundle }, bundle)
    }
    const result = await app.unpack({ ...options, bundle, signal: session.signal })
    if (session.json) {
      const { runtimeConfig: _, ...rest } = result
      session.printJson(rest)
    }
  },
}
