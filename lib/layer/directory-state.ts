// What the applier notes about a directory while one layer is applied. Metadata of directories waits until the end,
// because every child that is made changes the times, and a mode of 0 would bar the way.
import type { DirNode } from '../fs/rooted.ts'

/** What a directory is to become. Ids are the host's. */
export interface DirectoryMetadata {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime: bigint
  readonly atime: bigint
  readonly xattrs: ReadonlyArray<readonly [name: Buffer, value: Buffer]>
}

/** State of one directory during one layer. */
export class DirectoryState {
  /** Nothing of lower layers is left in it or beneath it; in an overlay dialect: shines through. */
  own: boolean
  /** Its own metadata isn't a lower layer's either. */
  fresh: boolean
  /** It has an entry in this layer. */
  explicit = false
  /** Something in it was made or removed, so that its times have to be set at the end. */
  changed = false
  /** It, or something beneath it, was written by this layer. */
  touched = false
  /** Names other than directories that this layer wrote in it, as latin1; not kept while the target was empty. */
  written: Set<string> | undefined
  /** In an overlay dialect: a whiteout was made in it, which needn't be there any more. */
  hasWhiteouts = false
  /** To be set at the end; without it the times are put back as they were. */
  metadata: DirectoryMetadata | undefined
  /** It may have attributes that its entry doesn't mention. */
  hasXattrs: boolean
  /** What is made in it gets our ids, and the mode we ask for less the umask: seen on the first file made in it. */
  predictable = false
  /** It hands an ACL down to what is made in it; undefined: not looked yet. */
  inheritsAcl: boolean | undefined = undefined

  /** `own`: it holds nothing of lower layers, not even its metadata. */
  constructor(own: boolean) {
    this.own = own
    this.fresh = own
    this.hasXattrs = !own
  }
}

/** A directory of the tree with what the layer has to remember about it. */
export type Directory = DirNode<DirectoryState>
