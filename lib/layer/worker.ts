// Entry point of the pool's threads: one job after the other, until told to stop.
import { parentPort } from 'node:worker_threads'
import { wrapError, type ErrorJSON } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { StoredJob, StoredResult } from './apply-stored.ts'
import { Control } from './control.ts'
import { extractBlob, type ExtractJob, type ExtractResult } from './extract.ts'
import type { TransferredHashes } from './file-hashes.ts'
import { hashAhead, type HashJob } from './hash-ahead.ts'
import { inflateAhead, type AheadJob, type Inflated } from './inflate-ahead.ts'

/** A layer to be written. */
export interface ExtractRequest {
  readonly job: ExtractJob
  readonly memory: SharedArrayBuffer
  /** By whom the layer is inflated, if not by the same thread. */
  readonly inflated?: Inflated | undefined
}

/** A stored layer to be applied. */
export interface StoredRequest {
  readonly stored: StoredJob
  readonly memory: SharedArrayBuffer
}

/** To a worker: a layer to write, layers to inflate or to hash, or (undefined) the end. */
export type Request = ExtractRequest | StoredRequest | AheadJob | HashJob

/** From a worker. */
export type Answer =
  | { readonly result: Omit<ExtractResult, 'hashes'>; readonly hashes?: TransferredHashes }
  | { readonly applied: Omit<StoredResult, 'hashes'>; readonly hashes?: TransferredHashes }
  | { readonly error: ErrorJSON }
  | { readonly done: true }

const port = parentPort
port?.on('message', (request: Request | undefined) => {
  if (request === undefined) port.close()
  else if ('ring' in request) {
    if ('hashed' in request) hashAhead(request)
    else inflateAhead(request)
    port.postMessage({ done: true } satisfies Answer)
  } else {
    void ('stored' in request ? apply(request) : extract(request)).then(
      ({ answer, transferList }) => {
        port.postMessage(answer, transferList)
      },
    )
  }
})

async function apply({ stored, memory }: StoredRequest): Promise<{
  answer: Answer
  transferList: ArrayBuffer[]
}> {
  try {
    // not for every worker to load
    const { applyStored } = await import('./apply-stored.ts')
    const { hashes, ...applied } = applyStored(stored, new Control(memory))
    if (hashes === undefined) return { answer: { applied }, transferList: [] }
    const { value, transferList } = hashes.toTransferable()
    return { answer: { applied, hashes: value }, transferList }
  } catch (error) {
    return failure(error, stored.digest)
  }
}

async function extract({ job, memory, inflated }: ExtractRequest): Promise<{
  answer: Answer
  transferList: ArrayBuffer[]
}> {
  try {
    const control = new Control(memory)
    const { hashes, ...result } = extractBlob(job, control, inflated)
    if (job.recordTo !== undefined) {
      const { target, recordTo, diffID } = job
      // not for every worker to load
      const { writeLayerRecord } = await import('../bundle/layer-record.ts')
      const recorded = await writeLayerRecord(target, recordTo, diffID, {
        hashes,
        signal: control,
      })
      return { answer: { result: { ...result, recorded } }, transferList: [] }
    }
    if (hashes === undefined) return { answer: { result }, transferList: [] }
    const { value, transferList } = hashes.toTransferable()
    return { answer: { result, hashes: value }, transferList }
  } catch (error) {
    return failure(error, job.blob.digest)
  }
}

function failure(error: unknown, digest: Digest): { answer: Answer; transferList: [] } {
  const json = wrapError(error, `layer ${digest}`).toJSON()
  json.details['layer'] ??= digest
  return { answer: { error: json }, transferList: [] }
}
