// The two small JSON files of a bundle: umoci.json, as umoci writes and reads it, and koci.json beside it.
import { createError } from '../errors.ts'
import { parseDescriptor, type Descriptor } from '../oci/descriptor.ts'
import type { LayerRange } from '../oci/image-draft.ts'
import type { IdMap } from '../oci/idmap.ts'
import { parseJson } from '../oci/json.ts'
import type { Dialect, Layering, Mapping } from '../layer/extraction.ts'
import { isRecordedDriver, type RecordedDriver } from './recorded-chain.ts'

/** Name of umoci's metadata file. */
export const umociFile = 'umoci.json'
/** Name of koci's metadata file. */
export const kociFile = 'koci.json'

/** What umoci.json says; fields that koci doesn't know are kept in `unknown`. */
export interface UmociMetadata {
  /** From the entry of `index.json` down to the manifest. */
  readonly walk: readonly Descriptor[]
  readonly mapping: Mapping
  readonly unknown?: Readonly<Record<string, unknown>>
}

/** What koci.json says of a bundle that is in use. */
export interface ReadyState {
  readonly version: 1
  readonly state: 'ready'
  /** The chain that made it, outermost first. */
  readonly chain: readonly RecordedDriver[]
  readonly layering: Layering
  readonly dialect: Dialect
  /** The driver that chose the layering; without it the bundle can't be used. */
  readonly chosenBy?: string | undefined
  /** What else decided what was extracted, where it isn't as usual: umoci.json has no place for it. */
  readonly extraction?: RecordedExtraction | undefined
  /** Absolute path of the layout that holds the image; information only: it may have moved. */
  readonly layout?: string | undefined
  /** Which layers of the image are in it, if not all: a repack is refused then. */
  readonly layers?: LayerRange | undefined
  /** What was found out about stacked layers, so that it needn't be found out again. */
  readonly stack?: RecordedStack | undefined
  /** What drivers keep about the bundle, by their names. Data only: never a path, a command or a module. */
  readonly drivers: Readonly<Record<string, unknown>>
}

/** What decides what extraction yields, beside umoci's maps: layers that are extracted again have to come out the same. */
export interface RecordedExtraction extends Pick<Mapping, 'keepDirlinks' | 'compat'> {
  /** What middleware declared that it changes, and which did. */
  readonly variants?: readonly string[] | undefined
  readonly by?: readonly string[] | undefined
}

/** Which stacked layers were extracted on top of those below them. */
export interface RecordedStack {
  /** The ChainID of the topmost layer: all beneath it have been looked at. */
  readonly top: string
  /** By ChainID, why. */
  readonly dependent: Readonly<Record<string, string>>
}

/** What koci.json says from before the first thing is made until the bundle is complete. */
export interface UnpackingState {
  readonly version: 1
  readonly state: 'unpacking'
  /** Names in the bundle directory that the run has made or is about to make, in order. */
  readonly created: readonly string[]
  /** The permission bits that the bundle directory had before; absent if the run made it. */
  readonly mode?: number
}

/** koci.json */
export type BundleState = ReadyState | UnpackingState

/** @throws {FormatError} ERR_KOCI_INVALID_BUNDLE, ERR_KOCI_INVALID_JSON; ERR_KOCI_UNSUPPORTED_VERSION */
export function parseUmociMetadata(bytes: Uint8Array, subject: string): UmociMetadata {
  const json = asObject(parseJson(bytes, subject), subject)
  const {
    umoci_version: version,
    from_descriptor_path: from,
    map_options: map,
    ...unknown
  } = json
  if (version !== '2') throw createError('UNSUPPORTED_VERSION', { subject, version })
  if (unknown['whiteout_mode'] !== undefined && unknown['whiteout_mode'] !== 0)
    throw createError('INVALID_BUNDLE', {
      subject,
      reason: 'its whiteouts are in overlay form',
    })

  const walk = asObject(from, subject)['descriptor_walk']
  if (!Array.isArray(walk) || walk.length === 0)
    throw createError('INVALID_BUNDLE', { subject, reason: 'it names no image' })
  const options = map === undefined || map === null ? {} : asObject(map, subject)
  return {
    walk: walk.map(descriptor => parseDescriptor(descriptor, subject)),
    mapping: {
      uidMap: idMaps(options['uid_mappings'], subject),
      gidMap: idMaps(options['gid_mappings'], subject),
      rootless: options['rootless'] === true,
    },
    unknown,
  }
}

/** As umoci writes it: compact, with a line feed. */
export function encodeUmociMetadata(metadata: UmociMetadata): string {
  const { walk, mapping, unknown } = metadata
  return `${JSON.stringify({
    umoci_version: '2',
    from_descriptor_path: { descriptor_walk: walk },
    ...unknown,
    map_options: {
      uid_mappings: mapping.uidMap ?? null,
      gid_mappings: mapping.gidMap ?? null,
      rootless: mapping.rootless ?? false,
    },
  })}\n`
}

/** @throws {FormatError} ERR_KOCI_INVALID_BUNDLE, ERR_KOCI_INVALID_JSON; ERR_KOCI_UNSUPPORTED_VERSION */
export function parseBundleState(bytes: Uint8Array, subject: string): BundleState {
  const json = asObject(parseJson(bytes, subject), subject)
  if (json['version'] !== 1)
    throw createError('UNSUPPORTED_VERSION', { subject, version: json['version'] })
  if (json['state'] === 'unpacking') {
    const { created, mode } = json
    if (!Array.isArray(created) || !created.every(isPlainName))
      throw createError('INVALID_BUNDLE', {
        subject,
        reason: 'its list of created files is damaged',
      })
    return {
      version: 1,
      state: 'unpacking',
      created,
      ...(typeof mode === 'number' ? { mode: mode & 0o7777 } : {}),
    }
  }
  if (json['state'] !== 'ready')
    throw createError('INVALID_BUNDLE', { subject, reason: 'its state is unknown' })
  if (!isReady(json))
    throw createError('INVALID_BUNDLE', { subject, reason: 'what it says is malformed' })
  return { ...json, drivers: asObject(json['drivers'] ?? {}, subject) }
}

function isReady(json: Record<string, unknown>): json is Record<string, unknown> & ReadyState {
  const { chain, layering, dialect, chosenBy, layout, layers, stack, extraction } = json
  return (
    (extraction === undefined || isExtraction(extraction)) &&
    (stack === undefined || isStack(stack)) &&
    (layout === undefined || typeof layout === 'string') &&
    (layers === undefined || isRange(layers)) &&
    Array.isArray(chain) &&
    chain.every(isRecordedDriver) &&
    ['merged', 'stacked'].includes(layering as string) &&
    ['plain', 'overlay-trusted', 'overlay-user'].includes(dialect as string) &&
    (typeof chosenBy === 'string' || (chosenBy === undefined && layering === 'merged'))
  )
}

function isExtraction(extraction: unknown): extraction is RecordedExtraction {
  if (typeof extraction !== 'object' || extraction === null) return false
  const { keepDirlinks, compat, variants, by } = extraction as Record<string, unknown>
  const isNames = (value: unknown): boolean =>
    value === undefined ||
    (Array.isArray(value) && value.every(each => typeof each === 'string'))
  return (
    (keepDirlinks === undefined || typeof keepDirlinks === 'boolean') &&
    (compat === undefined || compat === 'clamp') &&
    isNames(variants) &&
    isNames(by)
  )
}

function isRange(range: unknown): range is LayerRange {
  if (typeof range !== 'object' || range === null) return false
  const { first, last } = range as Partial<Record<keyof LayerRange, unknown>>
  return Number.isSafeInteger(first) && Number.isSafeInteger(last)
}

function isStack(stack: unknown): stack is RecordedStack {
  if (typeof stack !== 'object' || stack === null) return false
  const { top, dependent } = stack as Partial<Record<keyof RecordedStack, unknown>>
  return (
    typeof top === 'string' &&
    typeof dependent === 'object' &&
    dependent !== null &&
    Object.values(dependent).every(reason => typeof reason === 'string')
  )
}

/** Whether a name from a metadata file may be used as a name in the bundle directory. */
export function isPlainName(name: unknown): name is string {
  return typeof name === 'string' && /^[\w.-]+$/.test(name) && !/^\.{1,2}$/.test(name)
}

function idMaps(value: unknown, subject: string): readonly IdMap[] | undefined {
  if (value === undefined || value === null) return undefined
  const valid =
    Array.isArray(value) &&
    value.every((map: Record<string, unknown>) =>
      ['containerID', 'hostID', 'size'].every(key => Number.isSafeInteger(map?.[key])),
    )
  if (!valid)
    throw createError('INVALID_BUNDLE', { subject, reason: 'its id mappings are malformed' })
  return value.length === 0 ? undefined : value
}

function asObject(value: unknown, subject: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>
  throw createError('INVALID_BUNDLE', { subject, reason: 'a JSON object was expected' })
}
