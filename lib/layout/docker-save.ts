// Archives of `docker save` before Docker 25: manifest.json, a config per image, a tar per layer, and nothing that tells
// digests. An index and manifests are made up for them. The archive names no media types, so here, and only here, the
// first bytes of a layer tell its compression (other tools put compressed layers into such archives).
import { createError } from '../errors.ts'
import { digestOf, encodedOf, parseDigest, type Digest } from '../oci/digest.ts'
import type { Descriptor } from '../oci/descriptor.ts'
import { checkFields, isObject, type Fields } from '../oci/document.ts'
import { encodeJson, maxDocumentBytes, parseJson } from '../oci/json.ts'
import { layerMediaType, ociTypes, type Compression } from '../oci/media-type.ts'
import { isRefName } from '../oci/reference.ts'
import { refNameAnnotation } from './refs.ts'
import type { BlobLocation } from './regular-file.ts'

/** Access to the members of the archive; names as in manifest.json, links are followed. */
export interface SavedFiles {
  /** @throws {FormatError} ERR_KOCI_INVALID_LAYOUT there is none */
  locate(name: string): BlobLocation
  read(name: string, maxBytes: number): Promise<Buffer>
  /** The first four bytes. */
  start(name: string): Promise<Buffer>
  hash(name: string): Promise<Digest>
}

/** What was made up: an index.json, and where its blobs are. Manifests are embedded in their descriptors. */
export interface SavedLayout {
  readonly index: Buffer
  readonly blobs: ReadonlyMap<Digest, BlobLocation>
}

interface SavedImage {
  Config: string
  RepoTags?: string[]
  Layers: string[]
}

const imageFields = {
  Config: 'string',
  RepoTags: 'strings',
  Layers: 'strings',
} as const satisfies Fields

/**
 * Makes up the layout of a `docker save` archive. Every image gets its full names (`alpine:3.20`) as tags, and the part
 * after the last colon where only one image has it; one without a name gets its ID.
 * @throws {FormatError} ERR_KOCI_INVALID_LAYOUT, ERR_KOCI_INVALID_JSON
 */
export async function readSavedLayout(
  files: SavedFiles,
  subject: string,
): Promise<SavedLayout> {
  const blobs = new Map<Digest, BlobLocation>()
  const images = parseImages(await files.read('manifest.json', maxDocumentBytes), subject)
  const entries: Array<{ image: SavedImage; descriptor: Descriptor; id: string }> = []
  for (const image of images) {
    const config = await files.read(image.Config, maxDocumentBytes)
    const digest = digestOf(config)
    blobs.set(digest, files.locate(image.Config))
    const claimed = claimedDiffIDs(config, image)
    const layers: Descriptor[] = []
    for (const [at, name] of image.Layers.entries()) {
      const layer = await describeLayer(files, name, claimed[at])
      blobs.set(layer.digest, files.locate(name))
      layers.push(layer)
    }
    const manifest = encodeJson({
      schemaVersion: 2,
      mediaType: ociTypes.manifest,
      config: { mediaType: ociTypes.config, digest, size: config.length },
      layers,
    })
    const descriptor: Descriptor = {
      mediaType: ociTypes.manifest,
      digest: digestOf(manifest),
      size: manifest.length,
      data: manifest.toString('base64'),
    }
    entries.push({ image, descriptor, id: encodedOf(digest) })
  }
  const names = refNamesOf(
    entries.map(({ image, id }) => ({ names: image.RepoTags ?? [], id })),
  )
  const manifests = entries.flatMap(({ descriptor }, at) =>
    (names[at] ?? []).map(name => ({
      ...descriptor,
      annotations: { [refNameAnnotation]: name },
    })),
  )
  const index = { schemaVersion: 2, mediaType: ociTypes.index, manifests }
  return { index: encodeJson(index), blobs }
}

function parseImages(bytes: Buffer, subject: string): SavedImage[] {
  const name = `${subject}: manifest.json`
  const document = parseJson(bytes, name)
  if (!Array.isArray(document))
    throw createError('INVALID_LAYOUT', { subject: name, reason: 'not a list of images' })
  return document.map((value: unknown, at): SavedImage => {
    const image = checkFields(value, imageFields, `${name}: image ${at}`, 'INVALID_LAYOUT')
    const { Config, Layers, RepoTags } = image as Partial<SavedImage>
    if (Config === undefined || Layers === undefined)
      throw createError('INVALID_LAYOUT', {
        subject: name,
        reason: `image ${at} lacks Config or Layers`,
      })
    return { Config, Layers, ...(RepoTags ? { RepoTags } : {}) }
  })
}

/**
 * An uncompressed layer's digest is its DiffID. The config's word for it saves reading all layers at once: like every
 * digest it is compared with the content when the layer is read.
 */
function claimedDiffIDs(config: Buffer, image: SavedImage): Array<Digest | undefined> {
  const document = parseJson(config, image.Config)
  const rootfs = isObject(document) ? document['rootfs'] : undefined
  const diffIDs = isObject(rootfs) ? rootfs['diff_ids'] : undefined
  if (!Array.isArray(diffIDs) || diffIDs.length !== image.Layers.length) return []
  return diffIDs.map((diffID, at) => parseDigest(diffID, `${image.Config}: diff_ids[${at}]`))
}

async function describeLayer(
  files: SavedFiles,
  name: string,
  claimed: Digest | undefined,
): Promise<Descriptor> {
  const { size } = files.locate(name)
  const compression = compressionOf(await files.start(name))
  const digest = compression === 'none' && claimed ? claimed : await files.hash(name)
  return { mediaType: layerMediaType(compression), digest, size }
}

function compressionOf(start: Buffer): Compression {
  const magic = start.toString('hex')
  if (magic.startsWith('1f8b')) return 'gzip'
  return magic === '28b52ffd' ? 'zstd' : 'none'
}

function refNamesOf(
  images: ReadonlyArray<{ names: readonly string[]; id: string }>,
): string[][] {
  const fullNames = new Set(images.flatMap(({ names }) => names))
  const counts = new Map<string, number>()
  for (const { names } of images)
    for (const tag of new Set(names.map(tagOf))) counts.set(tag, (counts.get(tag) ?? 0) + 1)
  return images.map(({ names, id }) => {
    if (names.length === 0) return [id]
    const tags = names.map(tagOf)
    const isUsable = (tag: string): boolean =>
      counts.get(tag) === 1 && !fullNames.has(tag) && isRefName(tag)
    return [...new Set([...names, ...tags.filter(isUsable)])]
  })
}

function tagOf(name: string): string {
  return name.slice(name.lastIndexOf(':') + 1)
}
