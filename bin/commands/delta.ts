// koci delta: what a repack would pack.
import type { Change } from '../../lib/change.ts'
import { printable } from '../../lib/text.ts'
import { changeToJson } from '../change-json.ts'
import type { Command } from '../command.ts'
import { bundleChain, bundleLayout, listing } from '../options.ts'
import { readChain, readListing } from '../read-options.ts'
import { usageError } from '../usage-error.ts'

const pieceLength = 1000

export const delta: Command = {
  positionals: ['bundle'],
  options: {
    null: {
      type: 'switch',
      short: '0',
      description: 'end each line with NUL, and leave names as they are (-0)',
    },
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
    const isRaw = args.has('null')
    if (isRaw && session.json) throw usageError('--null', 'can not go together with --json')
    const [bundle = ''] = args.positionals
    const app = await session.application({ ...readChain(args), bundle })
    const { listDelta } = await import('../../lib/with-bundle.ts')
    const changes = await listDelta(app, {
      bundle,
      layout: args.text('layout'),
      ...readListing(args),
      signal: session.signal,
    })
    if (session.json) {
      session.printJson(changes.map(changeToJson))
      return
    }
    for (let at = 0; at < changes.length; at += pieceLength) {
      const lines = changes.slice(at, at + pieceLength).map(isRaw ? rawLine : textLine)
      await session.write(Buffer.concat(lines))
    }
  },
}

function textLine({ kind, rawPath }: Change): Buffer {
  return Buffer.from(`${kind} ${rawPath.length === 0 ? '.' : printable(rawPath)}\n`)
}

function rawLine({ kind, rawPath }: Change): Buffer {
  const path = rawPath.length === 0 ? Buffer.from('.') : rawPath
  return Buffer.concat([Buffer.from(`${kind} `), path, Buffer.from('\0')])
}
