// koci repack: what changed in a bundle becomes a layer of a new image.
import type { RepackResult } from '../../lib/repack.ts'
import type { HistoryOptions } from '../../lib/layout/commit-image.ts'
import type { Compress } from '../../lib/layer/write-layer-blob.ts'
import type { Arguments } from '../arguments.ts'
import { changeToJson } from '../change-json.ts'
import type { Command, Option } from '../command.ts'
import { bundleUse, hooks, image, listing } from '../options.ts'
import { readChain, readImage, readListing, readTime } from '../read-options.ts'
import { usageError } from '../usage-error.ts'

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
    compress: {
      type: 'text',
      description:
        'auto, none, gzip or zstd; by default auto: as the newest layer of the image',
      value: 'how',
      choices: ['auto', 'none', 'gzip', 'zstd', ''],
    },
    use: bundleUse,
    ...hooks,
    'no-history': { type: 'switch', description: 'add no entry to the history of the image' },
    'history.author': text("who made it; by default the image's author"),
    'history.comment': text('a comment'),
    'history.created': text('when, as in 2026-01-31T12:00:00Z; by default now'),
    'history.created_by': text('how; by default "koci repack"'),
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
    const history = readHistory(args)
    const [bundle = ''] = args.positionals

    const app = await session.application({ ...readChain(args), bundle })
    const result = await app.repack({
      image,
      bundle,
      refresh: args.has('refresh-bundle'),
      ...readListing(args),
      compress: readCompress(args),
      history,
      signal: session.signal,
    })
    if (session.json) session.printJson(toJson(result))
  },
}

function text(description: string): Option {
  return { type: 'text', description, value: 'text' }
}

function readHistory(args: Arguments): HistoryOptions | false {
  const history = {
    author: args.text('history.author'),
    comment: args.text('history.comment'),
    created: readTime(args, 'history.created'),
    createdBy: args.text('history.created_by'),
  }
  if (!args.has('no-history')) return history
  const given = Object.values(history).some(value => value !== undefined)
  if (given) throw usageError('--no-history', 'can not go together with --history options')
  return false
}

/** An empty text means none, as with umoci. */
function readCompress(args: Arguments): Compress {
  const text = args.text('compress') ?? 'auto'
  return text === '' ? 'none' : (text as Compress)
}

function toJson({ image, changes }: RepackResult): unknown {
  const { mediaType, digest, size } = image.descriptor
  return {
    tag: image.refName,
    manifest: { mediaType, digest, size },
    layers: image.layers.map(({ descriptor, diffID }) => ({
      digest: descriptor.digest,
      diffID,
    })),
    changes: changes.map(changeToJson),
  }
}
