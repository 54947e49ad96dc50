// A layout inside a tar file, read where it lies: an OCI archive (also what Docker 25 and later save), or an older
// `docker save`. The headers are read once; a file that is changed later fails at the digests.
import { createError, wrapError } from '../errors.ts'
import { algorithmOf, encodedOf, type Digest } from '../oci/digest.ts'
import { findMember, readMembers, type ArchiveMembers } from './archive-members.ts'
import { readSavedLayout, type SavedFiles, type SavedLayout } from './docker-save.ts'
import { hashLocation, openRegular, readLocation, type BlobLocation } from './regular-file.ts'
import { checkMarker, maxIndexBytes, maxMarkerBytes, type LayoutSource } from './source.ts'

/** Reads a layout in a tar file. */
export class ArchiveSource implements LayoutSource {
  readonly #path: string
  readonly #members: ArchiveMembers
  #saved: Promise<SavedLayout> | undefined

  private constructor(path: string, members: ArchiveMembers) {
    this.#path = path
    this.#members = members
  }

  /**
   * Reads the headers of an archive (an absolute path) and checks that it holds a layout.
   * @throws {FormatError} ERR_KOCI_INVALID_LAYOUT, ERR_KOCI_BAD_ARCHIVE
   * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_VERSION
   */
  static async open(path: string): Promise<ArchiveSource> {
    const file = await openRegular(path, path)
    if (!file)
      throw createError('INVALID_LAYOUT', {
        subject: path,
        reason: 'no such file or directory',
      })
    let members: ArchiveMembers
    try {
      members = await readMembers(file.handle, file.size, path)
    } catch (error) {
      throw wrapError(error, path)
    } finally {
      await file.handle.close()
    }
    const source = new ArchiveSource(path, members)
    if (members.has('oci-layout')) {
      checkMarker(await source.#read('oci-layout', maxMarkerBytes), path)
      source.#locate('index.json')
    } else if (!members.has('manifest.json'))
      throw createError('INVALID_LAYOUT', {
        subject: path,
        reason: 'the archive holds neither oci-layout nor the manifest.json of docker save',
      })
    return source
  }

  async readIndex(): Promise<Buffer> {
    const saved = await this.#savedLayout()
    return saved ? saved.index : this.#read('index.json', maxIndexBytes)
  }

  async locate(digest: Digest): Promise<BlobLocation | undefined> {
    const saved = await this.#savedLayout()
    if (saved) return saved.blobs.get(digest)
    const name = `blobs/${algorithmOf(digest)}/${encodedOf(digest)}`
    const member = findMember(this.#members, name)
    return member && this.#locationOf(member)
  }

  #savedLayout(): Promise<SavedLayout> | undefined {
    if (this.#members.has('oci-layout')) return undefined
    this.#saved ??= readSavedLayout(this.#savedFiles(), this.#path)
    return this.#saved
  }

  #savedFiles(): SavedFiles {
    // names in manifest.json are text, those of members bytes in latin1
    const bytesOf = (name: string): string => Buffer.from(name).toString('latin1')
    return {
      locate: name => this.#locate(bytesOf(name)),
      read: (name, maxBytes) => this.#read(bytesOf(name), maxBytes),
      start: name => this.#readStart(bytesOf(name), 4),
      hash: name =>
        hashLocation(this.#locate(bytesOf(name)), 'sha256', `${this.#path}: ${name}`),
    }
  }

  async #read(name: string, maxBytes: number): Promise<Buffer> {
    const { size: value } = this.#locate(name)
    if (value > maxBytes)
      throw createError('LIMIT_EXCEEDED', {
        subject: `${this.#path}: ${name}`,
        limit: 'document size',
        value,
        maximum: maxBytes,
      })
    return this.#readStart(name, value)
  }

  async #readStart(name: string, length: number): Promise<Buffer> {
    const { offset, size } = this.#locate(name)
    const subject = `${this.#path}: ${name}`
    const location = { path: this.#path, offset, size: Math.min(size, length) }
    const bytes = await readLocation(location, subject)
    if (!bytes) throw createError('INVALID_LAYOUT', { subject, reason: 'the archive is gone' })
    return bytes
  }

  #locate(name: string): BlobLocation {
    const member = findMember(this.#members, name)
    if (member) return this.#locationOf(member)
    const reason = `the archive holds no regular file ${name}`
    throw createError('INVALID_LAYOUT', { subject: this.#path, reason })
  }

  #locationOf({ offset, size }: { offset: number; size: number }): BlobLocation {
    return { path: this.#path, offset, size }
  }
}
