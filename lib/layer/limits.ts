// Bounds on what one layer may be; plain data, so that it can cross to the workers that enforce it.

/** What a layer may be at most; an absent member is no bound. Found layers are held to it by their recorded counts. */
export interface Limits {
  /** Bytes of the uncompressed tar, and of its files with their holes. */
  maxBytes?: number
  /** Entries. */
  maxEntries?: number
  /** Uncompressed to compressed bytes, those of holes included; not applied to the first 64 MiB. */
  maxRatio?: number
  /** Components of one path. */
  maxDepth?: number
}
