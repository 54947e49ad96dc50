// The completion record of a stored layer, `layers/<name>.json`: it is written last and removed first, and a layer without
// one doesn't exist. All that has to be known to use the layer is in it, so that nothing else is read.
import { hash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import type { LayerRecordSummary } from '../../lib/bundle/layer-record.ts'
import { bootID } from '../../lib/fs/boot-id.ts'
import { isMissing } from './files.ts'
import type { LayerReport } from '../../lib/layer/layer.ts'
import { parseDigest, type Digest } from '../../lib/oci/digest.ts'
import { formatVersion, type LayerKey, type View } from './key.ts'

/** What is known of a stored layer; JSON. */
export interface Completion {
  readonly format: typeof formatVersion
  /** Null for a layer that only one bundle may use: what became of it isn't what its key says. */
  readonly key: LayerKey | null
  /** The lease of that bundle. */
  readonly lease?: string
  readonly diffID: Digest
  /** Of the blob that it was extracted from; information only. */
  readonly blob: Digest
  readonly index: number
  /** When, by this machine's clock; information only. */
  readonly stored: string
  /** Whether it was on disk before this record was; if not, it counts until the next boot. */
  readonly durable: boolean
  /** Which boot that was. */
  readonly boot: string
  /** Of the process that stored it: whose owners the record has. Older ones lack it. */
  readonly view?: View | undefined
  readonly record: LayerRecordSummary
  readonly report: LayerReport
}

const maxBytes = 64 << 20

/** How the file ends: with the sum of all before it, as if the object ended there. */
const sumPattern = /,"sum":"([0-9a-f]{64})"\}$/

/** A completion record as it is stored: its last member is a SHA-256 sum of the rest. */
export function encodeCompletion(completion: Completion): string {
  const text = JSON.stringify(completion)
  return `${text.slice(0, -1)},"sum":"${sumOf(text)}"}`
}

function sumOf(text: string): string {
  return hash('sha256', text)
}

/** Reads a completion record; undefined if there is none, or none that this version understands. */
export function readCompletion(file: string): Completion | undefined {
  // mostly there is none, and an error costs ten times as much as asking
  if (!statSync(file, { throwIfNoEntry: false })) return undefined
  let bytes: Buffer
  try {
    bytes = readFileSync(file)
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
  return parseCompletion(bytes)
}

/** What is damaged is no record. */
function parseCompletion(bytes: Buffer): Completion | undefined {
  if (bytes.length > maxBytes) return undefined
  try {
    const text = bytes.toString()
    const [end = '', sum] = sumPattern.exec(text.slice(-100)) ?? []
    const body = `${text.slice(0, text.length - end.length)}}`
    if (sum !== sumOf(body)) return undefined
    // we wrote it, where nobody else can; being as strict as with an image's JSON is a tenth of a warm unpack
    const value = JSON.parse(body) as Completion
    const { format, key, record, report, durable, boot } = value
    parseDigest(value.diffID)
    const isSound =
      format === formatVersion &&
      (key === null ? typeof value.lease === 'string' : typeof key === 'object') &&
      typeof record?.sha256 === 'string' &&
      typeof record.bytes === 'number' &&
      typeof report?.entries === 'number' &&
      typeof durable === 'boolean' &&
      typeof boot === 'string'
    return isSound ? value : undefined
  } catch {
    return undefined
  }
}

/** Whether what it speaks of can have got lost since. */
export function isTrusted({ durable, boot }: Completion): boolean {
  return durable || boot === bootID()
}
