// Embedded data for readers that want a file: put into files without names, which end with the layout or the process.
import { randomBytes } from 'node:crypto'
import { open, unlink, type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { wrapError } from '../errors.ts'
import { describe, type Descriptor } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import type { BlobLocation } from './regular-file.ts'

/** Nameless files, one for each digest; all threads of the process can open them by their paths. */
export class Spill {
  readonly #handles = new Map<Digest, Promise<FileHandle>>()

  /** Where these bytes, which are the descriptor's, can be read until `close`. */
  async locate(descriptor: Descriptor, bytes: Buffer): Promise<BlobLocation> {
    const { digest, size } = descriptor
    let handle = this.#handles.get(digest)
    if (!handle) {
      handle = writeNameless(bytes)
      this.#handles.set(digest, handle)
    }
    try {
      return { path: `/proc/self/fd/${(await handle).fd}`, offset: 0, size }
    } catch (error) {
      this.#handles.delete(digest)
      throw wrapError(error, describe(descriptor))
    }
  }

  /** Ends all files. */
  async close(): Promise<void> {
    const handles = await Promise.allSettled(this.#handles.values())
    this.#handles.clear()
    for (const handle of handles) if (handle.status === 'fulfilled') await handle.value.close()
  }
}

async function writeNameless(bytes: Buffer): Promise<FileHandle> {
  const name = join(tmpdir(), `koci-${randomBytes(16).toString('hex')}`)
  const handle = await open(name, 'wx+', 0o600)
  try {
    await unlink(name)
    await handle.writeFile(bytes)
    return handle
  } catch (error) {
    await handle.close()
    throw error
  }
}
