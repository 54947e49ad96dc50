// What can be asked of a store of layers, whichever driver keeps it: what `koci cache` shows, checks and removes.
import type { Digest } from './oci/digest.ts'

/** A store, open. */
export interface LayerStore {
  /** The driver that keeps it. */
  readonly driver: string
  /** The versioned directory, links followed. */
  readonly path: string
  /** Everything that is complete, or was. */
  list(): Promise<StoredLayer[]>
  /** Removes what nobody needs. @throws {SystemError} ERR_KOCI_IO */
  collect(options?: CollectOptions): Promise<CollectReport>
  /** Compares what is stored with what was recorded. @throws {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED */
  verify(options?: VerifyOptions): AsyncGenerator<Verdict, void, undefined>
  /** Removes a layer that nobody needs. @throws {ConflictError} ERR_KOCI_LAYER_IN_USE */
  remove(layer: StoredLayer): Promise<void>
  /** To be called when nothing is under way any more. */
  close(): void
}

/** A stored layer; where chains of layers are stored, a chain, as what its topmost layer added. */
export interface StoredLayer {
  readonly name: string
  /** The driver that keeps it. */
  readonly driver: string
  readonly diffID: string
  /** Its ChainID, if it was extracted on top of the layers below it. */
  readonly chainID: string | null
  readonly blob: string
  readonly dialect: string | null
  readonly entries: number
  /** What it takes on disk. */
  readonly bytes: number
  /** When it was stored and, to the hour, used last. */
  readonly stored: string
  readonly used: string
  /** Whether it may still be used. */
  readonly trusted: boolean
  /** Paths of the bundles that need it. */
  readonly bundles: readonly string[]
}

/** What is to be removed beside what is of no use to anybody. */
export interface CollectOptions {
  /** Remove unused layers, those not used for longest first, until the store takes no more than this. */
  readonly keepBytes?: number | undefined
  /** Remove layers that weren't used for so many milliseconds. */
  readonly olderThanMs?: number | undefined
  /** Take bundles that aren't where they were seen last for deleted, at once. @default false */
  readonly dropMissing?: boolean | undefined
  /** The time, in milliseconds since 1970. @default by this machine's clock */
  readonly now?: number | undefined
}

/** What was removed, and what wasn't. */
export interface CollectReport {
  readonly removed: readonly RemovedLayer[]
  readonly bytesRemoved: number
  /** What is left. */
  readonly layers: number
  readonly bytes: number
  /** Bundles that aren't there any more. */
  readonly leasesRemoved: number
  /** Layers that were to be removed, and are used. */
  readonly busy: readonly string[]
  /** What processes left that died. */
  readonly stagingRemoved: number
  /** Files that say what bundles need and can't be read: nothing that is complete was removed because of them. */
  readonly damagedLeases?: readonly string[]
}

/** A layer that was removed. */
export interface RemovedLayer {
  readonly name: string
  readonly bytes: number
  readonly reason: 'incomplete' | 'age' | 'size' | 'bundle gone'
}

/** What was found out about a layer. */
export interface Verdict {
  readonly name: string
  readonly diffID: Digest | undefined
  /**
   * `outdated`: stored without waiting for the disk, in an earlier boot. `busy`: being extracted or removed right now.
   * `elsewhere`: stored in another user namespace, where owners and attributes look different, so that nothing can be said here.
   */
  readonly state: 'good' | 'damaged' | 'outdated' | 'busy' | 'elsewhere'
  readonly problems: readonly Problem[]
  /** Whether it was removed, so that it is extracted again when it is needed. */
  readonly repaired: boolean
}

/** What is wrong. */
export interface Problem {
  readonly kind: 'changed' | 'added' | 'missing' | 'unreadable' | 'no tree' | 'no record'
  /** In the layer, as text; empty for its root and for the layer as a whole. */
  readonly path: string
}

/** What to verify. */
export interface VerifyOptions {
  /** @default all */
  readonly names?: readonly string[] | undefined
  /** Remove what is damaged. @default false */
  readonly repair?: boolean | undefined
  readonly signal?: AbortSignal | undefined
}

/** What layers take. */
export interface Usage {
  readonly layers: number
  readonly bytes: number
  /** Of these, what bundles need. */
  readonly leased: { readonly layers: number; readonly bytes: number }
}

/** Adds layers up. */
export function measureLayers(layers: readonly StoredLayer[]): Usage {
  return { ...sum(layers), leased: sum(layers.filter(({ bundles }) => bundles.length > 0)) }
}

/** Those that are called so: by name, or DiffID, either cut short to no less than six digits. */
export function layersCalled(layers: readonly StoredLayer[], text: string): StoredLayer[] {
  if (!/^(?:sha(?:256|512):)?[0-9a-f]{6,}$/.test(text)) return []
  return layers.filter(
    ({ name, diffID }) =>
      name.startsWith(text) ||
      diffID.startsWith(text) ||
      diffID.slice(diffID.indexOf(':') + 1).startsWith(text),
  )
}

function sum(layers: readonly StoredLayer[]): { layers: number; bytes: number } {
  const bytes = layers.reduce((total, each) => total + each.bytes, 0)
  return { layers: layers.length, bytes }
}
