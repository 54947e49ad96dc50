// koci verify: whether everything in a layout is what it is said to be.
import { createError } from '../../lib/errors.ts'
import type { Command } from '../command.ts'
import { layout } from '../options.ts'
import { readLayout } from '../read-options.ts'

export const verify: Command = {
  positionals: [],
  options: { layout },
  notes:
    'Reads all of it: sizes and digests of blobs, indexes, manifests and configs,\n' +
    'contents of layers. Prints one line for everything that is wrong, and ends with\n' +
    'status 1 if anything is. The layout may be a tar file.',
  examples: ['koci verify --layout images', 'koci verify --layout images --json'],

  async run(args, session) {
    const path = readLayout(args)
    const { ImageLayout } = await import('../../lib/layout/image-layout.ts')
    const { verifyLayout } = await import('../../lib/layout/verify-layout.ts')
    await using layout = await ImageLayout.open(path)
    let blobs = 0
    const verifying = (): ReturnType<typeof verifyLayout> =>
      verifyLayout(layout, {
        signal: session.signal,
        onProblem: ({ message, code }) => {
          if (!session.json) session.print(`${message} [${code}]`)
        },
        onProgress: count => void (blobs = count),
      })
    const text = (): string => `verifying, ${blobs} blobs so far`
    const { problems, ...counts } = await session.showing(text, verifying)
    if (session.json) session.printJson({ ...counts, problems })
    if (problems.length > 0)
      throw createError('LAYOUT_DAMAGED', { subject: path, count: problems.length })
  },
}
