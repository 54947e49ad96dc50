// From an index to the one manifest for a platform, through indexes in indexes. Every document is read once, however
// often it is referred to, and there is a limit to how many are read.
import { createError } from '../errors.ts'
import { describe, type Descriptor, type Platform } from '../oci/descriptor.ts'
import { parseIndex } from '../oci/manifest.ts'
import { isConfigType, isIndexType, isManifestType } from '../oci/media-type.ts'
import { formatPlatform, hostPlatform, matches, matchRank } from '../oci/platform.ts'
import { list } from './refs.ts'

const maxIndexDepth = 32
const maxIndexes = 256
const maxLeaves = 100_000

/** A manifest that was selected. */
export interface Selection {
  /** The entry of index.json first, the manifest last. */
  readonly walk: Descriptor[]
  /** The platform that the image config has to have, where no descriptor has told it. */
  readonly unchecked?: Platform
}

/**
 * Selects the manifest for a platform (by default the host's) from what an entry of index.json points to.
 * Without a platform asked for, an entry that is a manifest, or an index of one manifest that names no platform, is
 * taken as it is.
 * @throws {NotFoundError} ERR_KOCI_PLATFORM_NOT_FOUND
 * @throws {ConflictError} ERR_KOCI_AMBIGUOUS several manifests fit equally well
 * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_MEDIA_TYPE neither a manifest nor an index
 */
export async function selectManifest(
  root: Descriptor,
  platform: Platform | undefined,
  read: (descriptor: Descriptor) => Promise<Buffer>,
): Promise<Selection> {
  const asked = platform && { unchecked: platform }
  if (isManifestType(root.mediaType)) return { walk: [root], ...asked }
  if (!isIndexType(root.mediaType))
    throw createError('UNSUPPORTED_MEDIA_TYPE', {
      subject: `${root.digest}: not an image`,
      mediaType: root.mediaType,
    })
  const wanted = platform ?? hostPlatform()
  const leaves = await collectLeaves(root, wanted, read)
  const [best, ...others] = bestOf(leaves, wanted)
  if (best && others.length > 0) throw ambiguous(root, [best, ...others])
  if (best) return { walk: best }

  const [unlabelled, ...more] = distinct(leaves.filter(walk => !platformOf(walk)))
  if (unlabelled && more.length > 0) throw ambiguous(root, [unlabelled, ...more])
  if (!unlabelled) throw notFound(describe(root), wanted, offersOf(leaves))
  if (distinct(leaves).length === 1) return { walk: unlabelled, ...asked }
  return { walk: unlabelled, unchecked: wanted }
}

/**
 * Compares the platform that an image config tells with the one that was asked for.
 * @throws {NotFoundError} ERR_KOCI_PLATFORM_NOT_FOUND
 */
export function checkPlatform(subject: string, wanted: Platform, found: Platform): void {
  if (!matches(wanted, found))
    throw notFound(subject, wanted, `the image is for ${formatPlatform(found)}`)
}

type Walk = Descriptor[]

async function collectLeaves(
  root: Descriptor,
  wanted: Platform,
  read: (descriptor: Descriptor) => Promise<Buffer>,
): Promise<Walk[]> {
  const leaves: Walk[] = []
  const seen = new Set<string>()
  const visit = async (walk: Walk, index: Descriptor): Promise<void> => {
    if (seen.has(index.digest)) return
    seen.add(index.digest)
    const subject = describe(index)
    if (walk.length > maxIndexDepth)
      throw limitExceeded(subject, 'depth of indexes', walk.length, maxIndexDepth)
    if (seen.size > maxIndexes)
      throw limitExceeded(subject, 'number of indexes', seen.size, maxIndexes)
    for (const entry of parseIndex(await read(index), index).manifests) {
      const { mediaType, platform } = entry
      // what an index is said to be for holds for all in it: no need to read the others
      if (isIndexType(mediaType) && (!platform || matches(wanted, platform)))
        await visit([...walk, entry], entry)
      else if (isImage(entry) && leaves.push([...walk, entry]) > maxLeaves)
        throw limitExceeded(subject, 'number of manifests', leaves.length, maxLeaves)
    }
  }
  await visit([root], root)
  return leaves
}

function isImage({ mediaType, artifactType }: Descriptor): boolean {
  return isManifestType(mediaType) && (!artifactType || isConfigType(artifactType))
}

function bestOf(leaves: readonly Walk[], wanted: Platform): Walk[] {
  let highest = -1
  let best: Walk[] = []
  for (const walk of leaves) {
    const platform = platformOf(walk)
    const rank = platform && matchRank(wanted, platform)
    if (rank === undefined || rank < highest) continue
    if (rank > highest) best = []
    highest = rank
    best.push(walk)
  }
  return distinct(best)
}

function distinct(leaves: readonly Walk[]): Walk[] {
  const seen = new Set<unknown>()
  return leaves.filter(walk => {
    const digest = walk.at(-1)?.digest
    return !seen.has(digest) && seen.add(digest)
  })
}

/** The innermost platform that a walk names. */
function platformOf(walk: Walk): Platform | undefined {
  return walk.findLast(({ platform }) => platform !== undefined)?.platform
}

function offersOf(leaves: readonly Walk[]): string {
  if (leaves.length === 0) return 'it holds no image for any'
  return `it holds ${list([...new Set(leaves.map(walk => formatPlatform(platformOf(walk))))])}`
}

function ambiguous(root: Descriptor, walks: readonly Walk[]): Error {
  const named = walks.map(
    walk => `${walk.at(-1)?.digest} (${formatPlatform(platformOf(walk))})`,
  )
  return createError('AMBIGUOUS', {
    subject: describe(root),
    choices: `several images fit equally well: ${list(named)}`,
  })
}

function notFound(subject: string, wanted: Platform, choices: string): Error {
  return createError('PLATFORM_NOT_FOUND', {
    subject,
    platform: formatPlatform(wanted),
    choices,
  })
}

function limitExceeded(subject: string, limit: string, value: number, maximum: number): Error {
  return createError('LIMIT_EXCEEDED', { subject, limit, value, maximum })
}
