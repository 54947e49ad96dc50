// A list of names that may be longer than memory: on disk, in a file that has no name any more, so that nothing is left
// whatever happens. Names are NUL-terminated, as find -print0 and xargs -0 have them.
import { mkdtemp, open, rm, type FileHandle } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { map } from '../../lib/iterate.ts'

/** The file: written first, then read. Whoever made it closes it. */
export class Spool {
  readonly #file: FileHandle
  #size = 0

  private constructor(file: FileHandle) {
    this.#file = file
  }

  static async create(): Promise<Spool> {
    const directory = await mkdtemp(path.join(tmpdir(), 'koci-hooks-'))
    try {
      return new Spool(await open(path.join(directory, 'list'), 'wx+', 0o600))
    } finally {
      await rm(directory, { recursive: true, force: true })
    }
  }

  async write(chunk: Uint8Array): Promise<void> {
    await this.#file.writeFile(chunk)
    this.#size += chunk.length
  }

  /** The names, without their NULs; a last one that has none comes as it is, with `ended` false. */
  async *names(): AsyncGenerator<{ name: Buffer; ended: boolean }, void, undefined> {
    let rest = Buffer.alloc(0)
    for (let at = 0; at < this.#size;) {
      const piece = Buffer.allocUnsafe(pieceBytes)
      const { bytesRead } = await this.#file.read(piece, 0, piece.length, at)
      if (bytesRead === 0) break
      at += bytesRead
      const known = Buffer.concat([rest, piece.subarray(0, bytesRead)])
      let start = 0
      for (let end = known.indexOf(0); end >= 0; end = known.indexOf(0, start)) {
        yield { name: known.subarray(start, end), ended: true }
        start = end + 1
      }
      rest = known.subarray(start)
      if (rest.length > maxName) break
    }
    if (rest.length > 0) yield { name: rest, ended: false }
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

/** No system call takes longer paths, but deep trees have them. */
const maxName = 1 << 20
const pieceBytes = 1 << 16

/** A list for a command to read, in a directory of its own; disposed of, it is gone. */
export class NamedList implements AsyncDisposable {
  readonly path: string
  readonly #directory: string

  private constructor(directory: string) {
    this.#directory = directory
    this.path = path.join(directory, 'list')
  }

  static async create<T>(
    items: Iterable<T> | AsyncIterable<T>,
    encode: (item: T) => Buffer,
  ): Promise<NamedList> {
    const list = new NamedList(await mkdtemp(path.join(tmpdir(), 'koci-hooks-')))
    try {
      await using file = await open(list.path, 'wx', 0o600)
      await file.writeFile(pieces(map(items, encode)))
      return list
    } catch (error) {
      await list[Symbol.asyncDispose]()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true })
  }
}

/** A system call for each of a million names would take longer than all else. */
async function* pieces(buffers: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let pending: Buffer[] = []
  let size = 0
  for await (const buffer of buffers) {
    pending.push(buffer)
    size += buffer.length
    if (size < pieceBytes) continue
    yield Buffer.concat(pending)
    pending = []
    size = 0
  }
  yield Buffer.concat(pending)
}
