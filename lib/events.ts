// What a run tells those who listen. Events observe, middleware acts: no listener can change or fail a run,
// and nothing is emitted per tar entry (progress is read from the layer's counters).
import type { Layer } from './layer/layer.ts'
import type { Digest } from './oci/digest.ts'

/** Something went less than perfectly and was dealt with. Becomes an error under `strict`. */
export interface Warning {
  /** Stable, like an error's code, without a prefix. */
  readonly code: string
  readonly message: string
  readonly layer?: Digest
  /** How many times it happened, if more than this once. */
  readonly count?: number
}

interface RunEvent {
  /** Tells runs of one application apart. */
  readonly run: string
}

interface LayerEvent extends RunEvent {
  readonly layer: Layer
}

/** Event names and their data; a listener gets `{ name, data }`. */
export interface KociEvents {
  'unpack:start': RunEvent & { readonly bundle: string; readonly layers: readonly Layer[] }
  'unpack:done': RunEvent & { readonly bundle: string }
  /** A driver had the layer already; it isn't extracted. */
  'layer:found': LayerEvent
  'layer:start': LayerEvent
  /** The layer is extracted, verified and placed. */
  'layer:done': LayerEvent
  'repack:start': RunEvent & { readonly bundle: string }
  /** The change list is complete, masks and filters applied. */
  'repack:delta': RunEvent & { readonly changes: number }
  'repack:done': RunEvent & { readonly bundle: string; readonly changes: number }
  'run:failed': RunEvent & { readonly error: unknown }
  warning: RunEvent & Warning
}
