// The keywords of a line of mtree text. What isn't known is ignored; what is known and malformed is an error.
import type { Xattr } from '../fs/entry-xattrs.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK } from '../fs/libc.ts'
import type { Row } from './record-builder.ts'
import { hashBytes } from './record.ts'
import { decodeVis, hexValue } from './vis.ts'

const equals = 0x3d

const typeCodes: Readonly<Record<string, number>> = {
  file: S_IFREG,
  dir: S_IFDIR,
  link: S_IFLNK,
  char: S_IFCHR,
  block: S_IFBLK,
  fifo: S_IFIFO,
  socket: S_IFSOCK,
}

/** The keywords of an entry or of /set. */
export class Attributes {
  type = 0
  mode = 0
  uid = 0
  gid = 0
  nlink = 1
  size = 0
  mtime = 0n
  hash = false
  readonly sha256: Buffer = Buffer.alloc(hashBytes)
  link: Buffer | undefined
  xattrs: Xattr[] = []
  // times repeat, and making a bigint is slow
  #lastSeconds = 0
  #lastTime = 0n

  clear(): void {
    this.copy(new Attributes())
  }

  copy(other: Attributes): void {
    this.type = other.type
    this.mode = other.mode
    this.uid = other.uid
    this.gid = other.gid
    this.nlink = other.nlink
    this.size = other.size
    this.mtime = other.mtime
    this.hash = false
    this.link = undefined
    if (this.xattrs.length > 0) this.xattrs = []
  }

  row(): Row {
    const { uid, gid, nlink, size, mtime } = this
    return { mode: this.type | this.mode, uid, gid, nlink, size, mtime, ctime: 0n, ino: 0n }
  }

  /** Takes `text[key, eq)` = `text[eq + 1, end)`; returns what is wrong with it. Unknown keys are ignored. */
  parse(text: Buffer, key: number, eq: number, end: number): string | undefined {
    const value = eq + 1
    // told apart by length and one letter, then compared whole
    switch ((eq - key) * 256 + (text[key] as number)) {
      case 3 * 256 + 0x75:
        if (!isWord(text, key, eq, 'uid')) return
        this.uid = parseDigits(text, value, end, 10, 0xffff_ffff)
        return this.uid === -1 ? 'a malformed uid' : undefined
      case 3 * 256 + 0x67:
        if (!isWord(text, key, eq, 'gid')) return
        this.gid = parseDigits(text, value, end, 10, 0xffff_ffff)
        return this.gid === -1 ? 'a malformed gid' : undefined
      case 4 * 256 + 0x73:
        if (!isWord(text, key, eq, 'size')) return
        this.size = parseDigits(text, value, end, 10, Number.MAX_SAFE_INTEGER)
        return this.size === -1 ? 'a malformed size' : undefined
      case 4 * 256 + 0x6d:
        if (!isWord(text, key, eq, 'mode')) return
        this.mode = parseDigits(text, value, end, 8, 0o7777)
        return this.mode === -1 ? 'a malformed mode' : undefined
      case 4 * 256 + 0x74:
        if (isWord(text, key, eq, 'type')) {
          this.type = typeCodes[text.toString('latin1', value, end)] ?? 0
          return this.type === 0 ? 'an unknown type' : undefined
        }
        if (!isWord(text, key, eq, 'time')) return
        return this.#parseTime(text, value, end)
      case 8 * 256 + 0x74:
        if (!isWord(text, key, eq, 'tar_time')) return
        return this.#parseTime(text, value, end)
      case 5 * 256 + 0x6e:
        if (!isWord(text, key, eq, 'nlink')) return
        this.nlink = parseDigits(text, value, end, 10, 0xffff_ffff)
        return this.nlink === -1 ? 'a malformed nlink' : undefined
      case 4 * 256 + 0x6c:
        if (!isWord(text, key, eq, 'link')) return
        return this.#parseLink(text, value, end)
      case 6 * 256 + 0x73:
      case 12 * 256 + 0x73:
        if (!isWord(text, key, eq, 'sha256') && !isWord(text, key, eq, 'sha256digest')) return
        return this.#parseHash(text, value, end)
      default:
        if (eq - key > 6 && isWord(text, key, key + 6, 'xattr.'))
          return this.#parseXattr(text, key + 6, end)
    }
    return
  }

  #parseTime(text: Buffer, at: number, end: number): string | undefined {
    const isNegative = text[at] === 0x2d
    let point = text.indexOf(0x2e, at)
    if (point === -1 || point > end) point = end
    const digits = parseDigits(
      text,
      isNegative ? at + 1 : at,
      point,
      10,
      Number.MAX_SAFE_INTEGER,
    )
    if (digits === -1) return 'a malformed time'
    const seconds = isNegative ? -digits : digits
    if (seconds !== this.#lastSeconds) {
      this.#lastSeconds = seconds
      this.#lastTime = BigInt(seconds) * 1_000_000_000n
    }
    this.mtime = this.#lastTime
    // only whole seconds count: text made by others may have more
    if (point < end && parseDigits(text, point + 1, end, 10, Number.MAX_SAFE_INTEGER) === -1)
      return 'a malformed time'
    return
  }

  #parseHash(text: Buffer, at: number, end: number): string | undefined {
    if (end - at !== 2 * hashBytes) return 'a malformed sha256digest'
    for (let i = 0; i < hashBytes; i++) {
      const byte = hexValue(text[at + 2 * i]) * 16 + hexValue(text[at + 2 * i + 1])
      if (Number.isNaN(byte)) return 'a malformed sha256digest'
      this.sha256[i] = byte
    }
    this.hash = true
    return
  }

  #parseLink(text: Buffer, at: number, end: number): string | undefined {
    const target = Buffer.allocUnsafe(end - at)
    const length = decodeVis(text, at, end, target, 0)
    if (length <= 0 || target.subarray(0, length).includes(0)) return 'a malformed link target'
    this.link = target.subarray(0, length)
    return
  }

  // A name may hold "=": the value is the first rest that is base64.
  #parseXattr(text: Buffer, at: number, end: number): string | undefined {
    for (let eq = text.indexOf(equals, at); eq !== -1 && eq < end;) {
      const encoded = text.toString('latin1', eq + 1, end)
      if (base64.test(encoded)) {
        const name = Buffer.allocUnsafe(eq - at)
        const length = decodeVis(text, at, eq, name, 0)
        if (length <= 0) return 'a malformed xattr name'
        this.xattrs.push([name.subarray(0, length), Buffer.from(encoded, 'base64')])
        return
      }
      eq = text.indexOf(equals, eq + 1)
    }
    return 'a malformed xattr value'
  }
}

const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

/** Whether a byte separates words. */
export function isBlank(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d)
}

function isWord(text: Buffer, from: number, to: number, word: string): boolean {
  if (to - from !== word.length) return false
  for (let i = 0; i < word.length; i++) if (text[from + i] !== word.charCodeAt(i)) return false
  return true
}

/** The number, or -1 if it is empty, has another character, or is over the maximum. */
function parseDigits(
  text: Buffer,
  from: number,
  to: number,
  base: number,
  maximum: number,
): number {
  if (from >= to) return -1
  let value = 0
  for (let at = from; at < to; at++) {
    const digit = (text[at] as number) - 0x30
    if (!(digit >= 0 && digit < base)) return -1
    value = value * base + digit
    if (value > maximum) return -1
  }
  return value
}
