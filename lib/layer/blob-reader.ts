// The first half of an extraction: a blob in, its uncompressed bytes out, both hashed on the way. Synchronous.
// It knows nothing of tar: what it yields may be parsed in the same thread or in another one.
import { createHash, type Hash } from 'node:crypto'
import { createError, KociError, wrapError, type ErrorName } from '../errors.ts'
import {
  close,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDONLY,
  open,
  pread,
  S_IFMT,
  S_IFREG,
  statx,
} from '../fs/libc.ts'
import { algorithmOf, toDigest, type Digest } from '../oci/digest.ts'
import type { Compression } from '../oci/media-type.ts'
import type { Control } from './control.ts'
import { createDecompressor, type Sink } from './decompress.ts'
import type { Limits } from './limits.ts'
import type { Room } from './native.ts'

/** Bytes in a file, and what they are said to be. */
export interface BlobSource {
  readonly path: string
  readonly offset: number
  readonly size: number
  readonly digest: Digest
  readonly compression: Compression
}

/** Gets the uncompressed bytes of a blob. */
export interface BlobOutput {
  /** A chunk is valid only during the call. */
  readonly data: Sink
  /** Called after the last chunk, before digest and diffID are compared. */
  readonly end: () => void
  /** Where the next chunk is to be put, if the output cares. */
  readonly room?: () => Room
}

const PIECE = 2 ** 20
/** Small layers may be very compressible. */
export const RATIO_FLOOR: number = 64 * 2 ** 20

/**
 * Reads a blob and hands out the uncompressed bytes. Returns their number once size, digest and diffID are verified:
 * what was done with the bytes before that was done on unverified bytes. Who gives no diffID has to verify it.
 *
 * Where the data is malformed and the digest is wrong, too, the digest is the error, because it explains the other;
 * the same goes for errors that the output throws about the data.
 * @throws {IntegrityError} ERR_KOCI_SIZE_MISMATCH, ERR_KOCI_DIGEST_MISMATCH, ERR_KOCI_DIFF_ID_MISMATCH
 * @throws {FormatError} ERR_KOCI_BAD_COMPRESSION
 * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED for `maxBytes` and `maxRatio`
 * @throws {SystemError} ERR_KOCI_ABORTED, ERR_KOCI_IO
 */
export function readBlob(
  blob: BlobSource,
  diffID: Digest | undefined,
  limits: Limits,
  control: Control,
  output: BlobOutput,
): number {
  const subject = `layer ${blob.digest}`
  const fd = openBlob(blob, subject)
  try {
    return new BlobReader(fd, blob, diffID, limits, control, subject).run(output)
  } finally {
    close(fd)
  }
}

/** Only compares the digest, reading all of the blob; throws as {@link readBlob} does. */
export function checkBlob(blob: BlobSource, control: Control): void {
  const subject = `layer ${blob.digest}`
  const fd = openBlob(blob, subject)
  try {
    new BlobReader(fd, blob, undefined, {}, control, subject).readRest()
  } finally {
    close(fd)
  }
}

/** Whether the sum of the blob is that of the tar. */
export function isHashedAsBlob({ compression, digest }: BlobSource, diffID: Digest): boolean {
  return compression === 'none' && algorithmOf(diffID) === algorithmOf(digest)
}

/** Whether other bytes wouldn't have caused the error. */
export function isAboutData(error: unknown): boolean {
  return (
    error instanceof KociError &&
    (error.name === 'FormatError' ||
      error.name === 'BreakoutError' ||
      error.name === 'UnsupportedError')
  )
}

function openBlob(blob: BlobSource, subject: string): number {
  try {
    const fd = open(blob.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    try {
      const { mode, size } = statx(fd)
      if ((mode & S_IFMT) !== S_IFREG)
        throw createError('INVALID_LAYOUT', { subject, reason: 'its blob is no regular file' })
      const found = Math.max(0, size - blob.offset)
      if (found < blob.size)
        throw createError('SIZE_MISMATCH', { subject, found, expected: blob.size })
      return fd
    } catch (error) {
      close(fd)
      throw error
    }
  } catch (error) {
    throw wrapError(error, subject)
  }
}

class BlobReader {
  readonly #fd: number
  readonly #blob: BlobSource
  readonly #diffID: Digest | undefined
  readonly #limits: Limits
  readonly #control: Control
  readonly #subject: string
  readonly #blobHash: Hash
  /** Undefined where it would be the blob's once more, or is somebody else's work. */
  readonly #tarHash: Hash | undefined
  readonly #buffer = Buffer.allocUnsafeSlow(PIECE)
  #position = 0
  #bytes = 0

  constructor(
    fd: number,
    blob: BlobSource,
    diffID: Digest | undefined,
    limits: Limits,
    control: Control,
    subject: string,
  ) {
    this.#fd = fd
    this.#blob = blob
    this.#diffID = diffID
    this.#limits = limits
    this.#control = control
    this.#subject = subject
    this.#blobHash = createHash(algorithmOf(blob.digest))
    if (diffID !== undefined && !isHashedAsBlob(blob, diffID))
      this.#tarHash = createHash(algorithmOf(diffID))
  }

  run(output: BlobOutput): number {
    try {
      this.#inflate(output)
    } catch (error) {
      if (isAboutData(error)) this.readRest()
      throw error
    }
    const blobSum = this.#blobHash.digest('hex')
    this.#expect('DIGEST_MISMATCH', this.#blob.digest, blobSum)
    if (this.#diffID !== undefined)
      this.#expect('DIFF_ID_MISMATCH', this.#diffID, this.#tarHash?.digest('hex') ?? blobSum)
    return this.#bytes
  }

  #inflate({ data, end, room }: BlobOutput): void {
    const decompressor = createDecompressor(
      this.#blob.compression,
      chunk => {
        this.#count(chunk.length)
        this.#tarHash?.update(chunk)
        data(chunk)
      },
      { subject: this.#subject, ...(room && { room }) },
    )
    try {
      for (let piece = this.#next(); piece !== undefined; piece = this.#next())
        decompressor.push(piece)
      decompressor.end()
    } finally {
      decompressor.close()
    }
    end()
  }

  /** The next piece of the blob, hashed; its bytes are overwritten by the one after it. */
  #next(): Buffer | undefined {
    this.#control.throwIfAborted(this.#subject)
    const { size, offset } = this.#blob
    const length = Math.min(PIECE, size - this.#position)
    if (length === 0) return undefined
    const count = this.#read(length, offset + this.#position)
    if (count === 0)
      throw createError('SIZE_MISMATCH', {
        subject: this.#subject,
        found: this.#position,
        expected: size,
      })
    const piece = this.#buffer.subarray(0, count)
    this.#position += count
    if (this.#position > this.#control.read) this.#control.read = this.#position
    this.#blobHash.update(piece)
    return piece
  }

  #read(length: number, at: number): number {
    try {
      return pread(this.#fd, this.#buffer, length, at)
    } catch (error) {
      throw wrapError(error, this.#subject)
    }
  }

  #count(length: number): void {
    this.#bytes += length
    this.#control.bytes = this.#bytes
    const { maxBytes = Infinity, maxRatio = Infinity } = this.#limits
    if (this.#bytes > maxBytes)
      this.#exceeded('size of the uncompressed layer', this.#bytes, maxBytes)
    if (this.#bytes > RATIO_FLOOR && this.#bytes > this.#position * maxRatio)
      this.#exceeded('compression ratio', Math.ceil(this.#bytes / this.#position), maxRatio)
    this.#control.throwIfAborted(this.#subject)
  }

  #exceeded(limit: string, value: number, maximum: number): never {
    throw createError('LIMIT_EXCEEDED', { subject: this.#subject, limit, value, maximum })
  }

  /** Something is wrong with the data; if these aren't even the promised bytes, that is what to say. */
  readRest(): void {
    while (this.#next() !== undefined);
    this.#expect('DIGEST_MISMATCH', this.#blob.digest, this.#blobHash.digest('hex'))
  }

  #expect(
    name: ErrorName & ('DIGEST_MISMATCH' | 'DIFF_ID_MISMATCH'),
    expected: Digest,
    encoded: string,
  ): void {
    const found = toDigest(algorithmOf(expected), encoded)
    if (found !== expected) throw createError(name, { subject: this.#subject, found, expected })
  }
}
