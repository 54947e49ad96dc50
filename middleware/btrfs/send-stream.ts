// What the kernel says of the difference between two snapshots, as commands: `btrfs-stream\0`, a version, then for each
// command its length, type, checksum and attributes. Paths are bytes, and are relative to the subvolume's root.
import { createError } from '../../lib/errors.ts'

/** What is known of a command: the rest of it is looked up on disk. */
export interface SendCommand {
  readonly kind: 'make' | 'rename' | 'link' | 'remove' | 'change' | 'times'
  readonly path: Buffer
  /** Of `rename`: where it is from then on. */
  readonly to?: Buffer
  /** Of `times`: that of the last modification, in nanoseconds. */
  readonly mtime?: bigint
}

const magic = Buffer.from('btrfs-stream\0')
const headerBytes = magic.length + 4
const commandBytes = 10

const END = 21
const attributeMtime = 10
const attributePath = 15
const attributeTo = 16

/** By number; what isn't here nobody can know the meaning of. The first two name the subvolume. */
const kinds: Readonly<Record<number, SendCommand['kind'] | 'nothing'>> = {
  1: 'nothing', // subvol
  2: 'nothing', // snapshot
  3: 'make', // mkfile
  4: 'make', // mkdir
  5: 'make', // mknod
  6: 'make', // mkfifo
  7: 'make', // mksock
  8: 'make', // symlink
  9: 'rename',
  10: 'link',
  11: 'remove', // unlink
  12: 'remove', // rmdir
  13: 'change', // set_xattr
  14: 'change', // remove_xattr
  15: 'change', // write
  16: 'change', // clone
  17: 'change', // truncate
  18: 'change', // chmod
  19: 'change', // chown
  20: 'times', // utimes
  22: 'change', // update_extent
}

/**
 * Reads a stream of version 1, the only one that kernels send unasked.
 * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_VERSION for another version, a command that isn't known, or a stream that
 * isn't whole: what it doesn't say can't be guessed
 */
export function* readSendStream(stream: Buffer): Generator<SendCommand, void, undefined> {
  if (stream.length < headerBytes || !stream.subarray(0, magic.length).equals(magic))
    throw unsupported('without a header')
  const version = stream.readUInt32LE(magic.length)
  if (version !== 1) throw unsupported(version)
  for (let at = headerBytes; ;) {
    if (at + commandBytes > stream.length) throw unsupported('1, but without its end,')
    const end = at + commandBytes + stream.readUInt32LE(at)
    if (end > stream.length) throw unsupported('1, but without its end,')
    const number = stream.readUInt16LE(at + 4)
    if (number === END) return
    const kind = kinds[number]
    if (kind === undefined) throw unsupported(`1 with command ${number}`)
    const body = stream.subarray(at + commandBytes, end)
    if (kind !== 'nothing') yield readCommand(kind, number, body)
    at = end
  }
}

function readCommand(kind: SendCommand['kind'], number: number, body: Buffer): SendCommand {
  let path: Buffer | undefined
  let to: Buffer | undefined
  let mtime: bigint | undefined
  for (let at = 0; at < body.length;) {
    if (at + 4 > body.length) throw unsupported(`1 with a command ${number} that is cut off`)
    const type = body.readUInt16LE(at)
    const start = at + 4
    at = start + body.readUInt16LE(at + 2)
    if (at > body.length) throw unsupported(`1 with a command ${number} that is cut off`)
    if (type === attributePath) path = body.subarray(start, at)
    else if (type === attributeTo) to = body.subarray(start, at)
    else if (type === attributeMtime && at === start + 12)
      mtime = body.readBigInt64LE(start) * 1_000_000_000n + BigInt(body.readUInt32LE(start + 8))
  }
  if (!path || (kind === 'rename' && !to))
    throw unsupported(`1 with a command ${number} without a path`)
  if (kind === 'rename' && to) return { kind, path, to }
  if (kind !== 'times') return { kind, path }
  return mtime === undefined ? { kind: 'change', path } : { kind, path, mtime }
}

function unsupported(version: number | string): Error {
  return createError('UNSUPPORTED_VERSION', { subject: 'send stream of btrfs', version })
}
