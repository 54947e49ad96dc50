// Copies what is in a file: shared blocks where the file system has them, else in the kernel, else by hand. Holes stay
// holes; whether blocks can be shared is found out once for each pair of file systems, by trying.
import { check, errno, ftruncate, pread, pwrite, statx, SystemCallError } from '../fs/libc.ts'
import * as sys from '../fs/syscall.ts'

const SEEK_SET = 0
const SEEK_DATA = 3
const SEEK_HOLE = 4
/** Below it nobody looks for holes. */
const smallest = 64 * 1024
/** Between two of these an abort is noticed. */
const pieceBytes = 64 * 1024 * 1024
const bufferBytes = 1024 * 1024

type Way = 'share' | 'kernel' | 'buffer'
/** The best way from one device to another that hasn't failed yet. */
const ways = new Map<string, Way>()
let buffer: Buffer | undefined

/** `to` is empty, and both are open. `poll` is called now and then, and may throw. Throws SystemCallErrors. */
export function copyContent(from: number, to: number, size: number, poll: () => void): void {
  if (size === 0) return
  const pair = `${statx(from).dev} ${statx(to).dev}`
  if ((ways.get(pair) ?? 'share') === 'share') {
    if (sys.shareBlocks(from, to) === 0) return
    ways.set(pair, 'kernel')
  }
  if (size < smallest) copyRange(from, to, 0, size, pair, poll)
  else
    for (let at = 0; at < size;) {
      const start = sys.lseek(from, at, SEEK_DATA)
      if (start === -errno.ENXIO) break
      const end = check(sys.lseek(from, check(start, 'lseek'), SEEK_HOLE), 'lseek')
      copyRange(from, to, start, Math.min(end, size), pair, poll)
      at = end
    }
  ftruncate(to, size)
}

function copyRange(
  from: number,
  to: number,
  start: number,
  end: number,
  pair: string,
  poll: () => void,
): void {
  let at = start
  if (ways.get(pair) === 'kernel') {
    check(sys.lseek(from, at, SEEK_SET), 'lseek')
    check(sys.lseek(to, at, SEEK_SET), 'lseek')
    while (at < end) {
      const count = sys.copyFileRange(from, to, Math.min(end - at, pieceBytes))
      if (count < 0 && at === start && isUnsupported(count)) {
        ways.set(pair, 'buffer')
        break
      }
      if (check(count, 'copy_file_range') === 0) throw cutShort()
      at += count
      poll()
    }
  }
  buffer ??= Buffer.allocUnsafeSlow(bufferBytes)
  while (at < end) {
    const count = pread(from, buffer, Math.min(end - at, buffer.length), at)
    if (count === 0) throw cutShort()
    pwrite(to, buffer.subarray(0, count), at)
    at += count
    poll()
  }
}

function isUnsupported(code: number): boolean {
  return [errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EPERM].includes(
    -code,
  )
}

function cutShort(): SystemCallError {
  return new SystemCallError(-errno.EIO, 'copy_file_range')
}
