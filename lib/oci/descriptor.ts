// Descriptors: what points to content, and proves it. image-spec v1.1.1, descriptor.md.
import { createError } from '../errors.ts'
import { algorithmOf, digestOf, parseDigest, type Digest } from './digest.ts'
import { checkFields, type Fields } from './document.ts'

/** The machine an image is for; names as Go has them (`linux`, `amd64`, `arm64`, `v7`). */
export interface Platform {
  architecture: string
  os: string
  'os.version'?: string
  'os.features'?: string[]
  variant?: string
  [unknown: string]: unknown
}

/** Points to a blob by media type, digest and size in bytes. `urls` are never fetched. */
export interface Descriptor {
  mediaType: string
  digest: Digest
  size: number
  urls?: string[]
  annotations?: Record<string, string>
  data?: string
  platform?: Platform
  artifactType?: string
  [unknown: string]: unknown
}

const descriptorFields = {
  mediaType: 'string',
  digest: 'string',
  size: 'integer',
  urls: 'strings',
  annotations: 'stringMap',
  data: 'string',
  platform: 'object',
  artifactType: 'string',
} as const satisfies Fields

const platformFields = {
  architecture: 'string',
  os: 'string',
  'os.version': 'string',
  'os.features': 'strings',
  variant: 'string',
} as const satisfies Fields

/**
 * Checks a descriptor that was parsed from JSON; unknown fields are kept.
 * `data` is not looked at here: {@link embeddedData} verifies it.
 * @throws {FormatError} ERR_KOCI_INVALID_DESCRIPTOR, ERR_KOCI_INVALID_DIGEST, ERR_KOCI_INVALID_JSON
 * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_ALGORITHM
 */
export function parseDescriptor(value: unknown, subject: string): Descriptor {
  const fields = checkFields(value, descriptorFields, subject, 'INVALID_DESCRIPTOR')
  const { mediaType, size } = fields
  if (typeof mediaType !== 'string' || mediaType === '') throw invalid(subject, 'no media type')
  if (fields['digest'] === undefined) throw invalid(subject, 'no digest')
  if (typeof size !== 'number') throw invalid(subject, 'no size')
  if (size < 0) throw invalid(subject, `the size is ${size}`)
  const descriptor: Descriptor = {
    ...fields,
    mediaType,
    digest: parseDigest(fields['digest'], subject),
    size,
  }
  if (descriptor.platform)
    descriptor.platform = parsePlatformObject(descriptor.platform, subject)
  return descriptor
}

/** How a descriptor is named in messages: its digest and media type. */
export function describe(descriptor: Descriptor): string {
  return `${descriptor.digest} (${descriptor.mediaType})`
}

/**
 * The content that a descriptor carries itself, verified; undefined if it carries none.
 * @throws {FormatError} ERR_KOCI_INVALID_DESCRIPTOR not canonical base64
 * @throws {IntegrityError} ERR_KOCI_SIZE_MISMATCH, ERR_KOCI_DIGEST_MISMATCH
 */
export function embeddedData(descriptor: Descriptor): Buffer | undefined {
  const { data } = descriptor
  if (data === undefined) return undefined
  const bytes = Buffer.from(data, 'base64')
  // Node's decoder skips what it can't read: only what encodes back to the same text was base64
  if (bytes.toString('base64') !== data)
    throw invalid(describe(descriptor), 'data is not valid base64')
  verifyBlob(descriptor, bytes)
  return bytes
}

/**
 * Compares bytes with their descriptor: the size first, then the digest.
 * @throws {IntegrityError} ERR_KOCI_SIZE_MISMATCH, ERR_KOCI_DIGEST_MISMATCH
 */
export function verifyBlob(descriptor: Descriptor, bytes: Uint8Array): void {
  assertSize(descriptor, bytes.length)
  const found = digestOf(bytes, algorithmOf(descriptor.digest))
  const { digest: expected } = descriptor
  if (found !== expected)
    throw createError('DIGEST_MISMATCH', {
      subject: describe(descriptor),
      found,
      expected,
      descriptor,
    })
}

/**
 * Compares the size that was found with the promised one.
 * @throws {IntegrityError} ERR_KOCI_SIZE_MISMATCH
 */
export function assertSize(descriptor: Descriptor, found: number): void {
  const { size: expected } = descriptor
  if (found !== expected)
    throw createError('SIZE_MISMATCH', {
      subject: describe(descriptor),
      found,
      expected,
      descriptor,
    })
}

function parsePlatformObject(value: unknown, subject: string): Platform {
  const fields = checkFields(
    value,
    platformFields,
    `${subject}: platform`,
    'INVALID_DESCRIPTOR',
  )
  // absent names are empty ones, as in Go: such a platform matches nothing
  return { architecture: '', os: '', ...fields }
}

function invalid(subject: string, reason: string): Error {
  return createError('INVALID_DESCRIPTOR', { subject, reason })
}
