// koci remove: drops a tag. Its blobs stay, and a tag that isn't there is no error, as with umoci.
import type { Command } from '../command.ts'
import { image } from '../options.ts'
import { readImage } from '../read-options.ts'

export const remove: Command = {
  positionals: [],
  options: { image },
  notes: 'The blobs stay in the layout. A tag that is not there is no error.',
  examples: ['koci rm --image images:old'],

  async run(args, { signal }) {
    const { path, refName } = readImage(args)
    const { ImageLayout } = await import('../../lib/layout/image-layout.ts')
    await using layout = await ImageLayout.open(path, { signal })
    await layout.removeRef(refName)
  },
}
