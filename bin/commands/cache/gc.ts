// koci cache gc: removes what nobody needs.
import type { Command } from '../../command.ts'
import { dir, openStore, readBytes, readDuration, size } from './store.ts'

export const gc: Command = {
  positionals: [],
  options: {
    dir,
    'keep-bytes': {
      type: 'text',
      description: 'remove unused layers until the store is no larger, oldest use first',
      value: 'size',
    },
    'older-than': {
      type: 'text',
      description: 'remove layers that nobody used for so long, such as 30d',
      value: 'time',
    },
    'drop-missing': {
      type: 'switch',
      description: 'bundles that are not where they were last are deleted ones',
    },
  },
  notes:
    'Without options: what killed processes left, layers that are not complete, and\n' +
    'those of bundles that were missed several times within a week or more. Never\n' +
    'what a bundle needs, a mount shows, or a running koci uses.',
  examples: ['koci cache gc --keep-bytes 20G', 'koci cache gc --older-than 30d --drop-missing'],

  async run(args, session) {
    const keepBytes = readBytes(args, 'keep-bytes')
    const olderThanMs = readDuration(args, 'older-than')
    const store = await openStore(args)
    const { collect } = await import('../../../middleware/cache/collect.ts')
    const dropMissing = args.has('drop-missing')
    const report = await collect(store, { keepBytes, olderThanMs, dropMissing })
    if (session.json) return session.printJson(report)
    for (const { name, bytes, reason } of report.removed)
      session.print(`${name}  ${size(bytes).padStart(10)}  ${reason}`)
    const { removed, bytesRemoved, layers, bytes } = report
    session.print(
      `${removed.length} removed, ${size(bytesRemoved)}; ${layers} kept, ${size(bytes)}`,
    )
  },
}
