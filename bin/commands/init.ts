// koci init: an empty layout where nothing was.
import type { Command } from '../command.ts'
import { layout } from '../options.ts'
import { readLayout } from '../read-options.ts'

export const init: Command = {
  positionals: [],
  options: { layout },
  examples: ['koci init --layout images'],

  async run(args) {
    const path = readLayout(args)
    const { ImageLayout } = await import('../../lib/layout/image-layout.ts')
    await (await ImageLayout.create(path)).close()
  },
}
