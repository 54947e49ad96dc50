// koci new: an image without layers, to be unpacked, filled and repacked.
import type { Command } from '../command.ts'
import { image, platform } from '../options.ts'
import { readImage, readPlatform } from '../read-options.ts'

export const newCommand: Command = {
  positionals: [],
  options: { image, platform },
  notes:
    'The layout has to exist. A tag that exists is replaced. With SOURCE_DATE_EPOCH\n' +
    'set, the image is made at that time.',
  examples: ['koci new --image images:scratch'],

  async run(args, { signal }) {
    const { path, refName } = readImage(args)
    const platform = readPlatform(args)
    const { ImageLayout } = await import('../../lib/layout/image-layout.ts')
    const { createImage } = await import('../../lib/layout/create-image.ts')
    await using layout = await ImageLayout.open(path, { signal })
    await createImage(layout, refName, platform)
  },
}
