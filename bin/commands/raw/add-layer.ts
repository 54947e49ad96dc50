// koci raw add-layer: a tar file on top of an image, byte for byte.
import type { Command } from '../../command.ts'
import { historyOptions, readHistory } from '../../history-options.ts'
import { madeImage } from '../../made-image.ts'
import { compress, image, layerAnnotation, newTag, platform } from '../../options.ts'
import {
  readAnnotations,
  readCompress,
  readImage,
  readNewTag,
  readPlatform,
} from '../../read-options.ts'

export const addLayer: Command = {
  positionals: ['new-layer.tar'],
  options: {
    image,
    platform,
    tag: newTag,
    compress,
    ...layerAnnotation,
    ...historyOptions('raw add-layer'),
  },
  notes:
    'The file has to be an uncompressed tar archive; nothing but its beginning is\n' +
    'looked at. It may be /dev/stdin.',
  examples: [
    'koci raw add-layer --image images:alpine layer.tar',
    'koci raw add-layer --image images:alpine --tag more layer.tar',
  ],

  async run(args, session) {
    const image = readImage(args)
    const platform = readPlatform(args)
    const newRefName = readNewTag(args)
    const history = readHistory(args, 'raw add-layer')
    const compress = readCompress(args)
    const annotations = readAnnotations(args)
    const [file = ''] = args.positionals
    const { addLayerFile } = await import('../../../lib/layer/add-layer.ts')
    const made = await addLayerFile({
      image,
      platform,
      newRefName,
      history,
      compress,
      annotations,
      file,
      signal: session.signal,
      warn: ({ code, message }) => session.warn(code, message),
    })
    if (session.json) session.printJson(madeImage(made))
  },
}
