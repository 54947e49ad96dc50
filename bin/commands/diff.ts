// koci diff: how the trees of two images differ.
import type { Difference } from '../../lib/diff.ts'
import { parseImageReference } from '../../lib/oci/reference.ts'
import { nul, printChanges, printChangesJson, readNull } from '../change-lines.ts'
import type { Command } from '../command.ts'
import { platform } from '../options.ts'
import { readPlatform } from '../read-options.ts'

export const diff: Command = {
  positionals: ['layout[:tag]', 'layout[:tag]'],
  options: {
    null: nul,
    'ignore-times': {
      type: 'switch',
      description: 'what differs in nothing but its modification time is the same',
    },
    platform,
  },
  notes:
    'Prints "A", "M" or "D" for what the second image adds, modifies or deletes, the\n' +
    'sizes in the first and in the second ("-" for what is no file), and the path. A\n' +
    'directory that is deleted stands for all beneath it. Layers that both have at\n' +
    'the base are read once; nothing is unpacked, and nothing else is compared: koci\n' +
    'stat shows configs. With --json it also says what differs.',
  examples: [
    'koci diff images:1.0 images:1.1',
    'koci diff --ignore-times images:1.0 other.tar:1.1',
  ],

  async run(args, session) {
    const isRaw = readNull(args, session)
    const [old = '', now = ''] = args.positionals
    const platform = readPlatform(args)
    const { diffImages } = await import('../../lib/diff.ts')
    const found = await diffImages({
      before: { image: parseImageReference(old), platform },
      after: { image: parseImageReference(now), platform },
      ignoreTimes: args.has('ignore-times'),
      signal: session.signal,
    })
    if (session.json) await printChangesJson(session, found, { more: sizesToJson })
    else await printChanges(session, found, isRaw, isRaw ? sizes : alignedSizes)
  },
}

function sizes({ oldSize, newSize }: Difference): string {
  return ` ${oldSize ?? '-'} ${newSize ?? '-'}`
}

function alignedSizes({ oldSize, newSize }: Difference): string {
  return [oldSize, newSize].map(size => String(size ?? '-').padStart(12)).join('')
}

function sizesToJson({ oldSize, newSize, aspects }: Difference): object {
  return { oldSize: oldSize ?? null, newSize: newSize ?? null, differs: aspects }
}
