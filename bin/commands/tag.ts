// koci tag: another name for what a tag leads to, be it an image or an index of several.
import type { Command } from '../command.ts'
import { image } from '../options.ts'
import { readImage } from '../read-options.ts'

export const tag: Command = {
  positionals: ['new-tag'],
  options: { image },
  notes: 'If the new tag exists it is moved.',
  examples: ['koci tag --image images:1.2.3 latest'],

  async run(args, { signal }) {
    const { path, refName } = readImage(args)
    const [newName = ''] = args.positionals
    const { assertRefName } = await import('../../lib/oci/reference.ts')
    assertRefName(newName)
    const { ImageLayout } = await import('../../lib/layout/image-layout.ts')
    const { findRef, withoutFullName } = await import('../../lib/layout/refs.ts')

    await using layout = await ImageLayout.open(path, { signal })
    // what the tag leads to is to stay until the new one leads there, too
    await layout.hold()
    const manifests = await layout.roots()
    const entry = findRef({ schemaVersion: 2, manifests }, refName, path)
    await layout.locateBlob(entry)
    await layout.setRef(newName, withoutFullName(entry))
  },
}
