// Writes regular files: the hottest part of an extraction. Five system calls make a small one: openat, write,
// statx (where it is needed), futimens, close; chown and chmod only if the kernel didn't make the file so already.
import {
  check,
  close,
  errno,
  O_CLOEXEC,
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_WRONLY,
  timespecs,
  type CString,
} from '../fs/libc.ts'
import type { Privileges } from '../fs/privileges.ts'
import { statBriefly, type BriefStat } from '../fs/stat.ts'
import * as sys from '../fs/syscall.ts'
import { copyContent } from './copy-content.ts'
import type { Directory, DirectoryState } from './directory-state.ts'
import { FileBody } from './file-body.ts'
import type { FileHashes } from './file-hashes.ts'
import type { TarHeader } from './tar-header.ts'
import type { WorkingTree } from './working-tree.ts'

const CREATE_FILE = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC

interface OpenFile {
  readonly fd: number
  readonly header: TarHeader
  readonly path: Buffer
  readonly state: DirectoryState
  /** The mode that was asked for. */
  readonly mode: number
}

/** Writes one file after the other. Throws SystemCallErrors; after one, `close()`. */
export class FileWriter {
  readonly #tree: WorkingTree
  readonly #privileges: Privileges
  readonly #rootless: boolean
  readonly #hashes: FileHashes | undefined
  readonly #hasSums: ((header: TarHeader) => boolean) | undefined
  readonly #body = new FileBody()
  readonly #stat: BriefStat = { ino: 0n, mode: 0, uid: 0, gid: 0 }
  #file: OpenFile | undefined
  /** The content is there already. */
  #filled: { readonly sum: Uint8Array | undefined } | undefined

  constructor(
    tree: WorkingTree,
    options: {
      readonly rootless: boolean
      readonly hashes?: FileHashes | undefined
      readonly hasSums?: ((header: TarHeader) => boolean) | undefined
    },
    privileges: Privileges,
  ) {
    this.#tree = tree
    this.#rootless = options.rootless
    this.#hashes = options.hashes
    this.#hasSums = options.hasSums
    this.#privileges = privileges
  }

  /** Whether there is a file to be written. */
  get isOpen(): boolean {
    return this.#file !== undefined
  }

  /** Makes a file, instead of whatever has its name. `path` is for messages. */
  start(header: TarHeader, node: Directory, name: CString, path: Buffer): void {
    const tree = this.#tree
    const state = tree.stateOf(node)
    const mode = this.#isMadeReady(header) ? header.mode & 0o777 : 0o600
    let fd = sys.openat(tree.rooted.fdOf(node), name, CREATE_FILE, mode)
    if (fd === -errno.EEXIST) {
      tree.remove(node, name)
      fd = sys.openat(tree.rooted.fdOf(node), name, CREATE_FILE, mode)
    }
    check(fd, 'openat', name)
    this.#file = { fd, header, path, state, mode }
    tree.noteWritten(node, state, name)
    const isHashing = this.#hashes !== undefined && this.#hasSums?.(header) !== true
    this.#body.begin(fd, header.size, isHashing)
  }

  /** Gives the file the content of another one, which is open; `sum`: its hash, if it is known. */
  fill(source: number, sum: Uint8Array | undefined, poll: () => void): void {
    const file = this.#file
    if (file === undefined) return
    copyContent(source, file.fd, file.header.size, poll)
    this.#filled = { sum }
  }

  data(chunk: Buffer, offset: number): void {
    this.#body.data(chunk, offset)
  }

  /** Gives the file its metadata, times last, and closes it. `given`: its sum, if that isn't made here. */
  finish(given?: Uint8Array): void {
    const file = this.#file
    if (file === undefined) return
    const { sum } = this.#filled ?? { sum: this.#body.end() ?? given }
    this.#filled = undefined
    const { fd, header, path } = file
    const { metadata } = this.#tree
    const mode = this.#settleOwner(file)
    const xattrs = metadata.xattrsOf(header)
    // a file that its owner can't write takes no attributes from him: where modes apply to us, they come last
    const modeFirst = this.#privileges.overridesModes
    if (modeFirst && mode !== header.mode) check(sys.fchmod(fd, header.mode), 'fchmod')
    if (file.state.inheritsAcl === true) metadata.clearXattrs(fd, xattrs)
    if (xattrs.length > 0) metadata.setXattrs(fd, xattrs, false, path)
    if (!modeFirst && mode !== header.mode) check(sys.fchmod(fd, header.mode), 'fchmod')
    check(sys.futimens(fd, timespecs(header.atime ?? header.mtime, header.mtime)), 'futimens')
    const mtime = metadata.storedTime(header.mtime, fd, undefined, () => path)
    // nobody reads an empty file to know its sum
    if (this.#hashes !== undefined && header.size > 0) {
      if (sum === undefined) this.#hashes.forget(this.#stat.ino)
      else this.#hashes.add(this.#stat.ino, sum, header.size, mtime)
    }
    this.#file = undefined
    close(fd)
  }

  /** Lets go of a file that wasn't finished. */
  close(): void {
    if (this.#file !== undefined) close(this.#file.fd)
    this.#file = undefined
    this.#filled = undefined
  }

  /** Whether the file can be made with its mode (never setuid) at once, being ours from the start. */
  #isMadeReady(header: TarHeader): boolean {
    if (!this.#tree.metadata.isOwn) return false
    if (this.#privileges.overridesModes) return true
    return header.xattrs.length === 0 && !this.#rootless
  }

  /**
   * Sees to the owner; gives the mode that the file has. Files made in the same directory come out alike, unless it has
   * a default ACL, setgid, or the file system ideas of its own: so the first one is looked at, and then no more.
   */
  #settleOwner({ fd, state, mode }: OpenFile): number {
    const { metadata } = this.#tree
    const { uid, gid, umask } = this.#privileges
    if (this.#hashes === undefined && state.predictable && umask !== undefined) {
      if (!metadata.isOwn) check(sys.fchown(fd, metadata.uid, metadata.gid), 'fchown')
      return mode & ~umask
    }
    const stat = this.#stat
    check(statBriefly(fd, stat), 'statx')
    const found = stat.mode & 0o7777
    state.predictable =
      umask !== undefined && stat.uid === uid && stat.gid === gid && found === (mode & ~umask)
    if (metadata.needsChown(stat.uid, stat.gid))
      check(sys.fchown(fd, metadata.uid, metadata.gid), 'fchown')
    return found
  }
}
