// koci flatten: layers of an image become one.
import type { Command } from '../command.ts'
import { historyOptions, readHistory } from '../history-options.ts'
import { madeImage } from '../made-image.ts'
import { compress, image, layerAnnotation, newTag, platform } from '../options.ts'
import {
  readAnnotations,
  readCompress,
  readImage,
  readLayers,
  readNewTag,
  readPlatform,
} from '../read-options.ts'

export const flatten: Command = {
  positionals: [],
  options: {
    image,
    platform,
    tag: newTag,
    layers: {
      type: 'text',
      description: 'these layers only, 0 being the base; by default all of them',
      value: 'first..last',
    },
    compress,
    ...layerAnnotation,
    ...historyOptions('flatten'),
  },
  notes:
    'What later layers deleted or replaced is gone from the new one, and secrets with\n' +
    'it, once the old tag and its blobs are removed (koci rm, koci gc). The history of\n' +
    'the layers stays. Nothing is unpacked: no privileges are needed, and owners and\n' +
    'devices are kept, whoever runs it.',
  examples: [
    'koci flatten --image images:alpine',
    'koci flatten --image images:app --tag app-flat',
    'koci squash --image images:app --layers 2.. --no-history',
  ],

  async run(args, session) {
    const image = readImage(args)
    const platform = readPlatform(args)
    const newRefName = readNewTag(args)
    const layers = readLayers(args)
    const history = readHistory(args, 'flatten')
    const compress = readCompress(args)
    const annotations = readAnnotations(args)
    const { signal } = session
    const { flattenImage } = await import('../../lib/flatten.ts')
    const changes = { image, platform, newRefName, history }
    const made = await flattenImage({ ...changes, layers, compress, annotations, signal })
    if (session.json) session.printJson(madeImage(made))
  },
}
