// koci insert: files of the host, or a whiteout, as a new layer.
import type { Command } from '../command.ts'
import { historyOptions, readHistory } from '../history-options.ts'
import { madeImage } from '../made-image.ts'
import { compress, image, layerAnnotation, mapping, newTag, platform } from '../options.ts'
import {
  readAnnotations,
  readCompress,
  readImage,
  readMapping,
  readNewTag,
  readPlatform,
} from '../read-options.ts'
import { usageError } from '../usage-error.ts'

export const insert: Command = {
  positionals: ['source', 'target'],
  positionalsFor: args => (args.has('whiteout') ? ['target'] : ['source', 'target']),
  options: {
    image,
    platform,
    tag: newTag,
    opaque: {
      type: 'switch',
      description: 'hide whatever lower layers have in the target, a directory',
    },
    whiteout: { type: 'switch', description: 'remove the target; there is no source then' },
    ...mapping,
    compress,
    ...layerAnnotation,
    ...historyOptions('insert', 'who made it; by default nobody'),
  },
  notes:
    'The target is the whole path in the image, with the name that the source gets.\n' +
    'A directory is merged with what the image has there. Parents that the image\n' +
    'does not have are made when it is unpacked. What was in the image before stays\n' +
    'in its older layers: a secret is not removed by a newer one.',
  examples: [
    'koci insert --image images:alpine server /usr/bin/server',
    'koci insert --image images:alpine --opaque conf.d /etc/server/conf.d',
    'koci insert --image images:alpine --whiteout /var/cache',
  ],

  async run(args, session) {
    const image = readImage(args)
    const platform = readPlatform(args)
    const newRefName = readNewTag(args)
    const history = readHistory(args, 'insert')
    const isWhiteout = args.has('whiteout')
    const opaque = args.has('opaque')
    if (isWhiteout && opaque)
      throw usageError('--whiteout', 'removes all of the target: --opaque means nothing')
    const [first = '', second = ''] = args.positionals
    const [source, target] = isWhiteout ? [undefined, first] : [first, second]
    const { insertLayer } = await import('../../lib/layer/insert-layer.ts')
    const made = await insertLayer({
      image,
      platform,
      newRefName,
      // as with umoci the image's author isn't taken for that of the files
      history: history && { ...history, author: history.author ?? '' },
      source,
      target,
      opaque,
      compress: readCompress(args),
      annotations: readAnnotations(args),
      ...readMapping(args),
      signal: session.signal,
      warn: ({ code, message }) => session.warn(code, message),
    })
    if (session.json) session.printJson(madeImage(made))
  },
}
