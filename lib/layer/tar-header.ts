// What the tar reader says about an entry, and to whom. The parsing of header blocks is in `tar-block.ts`.

/** The kinds of entries a layer can hold. A contiguous or sparse file is a 'file'. */
export type EntryType =
  'file' | 'directory' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo'

/**
 * One entry as the archive has it, pax records and GNU long names applied. The object and its Buffers belong to
 * whoever gets them: they stay valid.
 */
export interface TarHeader {
  readonly type: EntryType
  /** The name, NOT cleaned: it may be absolute, climb, end in a slash or be empty. Never holds a NUL. */
  readonly rawPath: Buffer
  /** The target of a symlink or hard link, verbatim; empty for everything else. */
  readonly rawLinkname: Buffer
  /** Permission, setuid, setgid and sticky bits (07777); no type bits. */
  readonly mode: number
  /** At most 4294967294: the value above means "unchanged" to the kernel. */
  readonly uid: number
  readonly gid: number
  /** Logical size in bytes, holes included; 0 for everything but files. */
  readonly size: number
  /** Nanoseconds since the epoch. */
  readonly mtime: bigint
  readonly atime: bigint | undefined
  /** Zero unless the entry is a device; at most 12 bits. */
  readonly devmajor: number
  /** Zero unless the entry is a device; at most 20 bits. */
  readonly devminor: number
  /** Names are unique; values may be empty and hold any byte. */
  readonly xattrs: ReadonlyArray<readonly [name: Buffer, value: Buffer]>
  /** The type byte of the header block. */
  readonly typeflag: number
  /** Whether the body has holes: `data` is then called for what lies between them only. */
  readonly sparse: boolean
}

/** Why something in an archive was left out; nothing a container runtime would have used. */
export type TarWarning =
  'IGNORED_GLOBAL_HEADER' | 'IGNORED_SIZE' | 'IGNORED_RECORD' | 'TRAILING_DATA'

/** Who gets the entries, in the order of the archive: `entry`, `data` any number of times, `endEntry`. */
export interface TarHandler {
  entry(header: TarHeader): void
  /**
   * A piece of the body. `chunk` is a slice of what was pushed, valid only during the call. `offset` is its place in
   * the logical file; it only grows, and where it jumps, or the body ends before `header.size`, there is a hole.
   */
  data(chunk: Buffer, offset: number): void
  endEntry(): void
  warn?(code: TarWarning, message: string, header?: TarHeader): void
}
