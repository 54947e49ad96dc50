// Where a layout's files come from: a directory, or members of a tar archive.
import { createError } from '../errors.ts'
import { isObject } from '../oci/document.ts'
import { parseJson } from '../oci/json.ts'
import type { Digest } from '../oci/digest.ts'
import type { BlobLocation } from './regular-file.ts'

/** What a layout is read from. */
export interface LayoutSource {
  /** The bytes of index.json, as they are now. */
  readIndex(): Promise<Buffer>
  /** Where a blob is; undefined if it isn't there. Its content isn't looked at. */
  locate(digest: Digest, subject: string): Promise<BlobLocation | undefined>
}

/** The most bytes an index.json may have: it grows with the tags. */
export const maxIndexBytes: number = 16 * 1024 * 1024

/** The most bytes an oci-layout file may have. */
export const maxMarkerBytes = 4096

/**
 * Checks the content of an `oci-layout` file.
 * @throws {FormatError} ERR_KOCI_INVALID_LAYOUT
 * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_VERSION not 1.0.0
 */
export function checkMarker(bytes: Buffer | undefined, subject: string): void {
  if (!bytes)
    throw createError('INVALID_LAYOUT', { subject, reason: 'it has no file oci-layout' })
  const marker = parseJson(bytes, `${subject}/oci-layout`, { maxBytes: maxMarkerBytes })
  const version = isObject(marker) ? marker['imageLayoutVersion'] : undefined
  if (typeof version !== 'string')
    throw createError('INVALID_LAYOUT', {
      subject,
      reason: 'oci-layout names no imageLayoutVersion',
    })
  if (version !== '1.0.0') throw createError('UNSUPPORTED_VERSION', { subject, version })
}
