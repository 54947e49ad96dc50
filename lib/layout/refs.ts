// Tags: annotations of the entries of index.json. Edits work on the parsed document, so that whatever else is in it
// stays; entries without a tag, and their order, too.
import { createError } from '../errors.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import { isObject } from '../oci/document.ts'
import { parseIndex, type Index } from '../oci/manifest.ts'
import { isIndexType, ociTypes } from '../oci/media-type.ts'
import { nearest } from '../nearest.ts'
import { maxIndexBytes } from './source.ts'

/** The annotation that holds a tag. */
export const refNameAnnotation = 'org.opencontainers.image.ref.name'

// containerd and Docker put only the tag into the annotation above, and the whole name here
const imageNameAnnotation = 'io.containerd.image.name'

/** One tag of a layout. */
export interface Ref {
  readonly refName: string
  readonly descriptor: Descriptor
}

/**
 * Parses a layout's index.json.
 * @throws {FormatError} ERR_KOCI_INVALID_INDEX, ERR_KOCI_INVALID_DESCRIPTOR, ERR_KOCI_INVALID_JSON
 */
export function parseLayoutIndex(bytes: Buffer, subject: string): Index {
  const index = parseIndex(bytes, undefined, { subject, maxBytes: maxIndexBytes })
  const { mediaType } = index
  if (mediaType !== undefined && !isIndexType(mediaType))
    throw createError('INVALID_INDEX', {
      subject,
      reason: `it says that its media type is ${JSON.stringify(mediaType)}`,
    })
  return index
}

/** The tags of an index in its order; duplicates are kept, entries without a tag are left out. */
export function refsOf(index: Index): Ref[] {
  return index.manifests.flatMap(descriptor => {
    const refName = descriptor.annotations?.[refNameAnnotation]
    return refName === undefined ? [] : [{ refName, descriptor }]
  })
}

/**
 * The entry that a name stands for: the tag, else containerd's full name, else the digest of an entry.
 * @throws {NotFoundError} ERR_KOCI_REF_NOT_FOUND
 * @throws {ConflictError} ERR_KOCI_AMBIGUOUS several entries have the name
 */
export function findRef(index: Index, refName: string, layout: string): Descriptor {
  const { manifests } = index
  const named = (name: string): Descriptor[] =>
    manifests.filter(entry => entry.annotations?.[name] === refName)
  let found = named(refNameAnnotation)
  if (found.length === 0) found = named(imageNameAnnotation)
  if (found.length === 0)
    found = manifests.filter(entry => entry.digest === refName).slice(0, 1)
  const [descriptor, second] = found
  if (descriptor && !second) return descriptor
  const subject = `tag ${refName.length > 200 ? `${refName.slice(0, 200)}…` : refName}`
  if (second) {
    const choices = `it is the name of ${list(found.map(nameOf))} - name one of them by its digest`
    throw createError('AMBIGUOUS', { subject, choices })
  }
  throw createError('REF_NOT_FOUND', { subject, layout, choices: choicesOf(index, refName) })
}

/** The document with the tag on this descriptor and on no other, at the end. */
export function withRef(index: Index, refName: string, descriptor: Descriptor): Index {
  const { manifests } = withoutRef(index, refName)
  return {
    ...index,
    mediaType: index.mediaType ?? ociTypes.index,
    manifests: [...manifests, withRefName(descriptor, refName)],
  }
}

/** The document with an entry that has a tag, as `withRef`; one without is added unless its digest has an entry already. */
export function withEntry(index: Index, descriptor: Descriptor): Index {
  const refName = descriptor.annotations?.[refNameAnnotation]
  if (refName !== undefined) return withRef(index, refName, descriptor)
  const { manifests } = index
  if (manifests.some(({ digest }) => digest === descriptor.digest)) return index
  return { ...index, manifests: [...manifests, descriptor] }
}

/** The document without the entries of this tag. */
export function withoutRef(index: Index, refName: string): Index {
  const manifests = index.manifests.filter(
    entry => entry.annotations?.[refNameAnnotation] !== refName,
  )
  return { ...index, manifests }
}

/** A descriptor as it stands in `index.json` under this tag. */
export function withRefName(descriptor: Descriptor, refName: string): Descriptor {
  const annotations = { ...descriptor.annotations, [refNameAnnotation]: refName }
  return { ...descriptor, annotations }
}

/** A descriptor without containerd's note of its whole name, which is that of another tag. */
export function withoutFullName(descriptor: Descriptor): Descriptor {
  if (descriptor.annotations?.[imageNameAnnotation] === undefined) return descriptor
  const { [imageNameAnnotation]: _, ...annotations } = descriptor.annotations
  return { ...descriptor, annotations }
}

/** A descriptor without the tag it has in its index. */
export function withoutRefName(descriptor: Descriptor): Descriptor {
  if (!isObject(descriptor.annotations)) return descriptor
  const { annotations, ...rest } = descriptor
  const { [refNameAnnotation]: _, ...others } = annotations
  return Object.keys(others).length === 0 ? rest : { ...rest, annotations: others }
}

/** At most twenty of some words for a message. */
export function list(words: readonly string[]): string {
  const shown = words
    .slice(0, 20)
    .map(word => (word.length > 200 ? `${word.slice(0, 200)}…` : word))
  const more = words.length - shown.length
  return more > 0 ? `${shown.join(', ')} and ${more} more` : shown.join(', ')
}

function nameOf(descriptor: Descriptor): string {
  const name = descriptor.annotations?.[imageNameAnnotation]
  return name === undefined ? descriptor.digest : `${descriptor.digest} (${name})`
}

function choicesOf(index: Index, wanted: string): string {
  const tags = [...new Set(refsOf(index).map(({ refName }) => refName))]
  // what isn't short is nobody's slip, and long ones take long to compare
  const short = tags.slice(0, 1000).filter(tag => tag.length <= 128)
  const isWord = wanted.length > 2 && wanted.length <= 128
  const meant = isWord ? nearest(wanted, short) : undefined
  const hint = meant === undefined ? '' : `did you mean ${meant}? `
  if (tags.length > 0) return `${hint}it has ${list(tags)}`
  if (index.manifests.length === 0) return 'it is empty'
  return `it has no tags, only ${list(index.manifests.map(({ digest }) => digest))}`
}
