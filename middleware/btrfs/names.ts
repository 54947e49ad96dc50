// The files that make snapshots count: `chains/<key>.json` names that of a chain of layers, `bases/<snapshot>.json` that of a
// bundle. What is damaged names nothing.
import { randomBytes } from 'node:crypto'
import { linkSync, readdirSync, readFileSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
import path from 'node:path'
import type { Missed } from '../../lib/bundle/missing.ts'
import { wrapError } from '../../lib/errors.ts'
import type { LayerReport } from '../../lib/layer/layer.ts'
import type { Digest } from '../../lib/oci/digest.ts'
import { parseJson } from '../../lib/oci/json.ts'
import type { ChainKey } from './key.ts'

/** A snapshot that is named; JSON. */
export interface Named {
  readonly snapshot: string
  /** Of the subvolume: another one of the same name isn't it. */
  readonly uuid: string
}

/** What is known of the snapshot of a chain. */
export interface Chain extends Named {
  readonly key: ChainKey
  /** Of its layers, base first. */
  readonly diffIDs: readonly Digest[]
  readonly reports: readonly LayerReport[]
  /** The blob that its topmost layer was extracted from, and when, by this machine's clock; information only. */
  readonly blob: Digest
  readonly stored: string
}

/** Whose base a snapshot is. */
export interface Base extends Named {
  /** Where the bundle was when it was made. */
  readonly bundle: string
  /** The chain that it is the same as; null if there is none. */
  readonly chain: string | null
  /** How often, and since when, gc didn't find the bundle there. */
  readonly missed?: Missed | undefined
}

/** What names look like, of chains and of snapshots. */
export const namePattern: RegExp = /^[0-9a-f]{32}$/

const unfinished = '.new'

/** A name that nothing else has. */
export function randomName(): string {
  return randomBytes(16).toString('hex')
}

/** What a file says of the snapshot of a chain; undefined if there is none, or if it says nothing sound. */
export function readChain(file: string): Chain | undefined {
  const found = readNamed(file) as Chain | undefined
  const isSound =
    typeof found?.key === 'object' &&
    Array.isArray(found.diffIDs) &&
    Array.isArray(found.reports) &&
    found.reports.length === found.diffIDs.length &&
    found.reports.length > 0
  return isSound ? found : undefined
}

/** What a file says of a base. */
export function readBase(file: string): Base | undefined {
  const found = readNamed(file) as Base | undefined
  return typeof found?.bundle === 'string' ? found : undefined
}

/** The names in a directory of such files. */
export function namesIn(directory: string): string[] {
  return readdirSync(directory)
    .filter(file => file.endsWith('.json') && namePattern.test(path.basename(file, '.json')))
    .map(file => path.basename(file, '.json'))
    .sort()
}

/** Writes what is to get another name as soon as it may count. */
export async function writeUnfinished(file: string, content: Chain | Base): Promise<string> {
  const temporary = `${file}.${randomName()}${unfinished}`
  const handle = await open(temporary, 'wx', 0o600)
  try {
    await handle.writeFile(JSON.stringify(content))
  } finally {
    await handle.close()
  }
  return temporary
}

/** Gives a file another name; false if there is one of that name. */
export function finish(temporary: string, file: string): boolean {
  try {
    linkSync(temporary, file)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Writes what is known of a base anew. */
export async function rewriteBase(file: string, base: Base): Promise<void> {
  try {
    await rename(await writeUnfinished(file, base), file)
  } catch (error) {
    throw wrapError(error, file)
  }
}

function readNamed(file: string): Named | undefined {
  let bytes: Buffer
  try {
    bytes = readFileSync(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw wrapError(error, file)
  }
  try {
    const found = parseJson(bytes, file) as Named
    return namePattern.test(found.snapshot) && typeof found.uuid === 'string'
      ? found
      : undefined
  } catch {
    return undefined
  }
}
