// What statx(2) says about a file. statx, because `struct stat` differs between architectures.
import { AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, emptyName, type CString } from './syscall.ts'
import * as sys from './syscall.ts'

/** A file's metadata. Times are nanoseconds since the epoch; `mode` has the type bits. */
export interface Stat {
  mode: number
  uid: number
  gid: number
  nlink: number
  size: number
  ino: bigint
  /** As `makedev(3)` and Node's `stat().dev` count it. Not stable over reboots. */
  dev: number
  mtime: bigint
  ctime: bigint
  atime: bigint
  rdevMajor: number
  rdevMinor: number
  /** Differs where something is mounted; 0 where the kernel doesn't say (before 5.8). */
  mountID: number
}

const MASK = 0x7ff | 0x1000 // STATX_BASIC_STATS | STATX_MNT_ID

const memory = new ArrayBuffer(256)
const bytes = new Uint8Array(memory)
const u16 = new Uint16Array(memory)
const u32 = new Uint32Array(memory)
const u64 = new BigUint64Array(memory)
const s64 = new BigInt64Array(memory)

/** Stats without following; the descriptor itself where `name` is left out. Gives the negated errno on failure. */
export function tryStat(fd: number, name?: CString): Stat | number {
  const code =
    name === undefined
      ? sys.statx(fd, emptyName, AT_EMPTY_PATH, MASK, bytes)
      : sys.statx(fd, name, AT_SYMLINK_NOFOLLOW, MASK, bytes)
  return code < 0 ? code : decode()
}

/** Inode number, mode and owner of an open file, without the rest of a Stat: for the inner loop. */
export interface BriefStat {
  ino: bigint
  mode: number
  uid: number
  gid: number
}

/** As `tryStat(fd)`, into an object of the caller's. Gives 0 or the negated errno. */
export function statBriefly(fd: number, result: BriefStat): number {
  const code = sys.statx(fd, emptyName, AT_EMPTY_PATH, MASK, bytes)
  if (code < 0) return code
  result.ino = u64[4] as bigint
  result.mode = u16[14] as number
  result.uid = u32[5] as number
  result.gid = u32[6] as number
  return 0
}

function decode(): Stat {
  const major = u32[34] as number
  const minor = u32[35] as number
  return {
    mode: u16[14] as number,
    uid: u32[5] as number,
    gid: u32[6] as number,
    nlink: u32[4] as number,
    size: (u32[10] as number) + (u32[11] as number) * 2 ** 32,
    ino: u64[4] as bigint,
    dev: (minor & 0xff) + major * 2 ** 8 + (minor & 0xfff00) * 2 ** 12,
    mtime: time(14),
    ctime: time(12),
    atime: time(8),
    rdevMajor: u32[32] as number,
    rdevMinor: u32[33] as number,
    mountID: (u32[36] as number) + (u32[37] as number) * 2 ** 32,
  }
}

/** A `struct statx_timestamp` at this index of 64-bit words. */
function time(index: number): bigint {
  return (s64[index] as bigint) * 1_000_000_000n + BigInt(u32[index * 2 + 2] as number)
}
