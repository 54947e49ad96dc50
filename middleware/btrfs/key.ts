// What a chain's snapshot is found by: its ChainID, and everything else that decides what extraction makes of the layers.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Extraction } from '../../lib/layer/extraction.ts'
import type { Digest } from '../../lib/oci/digest.ts'

/** JSON; the order of the members matters. */
export interface ChainKey {
  readonly format: 1
  readonly chain: Digest
  readonly maps: readonly unknown[]
  readonly rootless: boolean
  readonly keepDirlinks: boolean
  readonly compat: 'clamp' | null
  readonly variants: readonly string[]
  /** Ids are what the process's own user namespace makes of them, and what can be made depends on capabilities. */
  readonly process: readonly string[]
}

/** The key of the layers up to the one with this ChainID. */
export function keyOf(chain: Digest, extraction: Extraction): ChainKey {
  const { uidMap, gidMap, rootless, keepDirlinks, compat, variants } = extraction
  return {
    format: 1,
    chain,
    maps: [uidMap ?? null, gidMap ?? null],
    rootless,
    keepDirlinks,
    compat: compat ?? null,
    variants,
    process: describeProcess(),
  }
}

/** The name of a key's file; the file holds the whole key. */
export function nameOfKey(key: ChainKey): string {
  return createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 32)
}

let known: readonly string[] | undefined

function describeProcess(): readonly string[] {
  known ??= [
    readText('uid_map'),
    readText('gid_map'),
    /^CapEff:\s*([0-9a-f]+)$/m.exec(readText('status'))?.[1] ?? '',
  ].map(text => text.trim().replace(/[^\S\n]+/g, ' '))
  return known
}

function readText(name: string): string {
  try {
    return readFileSync(`/proc/self/${name}`, 'latin1')
  } catch {
    return ''
  }
}
