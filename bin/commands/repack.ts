// koci repack: what changed in a bundle becomes a layer of a new image.
import { printChanges, printChangesJson } from '../change-lines.ts'
import type { Command } from '../command.ts'
import { historyOptions, readHistory } from '../history-options.ts'
import { madeImage } from '../made-image.ts'
import { bundleChain, compress, dryRun, image, layerAnnotation, listing } from '../options.ts'
import {
  readAnnotations,
  readChain,
  readCompress,
  readImage,
  readListing,
} from '../read-options.ts'

export const repack: Command = {
  positionals: ['bundle'],
  options: {
    image: { ...image, description: 'the layout of the image, and the tag for the new one' },
    'refresh-bundle': {
      type: 'switch',
      description:
        'base the bundle on the new image: the next repack packs what changes from now on',
    },
    ...listing,
    compress,
    ...layerAnnotation,
    'dry-run': dryRun,
    ...bundleChain,
    ...historyOptions('repack'),
  },
  notes:
    'The tag may be the old one. The layout has to hold the image that the bundle\n' +
    'was unpacked from. If nothing changed, no layer is added.',
  examples: [
    'koci repack --image images:alpine-new bundle',
    'koci repack --image images:alpine --refresh-bundle --mask-path /tmp bundle',
  ],

  async run(args, session) {
    const image = readImage(args)
    const history = readHistory(args, 'repack')
    const annotations = readAnnotations(args)
    const compress = readCompress(args)
    const [bundle = ''] = args.positionals

    const app = await session.application({ ...readChain(args), bundle })
    if (args.has('dry-run')) {
      const { listDelta } = await import('../../lib/with-bundle.ts')
      const options = { bundle, layout: image.path, ...readListing(args), dryRun: true }
      const changes = await listDelta(app, { ...options, signal: session.signal })
      if (session.json) await printChangesJson(session, changes, { object: {} })
      else await printChanges(session, changes, false)
      return
    }
    const result = await app.repack({
      image,
      bundle,
      refresh: args.has('refresh-bundle'),
      ...readListing(args),
      compress,
      annotations,
      history,
      signal: session.signal,
    })
    if (!session.json) return
    await printChangesJson(session, result.changes, { object: madeImage(result.image) })
  },
}
