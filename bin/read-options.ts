// Options whose values have a form of their own, checked before anything is opened or made.
import type { Compress } from '../lib/layer/write-layer-blob.ts'
import type { LayerSelection } from '../lib/layout/select-layers.ts'
import { parseIdMap, type IdMap } from '../lib/oci/idmap.ts'
import { parsePlatform, type Platform } from '../lib/oci/platform.ts'
import {
  assertRefName,
  parseImageReference,
  type ImageReference,
} from '../lib/oci/reference.ts'
import type { Arguments } from './arguments.ts'
import type { ChainWishes } from './chain/compose-chain.ts'
import { usageError } from './usage-error.ts'

/** `--image`. */
export function readImage(args: Arguments): ImageReference {
  return parseImageReference(args.required('image'))
}

/** `--layout`, which can't hold a colon: no image in it could be named. */
export function readLayout(args: Arguments): string {
  const path = args.required('layout')
  if (path.includes(':')) throw usageError('--layout', `path contains ':' character: ${path}`)
  return path
}

/** `--platform`. */
export function readPlatform(args: Arguments): Platform | undefined {
  const text = args.text('platform')
  return text === undefined ? undefined : parsePlatform(text)
}

/** `--uid-map`, `--gid-map`, `--rootless`; rootless and without maps, the user becomes root in the container. */
export function readMapping(args: Arguments): {
  uidMap: readonly IdMap[] | undefined
  gidMap: readonly IdMap[] | undefined
  rootless: boolean
} {
  const rootless = args.has('rootless')
  const maps = (name: string, own: number | undefined): readonly IdMap[] | undefined => {
    const given = args.list(name)?.map(parseIdMap)
    if (given || !rootless || own === undefined) return given
    return [{ containerID: 0, hostID: own, size: 1 }]
  }
  return {
    uidMap: maps('uid-map', process.geteuid?.()),
    gidMap: maps('gid-map', process.getegid?.()),
    rootless,
  }
}

/**
 * `--use`, `--config`, `--no-config`, `--hooks`, `--no-hooks`.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION
 */
export function readChain(args: Arguments): Pick<ChainWishes, 'use' | 'config' | 'hooks'> {
  const use = args.list('use')
  const config = readFile(args, 'config')
  if (use && typeof config === 'string')
    throw usageError('--config', 'can not go together with --use: the file composes the chain')
  return { use, config, hooks: readFile(args, 'hooks') }
}

/** `--NAME FILE`, `--no-NAME`. */
function readFile(args: Arguments, name: 'config' | 'hooks'): string | false | undefined {
  const file = args.text(name)
  const isOff = args.has(`no-${name}`)
  if (file !== undefined && isOff)
    throw usageError(`--no-${name}`, `can not go together with --${name}`)
  if (file === '') throw usageError(`--${name}`, 'is empty')
  return isOff ? false : file
}

/** `--tag`: the new image's; undefined for the tag of the old one. */
export function readNewTag(args: Arguments): string | undefined {
  const tag = args.text('tag')
  if (tag !== undefined) assertRefName(tag, `--tag ${tag}`)
  return tag
}

/** `--compress`; an empty text means none, as with umoci. */
export function readCompress(args: Arguments): Compress {
  const text = args.text('compress') ?? 'auto'
  return text === '' ? 'none' : (text as Compress)
}

/** `--layers`: `2`, `0..2`, `2..`, `..2`; and `--from`, which goes in its place. */
export function readLayers(args: Arguments): LayerSelection | undefined {
  const text = args.text('layers')
  const from = args.text('from')
  if (text === undefined) return from === undefined ? undefined : { from }
  if (from !== undefined) throw usageError('--from', 'can not go together with --layers')
  const match = /^(?:(\d{1,6})|(\d{1,6})?\.\.(\d{1,6})?)$/.exec(text)
  const [, only, first = only, last = only] = match ?? []
  if (first === undefined && last === undefined)
    throw usageError('--layers', `${text} is not a range of layers such as 0..2, 2.. or 3`)
  const numberOf = (digits: string | undefined): number | undefined =>
    digits === undefined ? undefined : Number(digits)
  const range = { first: numberOf(first), last: numberOf(last) }
  if ((range.first ?? 0) > (range.last ?? Infinity))
    throw usageError('--layers', `${text} ends before it begins`)
  return range
}

/** `--layer.annotation`. */
export function readAnnotations(args: Arguments): Record<string, string> | undefined {
  const pairs = args.list('layer.annotation')?.map(text => {
    const equals = text.indexOf('=')
    if (equals > 0) return [text.slice(0, equals), text.slice(equals + 1)] as const
    throw usageError('--layer.annotation', `${text || '(empty)'} is not NAME=VALUE`)
  })
  return pairs && Object.fromEntries(pairs)
}

/** `--compat`. */
export function readCompat(args: Arguments): 'clamp' | undefined {
  return args.text('compat') === undefined ? undefined : 'clamp'
}

/** `--mask-path`, `--no-mask-volumes`, `--verify-content`, `--delta-fallback`. */
export function readListing(args: Arguments): {
  maskPaths: readonly string[] | undefined
  maskVolumes: boolean
  verifyContent: boolean
  fallback: boolean
} {
  return {
    maskPaths: args.list('mask-path'),
    maskVolumes: !args.has('no-mask-volumes'),
    verifyContent: args.has('verify-content'),
    fallback: args.has('delta-fallback'),
  }
}

/** `--history.created`: RFC 3339, checked here because the image is committed only after everything was packed. */
export function readTime(args: Arguments, name: string): string | undefined {
  const text = args.text(name)
  if (text === undefined) return undefined
  const date = /^(\d{4}-\d\d-\d\d)T\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/i.exec(text)?.[1]
  const isReal =
    date !== undefined &&
    !Number.isNaN(Date.parse(text)) &&
    new Date(date).toISOString().startsWith(date)
  if (isReal) return text
  throw usageError(`--${name}`, `${text} is not an RFC 3339 time such as 2026-01-31T12:00:00Z`)
}
