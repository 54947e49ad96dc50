// Image manifests and indexes, OCI and Docker schema 2. image-spec v1.1.1, manifest.md and image-index.md.
// A document that could be taken for both is refused (CVE-2021-41190), as is one that isn't what its descriptor says.
import { createError } from '../errors.ts'
import { describe, parseDescriptor, type Descriptor } from './descriptor.ts'
import { checkFields, type Fields, type JsonObject } from './document.ts'
import { parseJson } from './json.ts'

/** An image manifest; `layers` are base-first. */
export interface Manifest {
  schemaVersion: 2
  mediaType?: string
  artifactType?: string
  config: Descriptor
  layers: Descriptor[]
  subject?: Descriptor
  annotations?: Record<string, string>
  [unknown: string]: unknown
}

/** An image index (Docker: manifest list). */
export interface Index {
  schemaVersion: 2
  mediaType?: string
  artifactType?: string
  manifests: Descriptor[]
  subject?: Descriptor
  annotations?: Record<string, string>
  [unknown: string]: unknown
}

const manifestFields = {
  schemaVersion: 'integer',
  mediaType: 'string',
  artifactType: 'string',
  config: 'object',
  layers: 'objects',
  subject: 'object',
  annotations: 'stringMap',
  manifests: 'objects',
} as const satisfies Fields

/**
 * Parses a manifest; unknown fields are kept.
 * @throws {FormatError} ERR_KOCI_INVALID_MANIFEST, ERR_KOCI_INVALID_DESCRIPTOR, ERR_KOCI_INVALID_JSON
 */
export function parseManifest(bytes: Uint8Array, descriptor: Descriptor): Manifest {
  const subject = describe(descriptor)
  const fields = parseFields(parseJson(bytes, subject), subject, 'INVALID_MANIFEST')
  checkMediaType(fields, descriptor, 'INVALID_MANIFEST')
  if (fields['manifests'] !== undefined)
    throw createError('INVALID_MANIFEST', {
      subject,
      reason: 'it has the field manifests of an index',
    })
  if (fields['config'] === undefined)
    throw createError('INVALID_MANIFEST', { subject, reason: 'it has no config' })
  const layers = (fields['layers'] ?? []) as unknown[]
  return {
    ...fields,
    ...parseSubject(fields, subject),
    schemaVersion: 2,
    config: parseDescriptor(fields['config'], `${subject}: config`),
    layers: layers.map((layer, at) => parseDescriptor(layer, `${subject}: layers[${at}]`)),
  }
}

/**
 * Parses an index; unknown fields are kept. Entries of unknown media types are no error until they are selected.
 * `descriptor` is undefined for a layout's index.json, which nothing points to.
 * @throws {FormatError} ERR_KOCI_INVALID_INDEX, ERR_KOCI_INVALID_DESCRIPTOR, ERR_KOCI_INVALID_JSON
 */
export function parseIndex(
  bytes: Uint8Array,
  descriptor: Descriptor | undefined,
  options: { subject?: string; maxBytes?: number } = {},
): Index {
  const { subject = descriptor ? describe(descriptor) : 'index.json', ...limits } = options
  const fields = parseFields(parseJson(bytes, subject, limits), subject, 'INVALID_INDEX')
  if (descriptor) checkMediaType(fields, descriptor, 'INVALID_INDEX')
  for (const foreign of ['config', 'layers'])
    if (fields[foreign] !== undefined)
      throw createError('INVALID_INDEX', {
        subject,
        reason: `it has the field ${foreign} of a manifest`,
      })
  const manifests = (fields['manifests'] ?? []) as unknown[]
  return {
    ...fields,
    ...parseSubject(fields, subject),
    schemaVersion: 2,
    manifests: manifests.map((entry, at) =>
      parseDescriptor(entry, `${subject}: manifests[${at}]`),
    ),
  }
}

function parseFields(
  document: unknown,
  subject: string,
  name: 'INVALID_MANIFEST' | 'INVALID_INDEX',
): JsonObject {
  const fields = checkFields(document, manifestFields, subject, name)
  if (fields['schemaVersion'] !== 2)
    throw createError(name, {
      subject,
      reason: `schemaVersion is ${JSON.stringify(fields['schemaVersion']) ?? 'missing'}, not 2`,
    })
  return fields
}

function parseSubject(fields: JsonObject, subject: string): { subject?: Descriptor } {
  if (fields['subject'] === undefined) return {}
  return { subject: parseDescriptor(fields['subject'], `${subject}: subject`) }
}

function checkMediaType(
  fields: JsonObject,
  descriptor: Descriptor,
  name: 'INVALID_MANIFEST' | 'INVALID_INDEX',
): void {
  const found = fields['mediaType']
  if (found !== undefined && found !== descriptor.mediaType)
    throw createError(name, {
      subject: describe(descriptor),
      reason: `it says that its media type is ${JSON.stringify(found)}`,
    })
}
