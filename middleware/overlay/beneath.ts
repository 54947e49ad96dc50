// What is in a rootfs that nothing is mounted at. Whoever works there would find none of it in the mount, nor in a layer.
import { lstatSync, readdirSync, type Dirent } from 'node:fs'
import { createError, wrapError } from '../../lib/errors.ts'
import { mountedInside } from '../../lib/fs/mount-table.ts'
import { printable } from '../../lib/text.ts'

/**
 * Directories and empty files don't count: runtimes leave them where they looked for a rootfs.
 * @throws {FormatError} ERR_KOCI_INVALID_BUNDLE; {SystemError} ERR_KOCI_IO
 */
export function assertNothingBeneath(rootfs: string): void {
  let found: Buffer | undefined
  try {
    // files of the host wouldn't be the bundle's
    const [mounted] = mountedInside(rootfs)
    if (mounted !== undefined)
      throw createError('INVALID_BUNDLE', {
        subject: rootfs,
        reason: `something is mounted at ${printable(Buffer.from(mounted, 'latin1'))}, and the bundle isn't - unmount that`,
      })
    found = findContent(Buffer.from(rootfs))
  } catch (error) {
    // it is made when something is mounted there
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw wrapError(error, rootfs)
  }
  if (found === undefined) return
  const name = printable(found.subarray(Buffer.byteLength(rootfs) + 1))
  throw createError('INVALID_BUNDLE', {
    subject: rootfs,
    reason: `${name} was written to it while nothing was mounted there, so it is in no layer - move it out, mount the bundle, and put it back`,
  })
}

/** The path of the first thing that holds something. */
function findContent(top: Buffer): Buffer | undefined {
  const rest = [top]
  for (let directory = rest.pop(); directory; directory = rest.pop())
    for (const entry of entriesOf(directory, directory.length === top.length)) {
      const path = Buffer.concat([directory, Buffer.from('/'), entry.name])
      if (entry.isDirectory()) rest.push(path)
      else if (!entry.isFile() || (lstatSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0)
        return path
    }
  return undefined
}

/** What is in a directory; nothing where somebody removed it meanwhile, but for the topmost one. */
function entriesOf(directory: Buffer, isTop: boolean): Dirent<Buffer>[] {
  try {
    return readdirSync(directory, { withFileTypes: true, encoding: 'buffer' })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (!isTop && (code === 'ENOENT' || code === 'ENOTDIR')) return []
    throw error
  }
}
