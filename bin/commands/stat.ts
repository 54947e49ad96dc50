// koci stat: what an image is made of, for people or as JSON of umoci's shape.
import type { Command } from '../command.ts'
import { image, platform } from '../options.ts'
import { readImage, readPlatform } from '../read-options.ts'

export const stat: Command = {
  positionals: [],
  options: {
    image,
    platform,
    json: { type: 'switch', description: 'print JSON; the other form may change' },
  },
  notes: 'An artifact that is no image has a manifest to show, and nothing else.',
  examples: ['koci stat --image images:alpine', 'koci stat --image images:alpine --json'],

  async run(args, session) {
    const { path, refName } = readImage(args)
    const platform = readPlatform(args)
    const { ImageLayout } = await import('../../lib/layout/image-layout.ts')
    const { readStat } = await import('../stat/read-stat.ts')

    await using layout = await ImageLayout.open(path)
    const found = await readStat(layout, refName, platform ? { platform } : {})
    if (session.json) {
      const { toJson } = await import('../stat/stat-json.ts')
      process.stdout.write(toJson(found))
    } else {
      const { toText } = await import('../stat/stat-text.ts')
      process.stdout.write(toText(found))
    }
  },
}
