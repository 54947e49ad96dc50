// References on the command line, `path[:tag]`, and the grammar of tags: image-spec's, as umoci reads it.
// One pass over the characters: no input makes it slow.
import { createError } from '../errors.ts'

/** An image in a layout. */
export interface ImageReference {
  readonly path: string
  readonly refName: string
}

/**
 * Splits `path[:tag]` at the first colon, so a path can't hold one but a tag may; without a tag it is `latest`.
 * @throws {FormatError} ERR_KOCI_INVALID_REFERENCE
 */
export function parseImageReference(text: string): ImageReference {
  const colon = text.indexOf(':')
  const path = colon < 0 ? text : text.slice(0, colon)
  const refName = colon < 0 ? 'latest' : text.slice(colon + 1)
  if (path === '') throw invalid(text, 'the path is empty')
  if (path.includes('\0')) throw invalid(text, 'the path holds a NUL')
  assertRefName(refName, text)
  return { path, refName }
}

/**
 * Checks a tag: components joined by `/`; each is letters and digits, with one of `- . _ : @ +` or `--` between them.
 * @throws {FormatError} ERR_KOCI_INVALID_REFERENCE
 */
export function assertRefName(refName: string, subject: string = refName): void {
  if (refName === '') throw invalid(subject, 'the tag is empty')
  if (!isRefName(refName))
    throw invalid(
      subject,
      'the tag contains invalid characters - use letters and digits with single - . _ : @ + / between them',
    )
}

/** Whether a text follows the grammar of tags. */
export function isRefName(text: string): boolean {
  let canSeparate = false
  for (let at = 0; at < text.length; at++) {
    if (isAlphanumeric(text.charCodeAt(at))) {
      canSeparate = true
      continue
    }
    if (!canSeparate || !separators.has(text[at] as string)) return false
    if (text[at] === '-' && text[at + 1] === '-') at++
    canSeparate = false
  }
  return canSeparate
}

const separators: ReadonlySet<string> = new Set('-._:@+/')

function isAlphanumeric(code: number): boolean {
  return (
    (code >= 0x30 && code <= 0x39) ||
    (code >= 0x41 && code <= 0x5a) ||
    (code >= 0x61 && code <= 0x7a)
  )
}

function invalid(text: string, reason: string): Error {
  const subject = text.length > 200 ? `${text.slice(0, 200)}…` : text
  return createError('INVALID_REFERENCE', { subject: subject || '(empty)', reason })
}
