// koci mount, koci umount: the rootfs of a bundle whose layers are stacked.
import type { Koci } from '../../lib/application.ts'
import type { BundleOptions } from '../../lib/with-bundle.ts'
import type { Command } from '../command.ts'
import { bundleChain, bundleLayout } from '../options.ts'
import { readChain } from '../read-options.ts'

const options = { layout: bundleLayout, ...bundleChain }

export const mount: Command = {
  positionals: ['bundle'],
  options,
  notes:
    'Only for bundles with stacked layers. A rootfs that is in place stays as it is;\n' +
    'a layer that is gone is extracted again. A mount lives in the mount namespace\n' +
    'that it was made in.',
  examples: ['koci mount bundle'],
  run: (args, session) =>
    withBundle(args, session, async (app, options) => {
      const { mountBundle } = await import('../../lib/with-bundle.ts')
      await mountBundle(app, options)
    }),
}

export const umount: Command = {
  positionals: ['bundle'],
  options,
  notes:
    'Only for bundles with stacked layers, and refused while something uses the\n' +
    'rootfs. koci mount brings it back.',
  examples: ['koci umount bundle'],
  run: (args, session) =>
    withBundle(args, session, async (app, options) => {
      const { unmountBundle } = await import('../../lib/with-bundle.ts')
      await unmountBundle(app, options)
    }),
}

async function withBundle(
  ...[args, session, use]: [
    ...Parameters<Command['run']>,
    (app: Koci, options: BundleOptions) => Promise<void>,
  ]
): Promise<void> {
  const [bundle = ''] = args.positionals
  const app = await session.application({ ...readChain(args), bundle })
  await use(app, { bundle, layout: args.text('layout'), signal: session.signal })
}
