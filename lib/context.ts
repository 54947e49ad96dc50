// What middleware sees: one `Context` a run, from which each step's context inherits. What is shared is read-only, or is
// changed in place: assigning to it would only shadow it, so the types forbid it.
import { inspect } from 'node:util'
import type { Koci } from './application.ts'
import type { Bundle } from './bundle/bundle.ts'
import type { RuntimeConfig } from './bundle/runtime-config.ts'
import type { ChangeList, ListedChanges } from './change-list.ts'
import type { Warning } from './events.ts'
import type { Extraction } from './layer/extraction.ts'
import type { FileHashes } from './layer/file-hashes.ts'
import type { Layer } from './layer/layer.ts'
import type { LayerEntry } from './layer/layer-writer.ts'
import type { Limits } from './layer/limits.ts'
import type { ResolvedImage } from './layout/image-layout.ts'
import type { Image } from './layout/open-image.ts'
import type { ImageConfig } from './oci/image-config.ts'
import type { ListOptions } from './list-changes.ts'
import type { Manifest } from './oci/manifest.ts'
import type { Packed } from './packed-changes.ts'
import type { RepackOptions } from './repack.ts'

/** What a run hands to all of its contexts. */
export interface Shared {
  readonly app: Koci
  /** Tells runs of one application apart. */
  readonly run: string
  /** Aborted by the caller, and by the first failure of the run. */
  readonly signal: AbortSignal
  readonly image: Image
  readonly bundle: Bundle
  /** Base first. */
  readonly layers: readonly Layer[]
  readonly extraction: Extraction
  /** Registers what undoes something, should the run fail; run in reverse order after everything has settled. */
  readonly defer: (undo: () => unknown) => void
  /** Registers what is to be let go of when the run ends, whatever came of it; last registered, first called. */
  readonly closing: (close: () => unknown) => void
  /** Reports something that was dealt with. Under `strict` it throws instead. */
  readonly warn: (warning: Warning) => void
}

/** What the contexts of one run share. Made by the runner. */
export class Context {
  declare readonly app: Shared['app']
  declare readonly run: Shared['run']
  declare readonly signal: Shared['signal']
  declare readonly image: Shared['image']
  declare readonly bundle: Shared['bundle']
  declare readonly layers: Shared['layers']
  declare readonly extraction: Shared['extraction']
  declare readonly defer: Shared['defer']
  declare readonly closing: Shared['closing']
  declare readonly warn: Shared['warn']
  /** Change its members in `unpack`, before `next()`. */
  readonly limits: Limits = {}
  /** For what middleware wants to tell each other. */
  readonly state: Record<string, unknown> = {}

  constructor(shared: Shared) {
    Object.assign(this, shared)
  }

  get manifest(): Manifest {
    return this.image.manifest
  }

  get imageConfig(): ImageConfig {
    return this.image.config
  }

  /** The path of the rootfs, whether or not it is there yet. */
  get rootfs(): string {
    return this.bundle.rootfs
  }

  /** This context with a step's own members on top. */
  with<E extends object>(own: E): this & E {
    return Object.assign(Object.create(this) as this, own)
  }

  /** Digests and names for logs; never streams or descriptors. */
  toJSON(): Record<string, unknown> {
    return {
      run: this.run,
      image: `${this.image.layout.path}:${this.image.refName}`,
      manifest: this.image.descriptor.digest,
      bundle: this.bundle.path,
      layers: this.layers.map(layer => layer.diffID),
      extraction: this.extraction.toJSON(),
      limits: this.limits,
    }
  }
}

Object.defineProperty(Context.prototype, inspect.custom, {
  value(this: Context) {
    // as a member it would need a type that isolated declarations can't name
    return this.toJSON()
  },
})

/** `unpack`: choose layering, limits, variants before `next()`; the rootfs is complete after it. */
export type UnpackContext = Context

/** `locate` and `layer`: one layer. */
export type LayerContext = Context & { readonly layer: Layer }

/** `config`: the runtime configuration; undefined until the end of the chain has made it. */
export type ConfigContext = Context & { runtimeConfig: RuntimeConfig | undefined }

/** `repack`: the new image is committed after `next()`; `committed` then tells what it is. */
export type RepackContext = Context & {
  readonly options: RepackOptions
  committed: ResolvedImage | undefined
  /** Set it before `next()` to have the new layer run through `locate` and `layer`, for a store to keep. @default false */
  keepLayer: boolean
}

/** `delta`: what changed. */
export type DeltaContext = Context &
  Pick<ListOptions, 'verifyContent' | 'dryRun'> & {
    /** In any order. Undefined until a lister has answered. */
    changes: ListedChanges | undefined
    /** A `superset` may hold what didn't change: it is compared with the record of the bundle. @default 'exact' */
    quality: 'exact' | 'superset'
  }

/** `pack`: the changes, sorted bytewise, become entries in the order in which they are written. */
export type PackContext = Context & {
  readonly changes: ChangeList
  /** Gets the hash of every file that is packed, as it is read. */
  readonly hashes: FileHashes
  /** Consumed once, after the onion; wrap it rather than reading it. Undefined until the end of the chain made it. */
  entries: AsyncIterable<LayerEntry> | undefined
}

/** `refresh`: `committed` is the image that the bundle is now based on, with `newLayers`; `packed` what the new one holds. */
export type RefreshContext = Context &
  Pick<Packed, 'packed' | 'packedHashes' | 'packedRecord'> & {
    readonly committed: ResolvedImage
    readonly newLayers: readonly Layer[]
  }
