// A file for what doesn't fit into memory. It has no name, so that nobody else finds it and nothing is left of it, whatever
// happens; its owner alone could open it by way of our descriptors.
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createError, wrapError } from '../errors.ts'

const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY
const bufferSize = 1 << 18

/** Written at its end, read anywhere; closed by whoever made it, or when nobody has it any more. */
export class NamelessFile implements Disposable {
  readonly #directory: string
  readonly #fd: number
  readonly #buffer = Buffer.allocUnsafe(bufferSize)
  #buffered = 0
  #size = 0
  #isClosed = false

  /** In the directory for temporary files. @throws {SystemError} ERR_KOCI_IO */
  constructor(directory: string = tmpdir()) {
    this.#directory = directory
    this.#fd = this.#attempt(() => openNameless(directory))
    forgotten.register(this, this.#fd, this)
  }

  /** How much was written. */
  get size(): number {
    return this.#size
  }

  /** Appends a part of these. @throws {SystemError} ERR_KOCI_IO, as when the disk is full */
  append(bytes: Buffer, start: number, end: number): void {
    const length = end - start
    this.#size += length
    if (this.#buffered + length > bufferSize) this.flush()
    if (length > bufferSize) return this.#write(bytes.subarray(start, end))
    bytes.copy(this.#buffer, this.#buffered, start, end)
    this.#buffered += length
  }

  /** Makes what was appended readable. */
  flush(): void {
    const length = this.#buffered
    this.#buffered = 0
    this.#write(this.#buffer.subarray(0, length))
  }

  /** Fills the buffer from an offset on; the number of bytes there were. */
  read(buffer: Uint8Array, offset: number): number {
    this.#assertOpen()
    return this.#attempt(() => {
      let done = 0
      while (done < buffer.length) {
        const count = readSync(this.#fd, buffer, done, buffer.length - done, offset + done)
        if (count === 0) break
        done += count
      }
      return done
    })
  }

  /** The error for less in it than was written. */
  cutShort(): Error {
    return this.#broken('it was cut short')
  }

  [Symbol.dispose](): void {
    if (this.#isClosed) return
    this.#isClosed = true
    forgotten.unregister(this)
    closeSync(this.#fd)
  }

  #write(bytes: Uint8Array): void {
    this.#assertOpen()
    this.#attempt(() => {
      for (let done = 0; done < bytes.length;)
        done += writeSync(this.#fd, bytes, done, bytes.length - done)
    })
  }

  /** The number may be another file's by now. */
  #assertOpen(): void {
    if (this.#isClosed) throw this.#broken('it was closed')
  }

  #broken(reason: string): Error {
    return createError('IO', { subject: `a temporary file in ${this.#directory}`, reason })
  }

  #attempt<T>(action: () => T): T {
    try {
      return action()
    } catch (error) {
      throw wrapError(error, this.#directory)
    }
  }
}

const forgotten = new FinalizationRegistry<number>(fd => {
  closeSync(fd)
})

function openNameless(directory: string): number {
  try {
    return openSync(directory, O_TMPFILE | constants.O_RDWR | constants.O_EXCL, 0o600)
  } catch (error) {
    // not every file system has files that never had a name
    if (!withoutNameless.has((error as NodeJS.ErrnoException).code)) throw error
  }
  const own = mkdtempSync(path.join(directory, 'koci-'))
  try {
    return openSync(path.join(own, 'list'), 'wx+', 0o600)
  } finally {
    rmSync(own, { recursive: true, force: true })
  }
}

const withoutNameless = new Set<string | undefined>([
  'EOPNOTSUPP',
  'ENOTSUP',
  'EISDIR',
  'EINVAL',
])
