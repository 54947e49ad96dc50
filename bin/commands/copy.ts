// koci copy: images, byte for byte, into another layout or an archive.
import type { CopiedBlob, CopyOptions, CopyProgress } from '../../lib/layout/copy-images.ts'
import { parseImageReference } from '../../lib/oci/reference.ts'
import type { Arguments } from '../arguments.ts'
import type { Command } from '../command.ts'
import { dryRun, platform } from '../options.ts'
import { readPlatform } from '../read-options.ts'
import { sizeOf } from '../size-of.ts'
import { usageError } from '../usage-error.ts'

export const copy: Command = {
  positionals: ['layout[:tag]', 'target[:tag]'],
  options: {
    all: { type: 'switch', description: 'everything in the layout, with its tags' },
    referrers: {
      type: 'switch',
      description: 'also what is about the image: signatures, attestations',
    },
    platform: { ...platform, description: 'of an index only the image for this platform' },
    format: {
      type: 'text',
      description: 'layout or archive; by default an archive for a name that ends in .tar',
      value: 'kind',
      choices: ['layout', 'archive'],
    },
    'dry-run': dryRun,
  },
  notes:
    'A target without a tag gets the tag of the source. A layout is made if it is not\n' +
    'there, and added to if it is; an archive must not be there. Every blob is\n' +
    'verified, and is what it was to the last byte; what the target has already is\n' +
    'not copied again, and disk space is shared where that can be had.',
  examples: [
    'koci copy images:alpine other:alpine',
    'koci cp images:app app.tar --referrers',
    'koci copy --all backup.tar images',
  ],

  async run(args, session) {
    const options = readCopy(args)
    const { copyImages } = await import('../../lib/layout/copy-images.ts')
    const { signal } = session
    let progress = 'copying'
    const onProgress = ({ blobs, allBlobs, bytes, allBytes }: CopyProgress): void => {
      progress = `copying blob ${blobs + 1} of ${allBlobs}, ${sizeOf(bytes)} of ${sizeOf(allBytes)} done`
    }
    const report = await session.showing(
      () => progress,
      () => copyImages({ ...options, signal, onProgress }),
    )
    if (session.json) session.printJson({ target: options.target, ...report })
    else if (options.dryRun === true) for (const blob of report.blobs) session.print(line(blob))
  },
}

function readCopy(args: Arguments): CopyOptions {
  const [from = '', to = ''] = args.positionals
  const platform = readPlatform(args)
  const common = {
    referrers: args.has('referrers'),
    format: args.text('format') as CopyOptions['format'],
    dryRun: args.has('dry-run'),
  }
  if (args.has('all')) {
    for (const text of [from, to])
      if (text.includes(':')) throw usageError(text, '--all copies every tag - name none')
    for (const name of ['referrers', 'platform'])
      if (args.has(name) || args.text(name) !== undefined)
        throw usageError(`--${name}`, 'can not go together with --all')
    return { source: from, target: to, ...common }
  }
  const source = parseImageReference(from)
  const target = parseImageReference(to)
  return {
    source: source.path,
    refName: source.refName,
    target: target.path,
    newRefName: to.includes(':') ? target.refName : source.refName,
    platform,
    ...common,
  }
}

function line({ digest, size, how }: CopiedBlob): string {
  return how === 'present'
    ? `there already: ${digest}`
    : `would copy: ${digest} (${sizeOf(size)})`
}
