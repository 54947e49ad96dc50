// Names of one file as links in a layer. In a user namespace the kernel shows the names of a file that was copied up as files
// of their own until the next mount; the upper directory knows better.
import { lstatSync } from 'node:fs'
import type { LayerEntry } from '../../lib/layer/layer-writer.ts'

/** The same entries; a further name of a file of the upper directory is a hard link to the first one. */
export async function* linkNames(
  entries: AsyncIterable<LayerEntry>,
  upper: string,
): AsyncGenerator<LayerEntry, void, undefined> {
  const firstNames = new Map<bigint, Buffer>()
  for await (const entry of entries) {
    const inode = entry.type === 'file' ? sharedInode(upper, entry.rawPath) : undefined
    const first = inode === undefined ? undefined : firstNames.get(inode)
    if (first) {
      const { rawPath, mode, uid, gid, mtime } = entry
      yield { rawPath, type: 'hardlink', mode, uid, gid, size: 0, mtime, rawLinkname: first }
    } else {
      if (inode !== undefined) firstNames.set(inode, entry.rawPath)
      yield entry
    }
  }
}

/** The inode of a file that has several names; undefined for others, and where the upper directory has none. */
function sharedInode(upper: string, rawPath: Buffer): bigint | undefined {
  const file = Buffer.concat([Buffer.from(`${upper}/`), rawPath])
  try {
    const stat = lstatSync(file, { bigint: true })
    return stat.isFile() && stat.nlink > 1n ? stat.ino : undefined
  } catch {
    return undefined
  }
}
