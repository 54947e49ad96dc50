// Changing a layout directory. Files are written under a private name, synced, and renamed: a reader, or a kill at any
// moment, sees the old or the new, never a part. The private directory (`.koci-…`, at the top, where no tool lists
// blobs) is locked while its layout is open for writing: that is how the garbage collector knows of blobs to come.
import { randomBytes } from 'node:crypto'
import {
  chmod,
  chown,
  mkdir,
  open,
  rename,
  rm,
  rmdir,
  stat,
  unlink,
  type FileHandle,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { createError, wrapError, type KociError } from '../errors.ts'
import { isMissing } from '../fs/libc.ts'
import { acquireLock, tryLock, type Lock } from '../fs/lock.ts'
import { algorithmOf, type Algorithm, type Digest } from '../oci/digest.ts'
import { encodeJson } from '../oci/json.ts'
import { BlobWriter } from './blob-writer.ts'
import { blobPath } from './directory-source.ts'
import { fill, type Adoption } from './adopt-blob.ts'
import { hashLocation, openRegular, type BlobLocation } from './regular-file.ts'
import { adopt, chownLike, syncDirectory } from './new-file.ts'
import { maxIndexBytes } from './source.ts'

/** How the private directories of writers are called. */
export const stagingPrefix = '.koci-'

/** How changes of a layout wait for those of others. */
export interface WaitOptions {
  /** @default a minute */
  readonly lockTimeoutMs?: number | undefined
  /** Ends the waiting. */
  readonly signal?: AbortSignal | undefined
}

/**
 * Takes the lock under which index.json is changed and writers begin: the file `oci-layout`, which nobody replaces (NFS
 * doesn't lock directories).
 * @throws {ConflictError} ERR_KOCI_LOCKED after `lockTimeoutMs`; {SystemError} ERR_KOCI_ABORTED
 */
export function lockLayout(root: string, options: WaitOptions = {}): Promise<Lock> {
  const { lockTimeoutMs: timeoutMs = 60_000, signal } = options
  return acquireLock(join(root, 'oci-layout'), { create: false, timeoutMs, signal })
}

/** The lock that the owner of a private directory holds for as long as it lives. */
const lockOf = (staging: string): string => join(staging, 'lock')

/**
 * Takes over what a writer that died left behind: undefined if its owner lives. Where there is no lock to take, the owner
 * died before it made one, or is just removing its directory: `release` has nothing to do then.
 */
export function tryLockLeftOver(staging: string): Pick<Lock, 'release'> | undefined {
  try {
    return tryLock(lockOf(staging), { create: false })
  } catch (error) {
    if (isMissing((error as KociError).cause)) return { release: () => undefined }
    throw error
  }
}

/** Writes into one layout directory (an absolute path). */
export class LayoutWriter {
  readonly #root: string
  readonly #waiting: WaitOptions | undefined
  #staging: Promise<{ path: string; lock: Lock }> | undefined
  #files = 0
  /** Those that aren't ended; some may be forgotten by whoever asked for them. */
  readonly #blobs = new Set<BlobWriter>()
  /** What is under way in the private directory, which can't be removed meanwhile. */
  readonly #works = new Set<Promise<unknown>>()

  constructor(root: string, waiting?: WaitOptions) {
    this.#root = root
    this.#waiting = waiting
  }

  /** From here on the garbage collector keeps away, until `close`. */
  async hold(): Promise<void> {
    await this.#begin()
  }

  /**
   * Begins a blob; see {@link BlobWriter}.
   * @throws {SystemError} ERR_KOCI_ABORTED if the layout is closed meanwhile
   */
  async createBlob(algorithm: Algorithm): Promise<BlobWriter> {
    const staging = this.#begin()
    const { path, handle } = await this.#within(directory => this.#createFile(directory))
    if (staging !== this.#staging) {
      await handle.close()
      throw createError('ABORTED', { subject: this.#root })
    }
    const blob = new BlobWriter(path, handle, algorithm, {
      publish: digest => this.#publishBlob(path, digest),
      onEnd: () => this.#blobs.delete(blob),
    })
    this.#blobs.add(blob)
    return blob
  }

  /**
   * Takes a blob over from a file, or a part of one, verified; sharing its blocks or its inode where that can be had.
   * @throws {IntegrityError} ERR_KOCI_DIGEST_MISMATCH; {NotFoundError} ERR_KOCI_BLOB_NOT_FOUND
   */
  async adoptBlob(source: BlobLocation, digest: Digest, subject: string): Promise<Adoption> {
    return this.#within(async directory => {
      if (await isIntact(blobPath(this.#root, digest), digest)) return 'present'
      const { path, handle } = await this.#createFile(directory)
      try {
        const how = await fill(path, handle, source)
        const written = { path, offset: 0, size: source.size }
        const found = await hashLocation(written, algorithmOf(digest), subject)
        if (found !== digest)
          throw createError('DIGEST_MISMATCH', { subject, found, expected: digest })
        await this.#publishBlob(path, digest)
        return how
      } catch (error) {
        await unlink(path).catch(() => undefined)
        throw wrapError(error, subject)
      } finally {
        await handle.close()
      }
    })
  }

  /** Replaces index.json by what `edit` returns; undefined leaves it. Other changes wait, those of other processes, too. */
  async editIndex(edit: () => Promise<unknown>): Promise<void> {
    await this.#within(async directory => {
      const lock = await lockLayout(this.#root, this.#waiting)
      try {
        const document = await edit()
        // in the directory that there is: another one would need the lock
        if (document !== undefined) await this.#publishIndex(directory, encodeJson(document))
      } finally {
        lock.release()
      }
    })
  }

  /** Aborts what wasn't committed, waits for other changes that have begun, and removes the private directory. */
  async close(): Promise<void> {
    const begun = this.#staging
    if (!begun) return
    this.#staging = undefined
    await Promise.allSettled(this.#works)
    const blobs = [...this.#blobs]
    await Promise.all(blobs.map(blob => blob.abort()))
    const staging = await begun.catch(() => undefined)
    if (!staging) return
    try {
      await rm(staging.path, { recursive: true, force: true })
    } catch (error) {
      throw wrapError(error, staging.path)
    } finally {
      staging.lock.release()
    }
  }

  async #publishIndex(directory: string, bytes: Buffer): Promise<void> {
    const target = join(this.#root, 'index.json')
    if (bytes.length > maxIndexBytes)
      throw createError('LIMIT_EXCEEDED', {
        subject: target,
        limit: 'document size',
        value: bytes.length,
        maximum: maxIndexBytes,
      })
    const { path, handle } = await this.#createFile(directory)
    try {
      await handle.writeFile(bytes)
      await handle.sync()
      await handle.close()
      await rename(path, target)
      await syncDirectory(this.#root)
    } catch (error) {
      throw wrapError(error, target)
    } finally {
      await handle.close()
    }
  }

  async #publishBlob(path: string, digest: Digest): Promise<void> {
    const target = blobPath(this.#root, digest)
    const directory = dirname(target)
    try {
      await this.#makeDirectory(directory)
      await rename(path, target)
      await syncDirectory(directory)
    } catch (error) {
      // in a sticky directory somebody else's blob can't be replaced; it needn't be if it is intact
      if (!(await isIntact(target, digest))) throw wrapError(error, target)
    }
  }

  /** Works in the private directory; closing waits for that. */
  async #within<Result>(work: (directory: string) => Promise<Result>): Promise<Result> {
    const working = this.#begin().then(({ path }) => work(path))
    this.#works.add(working)
    try {
      return await working
    } finally {
      this.#works.delete(working)
    }
  }

  async #createFile(directory: string): Promise<{ path: string; handle: FileHandle }> {
    const path = join(directory, String(this.#files++))
    try {
      const handle = await open(path, 'wx', 0o600)
      try {
        await adopt(this.#root, handle)
      } catch (error) {
        await handle.close()
        throw error
      }
      return { path, handle }
    } catch (error) {
      throw wrapError(error, this.#root)
    }
  }

  #begin(): Promise<{ path: string; lock: Lock }> {
    this.#staging ??= this.#createStaging().catch((error: unknown) => {
      // the next call may be luckier
      this.#staging = undefined
      throw error
    })
    return this.#staging
  }

  async #createStaging(): Promise<{ path: string; lock: Lock }> {
    // under the layout's lock, so that the garbage collector either sees this writer or is done before it
    const layoutLock = await lockLayout(this.#root, this.#waiting)
    const path = join(this.#root, `${stagingPrefix}${randomBytes(8).toString('hex')}`)
    try {
      await mkdir(path, 0o700)
      const lock = tryLock(lockOf(path))
      if (!lock) throw createError('LOCKED', { subject: path })
      return { path, lock }
    } catch (error) {
      await rmdir(path).catch(() => undefined)
      throw wrapError(error, this.#root)
    } finally {
      layoutLock.release()
    }
  }

  async #makeDirectory(path: string): Promise<void> {
    try {
      await mkdir(path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return
      throw error
    }
    const { mode, uid, gid } = await stat(this.#root)
    await chownLike(uid, gid, () => chown(path, uid, gid))
    await chmod(path, mode & 0o3777)
    await syncDirectory(dirname(path))
  }
}

async function isIntact(path: string, digest: Digest): Promise<boolean> {
  try {
    const file = await openRegular(path, digest)
    if (!file) return false
    await file.handle.close()
    const algorithm = algorithmOf(digest)
    return (
      (await hashLocation({ path, offset: 0, size: file.size }, algorithm, digest)) === digest
    )
  } catch {
    // whatever is wrong with it, the caller reports why it couldn't be replaced
    return false
  }
}
