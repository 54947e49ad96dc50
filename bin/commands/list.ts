// koci list: the tags of a layout.
import type { Command } from '../command.ts'
import { layout } from '../options.ts'
import { readLayout } from '../read-options.ts'

export const list: Command = {
  positionals: [],
  options: { layout },
  notes: 'The layout may be a tar file (an OCI archive, or what docker save writes).',
  examples: ['koci ls --layout images', 'koci ls --layout images --json'],

  async run(args, session) {
    const path = readLayout(args)
    const { ImageLayout } = await import('../../lib/layout/image-layout.ts')
    await using layout = await ImageLayout.open(path)
    const refs = await layout.refs()
    if (session.json) session.printJson(refs)
    else for (const { refName } of refs) session.print(refName)
  },
}
