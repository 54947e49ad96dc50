// The drivers that come with koci, by the names that --use and bundles know them by.
import type { Driver } from '../../lib/driver.ts'

/** What makes a driver of options; which ones, the driver it makes without any tells. */
export type Factory = (options?: never) => Driver

/** A driver as the list knows it; its module is loaded only when it is used. */
export interface BuiltIn {
  readonly description: string
  /** What a machine or a user has to have. */
  readonly needs?: string
  /**
   * Whether a bundle may bring it back. Never one that runs commands, or reads files that name some: what a bundle says
   * is data.
   */
  readonly fromBundle: boolean
  readonly load: () => Promise<Factory>
}

export const builtIns: Readonly<Record<string, BuiltIn>> = {
  btrfs: {
    description:
      'starts from snapshots of layers, and lists changes from the file system itself',
    needs: 'a btrfs with the bundles and the store (dir=…) on it; root to list changes',
    fromBundle: true,
    load: async () => (await import('../../middleware/btrfs/index.ts')).btrfs,
  },
  cache: {
    description: 'keeps extracted layers in a store that all bundles share',
    fromBundle: true,
    load: async () => (await import('../../middleware/cache/index.ts')).cache,
  },
  hooks: {
    description: 'runs the commands of a hooks.toml',
    fromBundle: false,
    load: async () => (await import('../../middleware/hooks/index.ts')).hooks,
  },
  limits: {
    description: 'refuses layers beyond bounds that no real image meets',
    fromBundle: true,
    load: async () => (await import('../../middleware/limits/index.ts')).limits,
  },
  log: {
    description: 'says what each layer and each repack took',
    fromBundle: false,
    load: async () => (await import('../../middleware/log/index.ts')).log,
  },
  mtree: {
    description: 'records bundles, and lists changes by comparing',
    fromBundle: true,
    load: async () => (await import('../../middleware/mtree/index.ts')).mtree,
  },
  overlay: {
    description:
      'mounts layers instead of merging them, and finds changes in the upper directory',
    needs: 'root, or a user namespace as of unshare -Urm',
    fromBundle: true,
    load: async () => (await import('../../middleware/overlay/index.ts')).overlay,
  },
  progress: {
    description: 'shows how far layers are',
    fromBundle: false,
    load: async () => (await import('../../middleware/progress/index.ts')).progress,
  },
}

/** The driver of this name, if koci has it. */
export function findBuiltIn(name: string): BuiltIn | undefined {
  return Object.hasOwn(builtIns, name) ? builtIns[name] : undefined
}
