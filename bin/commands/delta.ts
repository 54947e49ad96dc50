// koci delta: what a repack would pack.
import { nul, printChanges, printChangesJson, readNull } from '../change-lines.ts'
import type { Command } from '../command.ts'
import { bundleChain, bundleLayout, listing } from '../options.ts'
import { readChain, readListing } from '../read-options.ts'

export const delta: Command = {
  positionals: ['bundle'],
  options: {
    null: nul,
    ...listing,
    layout: bundleLayout,
    ...bundleChain,
  },
  notes:
    'Prints "A path" for what was added, "M path" for what was modified, "D path" for\n' +
    'what was deleted with all beneath it; paths are relative to the rootfs, which is\n' +
    '"." itself. Other names of a file with several are listed, too, if it changed.',
  examples: ['koci delta bundle', 'koci delta --json --mask-path /tmp bundle'],

  async run(args, session) {
    const isRaw = readNull(args, session)
    const [bundle = ''] = args.positionals
    const app = await session.application({ ...readChain(args), bundle })
    const { listDelta } = await import('../../lib/with-bundle.ts')
    const changes = await listDelta(app, {
      bundle,
      layout: args.text('layout'),
      ...readListing(args),
      signal: session.signal,
    })
    if (session.json) await printChangesJson(session, changes)
    else await printChanges(session, changes, isRaw)
  },
}
