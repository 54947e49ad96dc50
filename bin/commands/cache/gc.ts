// koci cache gc: removes what nobody needs.
import type { Command } from '../../command.ts'
import { dir, readBytes, readDuration, size, withStores } from './store.ts'

export const gc: Command = {
  positionals: [],
  options: {
    dir,
    'keep-bytes': {
      type: 'text',
      description: 'remove unused layers until a store is no larger, oldest use first',
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
    const options = { keepBytes, olderThanMs, dropMissing: args.has('drop-missing') }
    await withStores(args, session, async stores => {
      const reports: object[] = []
      for (const store of stores) {
        const { driver } = store
        const report = await store.collect(options)
        reports.push({ driver, store: store.path, ...report })
        if (session.json) continue
        for (const { name, bytes, reason } of report.removed)
          session.print(`${name}  ${size(bytes).padStart(10)}  ${reason}`)
        const { removed, bytesRemoved, layers, bytes, damagedLeases = [] } = report
        for (const file of damagedLeases)
          session.warn(
            'LEASE_DAMAGED',
            `${file} is damaged: all layers are kept for the bundle that it was of - koci mount writes it anew, --drop-missing removes it`,
          )
        const whose = stores.length > 1 ? `${driver}: ` : ''
        session.print(
          `${whose}${removed.length} removed, ${size(bytesRemoved)}; ${layers} kept, ${size(bytes)}`,
        )
      }
      if (session.json) session.printJson(reports)
    })
  },
}
