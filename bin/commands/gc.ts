// koci gc: removes what no tag of a layout leads to.
import type { Command } from '../command.ts'
import { dryRun as dryRunOption, layout } from '../options.ts'
import { readLayout } from '../read-options.ts'

export const gc: Command = {
  positionals: [],
  options: { layout, 'dry-run': dryRunOption },
  notes:
    'Removes blobs that nothing in index.json leads to, and what killed writers left.\n' +
    'Not to be run while another tool than koci writes to the layout.',
  examples: ['koci gc --layout images'],

  async run(args, session) {
    const path = readLayout(args)
    const { ImageLayout } = await import('../../lib/layout/image-layout.ts')
    const { collectGarbage } = await import('../../lib/layout/gc.ts')
    await using layout = await ImageLayout.open(path)
    const dryRun = args.has('dry-run')
    const report = await collectGarbage(layout, { dryRun, signal: session.signal })
    if (session.json) session.printJson(report)
    else if (dryRun)
      for (const name of [...report.removed, ...report.staging])
        session.print(`would remove: ${name}`)
  },
}
