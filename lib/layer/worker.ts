// Entry point of the pool's threads: one job after the other, until told to stop.
import { parentPort } from 'node:worker_threads'
import { wrapError, type ErrorJSON } from '../errors.ts'
import { Control } from './control.ts'
import { extractBlob, type ExtractJob, type ExtractResult } from './extract.ts'
import type { TransferredHashes } from './file-hashes.ts'
import { inflateAhead, type AheadJob, type Inflated } from './inflate-ahead.ts'

/** A layer to be written. */
export interface ExtractRequest {
  readonly job: ExtractJob
  readonly memory: SharedArrayBuffer
  /** By whom the layer is inflated, if not by the same thread. */
  readonly inflated?: Inflated | undefined
}

/** To a worker: a layer to write, layers to inflate, or (undefined) the end. */
export type Request = ExtractRequest | AheadJob

/** From a worker. */
export type Answer =
  | { readonly result: Omit<ExtractResult, 'hashes'>; readonly hashes?: TransferredHashes }
  | { readonly error: ErrorJSON }
  | { readonly inflated: true }

const port = parentPort
port?.on('message', (request: Request | undefined) => {
  if (request === undefined) port.close()
  else if ('ring' in request) {
    inflateAhead(request)
    port.postMessage({ inflated: true } satisfies Answer)
  } else {
    const { answer, transferList } = extract(request)
    port.postMessage(answer, transferList)
  }
})

function extract({ job, memory, inflated }: ExtractRequest): {
  answer: Answer
  transferList: ArrayBuffer[]
} {
  try {
    const { hashes, ...result } = extractBlob(job, new Control(memory), inflated)
    if (hashes === undefined) return { answer: { result }, transferList: [] }
    const { value, transferList } = hashes.toTransferable()
    return { answer: { result, hashes: value }, transferList }
  } catch (error) {
    const { digest } = job.blob
    const json = wrapError(error, `layer ${digest}`).toJSON()
    json.details['layer'] ??= digest
    return { answer: { error: json }, transferList: [] }
  }
}
