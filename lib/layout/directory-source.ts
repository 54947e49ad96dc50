// A layout in a directory: oci-layout, index.json, blobs/<algorithm>/<encoded>. image-spec v1.1.1, image-layout.md.
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { createError, wrapError } from '../errors.ts'
import { algorithmOf, encodedOf, type Digest } from '../oci/digest.ts'
import { openRegular, readRegular, type BlobLocation } from './regular-file.ts'
import { checkMarker, maxIndexBytes, maxMarkerBytes, type LayoutSource } from './source.ts'

/** The file of a blob below the layout's directory. */
export function blobPath(root: string, digest: Digest): string {
  return join(root, 'blobs', algorithmOf(digest), encodedOf(digest))
}

/** Reads a layout directory. */
export class DirectorySource implements LayoutSource {
  readonly #root: string

  private constructor(root: string) {
    this.#root = root
  }

  /**
   * Checks that the directory (an absolute path) is a layout of a version we know.
   * @throws {FormatError} ERR_KOCI_INVALID_LAYOUT
   * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_VERSION
   */
  static async open(root: string): Promise<DirectorySource> {
    const marker = join(root, 'oci-layout')
    checkMarker(await readRegular(marker, marker, maxMarkerBytes), root)
    if (!(await isDirectory(join(root, 'blobs'))))
      throw createError('INVALID_LAYOUT', { subject: root, reason: 'blobs is not a directory' })
    const source = new DirectorySource(root)
    const index = await openRegular(source.#indexPath, source.#indexPath)
    if (!index) throw source.#noIndex()
    await index.handle.close()
    return source
  }

  get #indexPath(): string {
    return join(this.#root, 'index.json')
  }

  async readIndex(): Promise<Buffer> {
    const bytes = await readRegular(this.#indexPath, this.#indexPath, maxIndexBytes)
    if (!bytes) throw this.#noIndex()
    return bytes
  }

  async locate(digest: Digest, subject: string): Promise<BlobLocation | undefined> {
    const path = blobPath(this.#root, digest)
    const file = await openRegular(path, subject)
    if (!file) return undefined
    await file.handle.close()
    return { path, offset: 0, size: file.size }
  }

  #noIndex(): Error {
    return createError('INVALID_LAYOUT', {
      subject: this.#root,
      reason: 'it has no file index.json',
    })
  }
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return false
    throw wrapError(error, path)
  }
}
