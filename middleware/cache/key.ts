// The key of a stored layer: its bytes (DiffID, or ChainID for one that depends on those below it), and everything that
// decides what extraction makes of them. What isn't in here must not change what ends up on disk.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Dialect, Extraction } from '../../lib/layer/extraction.ts'
import type { Layer } from '../../lib/layer/layer.ts'
import type { Digest } from '../../lib/oci/digest.ts'
import type { IdMap } from '../../lib/oci/idmap.ts'
import { effectiveCapabilities, storesTrusted } from './capabilities.ts'

/** Of the layout of the store and of what a stored tree looks like; another one is another directory. */
export const formatVersion = 1

/** `[inside, outside, size]`, outside being as the parent of this process's user namespace has it. */
export type Range = readonly [inside: number, outside: number, size: number]

/** Id maps of a process. */
export interface View {
  readonly uids: readonly Range[]
  readonly gids: readonly Range[]
}

/** What tells who recorded a layer. */
export interface Seen {
  readonly key: LayerKey | null
  readonly view?: View | undefined
}

/** What a key is made of; JSON. The order of the members matters. */
export interface LayerKey {
  readonly format: typeof formatVersion
  /** `diff`: the layer alone. `chain`: the layer on top of exactly those that its ChainID names. */
  readonly of: 'diff' | 'chain'
  readonly id: Digest
  readonly dialect: Dialect
  readonly uids: readonly Range[]
  readonly gids: readonly Range[]
  readonly rootless: boolean
  readonly keepDirlinks: boolean
  readonly compat: 'clamp' | null
  readonly variants: readonly string[]
  /** Only for what came out less than perfect: the capabilities that it came out with. */
  readonly capabilities?: string
}

/**
 * The keys under which a layer may be found, the most exact first. One that is known to need those below it is never
 * looked up alone.
 */
export function keysOf(layer: Layer, extraction: Extraction): readonly LayerKey[] {
  const { index, diffID, chainID, needsBelow } = layer
  const chain = index > 0 ? [keyOf('chain', chainID, extraction)] : []
  return needsBelow === undefined ? [...chain, keyOf('diff', diffID, extraction)] : chain
}

/** The key under which a layer is kept that is extracted now. */
export function keyToKeep(layer: Layer, extraction: Extraction): LayerKey {
  const { diffID, chainID, needsBelow } = layer
  return needsBelow === undefined
    ? keyOf('diff', diffID, extraction)
    : keyOf('chain', chainID, extraction)
}

/** The same layer as it comes out with the capabilities of this process, where they weren't enough. */
export function degradedKey(key: LayerKey): LayerKey {
  return { ...key, capabilities: effectiveCapabilities().toString(16) }
}

/** The name of a key's files. It is the record that is compared, so a name needn't be proof against collisions. */
export function nameOfKey(key: LayerKey): string {
  return createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 32)
}

/** The dialect in which layers are stored: that of the run, or the one that this process can make. */
export function dialectToStore({ dialect }: Extraction): Dialect {
  if (dialect !== 'plain') return dialect
  return storesTrusted() ? 'overlay-trusted' : 'overlay-user'
}

function keyOf(of: LayerKey['of'], id: Digest, extraction: Extraction): LayerKey {
  const { uidMap, gidMap, rootless, keepDirlinks, compat, variants } = extraction
  return {
    format: formatVersion,
    of,
    id,
    dialect: dialectToStore(extraction),
    uids: compose(uidMap, ownRanges('uid')),
    gids: compose(gidMap, ownRanges('gid')),
    rootless,
    keepDirlinks,
    compat: compat ?? null,
    variants,
  }
}

/** All ids there are: what a process that isn't in a user namespace can use. */
const everything: readonly Range[] = [[0, 0, 0xffff_ffff]]

/**
 * What ids of an image become outside of this process's user namespace: the maps of the extraction, then those of the
 * process. Ids that come out the same in both have the same ranges in both, as far as neighbours can be joined.
 */
export function compose(
  maps: readonly IdMap[] | undefined,
  own: readonly Range[],
): readonly Range[] {
  const inner: readonly Range[] =
    maps && maps.length > 0
      ? maps.map(({ containerID, hostID, size }): Range => [containerID, hostID, size])
      : everything
  const joined: [number, number, number][] = []
  for (const [inside, between, size] of inner)
    for (const [from, outside, count] of own) {
      const start = Math.max(between, from)
      const end = Math.min(between + size, from + count)
      if (start >= end) continue
      const range: [number, number, number] = [
        inside + start - between,
        outside + start - from,
        end - start,
      ]
      const last = joined.at(-1)
      if (last && last[0] + last[2] === range[0] && last[1] + last[2] === range[1])
        last[2] += range[2]
      else joined.push(range)
    }
  return joined
}

/** The id maps of this process's user namespace. What a record says of owners is as seen by them. */
export function ownView(): View {
  return { uids: ownRanges('uid'), gids: ownRanges('gid') }
}

/**
 * Whether this process sees of a stored layer the owners and attributes that were seen when it was recorded. Of one that
 * doesn't say by whom it is taken for granted, as it was before that was recorded.
 */
export function isSeenAlike({ key, view }: Seen): boolean {
  const isOwn = view === undefined || JSON.stringify(view) === JSON.stringify(ownView())
  return isOwn && (key?.dialect !== 'overlay-trusted' || storesTrusted())
}

const ownMaps = new Map<'uid' | 'gid', readonly Range[]>()

function ownRanges(kind: 'uid' | 'gid'): readonly Range[] {
  const known = ownMaps.get(kind) ?? parseRanges(readText(`/proc/self/${kind}_map`))
  ownMaps.set(kind, known)
  return known
}

/** The content of a file such as /proc/self/uid_map. */
export function parseRanges(text: string): readonly Range[] {
  const ranges = text
    .split('\n')
    .map(line => line.trim().split(/\s+/).map(Number))
    .filter(numbers => numbers.length === 3)
    .map(([inside = 0, outside = 0, size = 0]): Range => [inside, outside, size])
    .sort(([a], [b]) => a - b)
  return ranges.length === 0 ? everything : ranges
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}
