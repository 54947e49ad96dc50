// Writes a record as mtree text with umoci's keywords, so that umoci can repack the bundle: values that equal the
// current /set are left out, directories stand at the margin, everything else is indented. What umoci can't hold
// (extended attributes over 1024 bytes, lines over 64 KiB) is left out as umoci would; the stat index has it.
import {
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from '../fs/libc.ts'
import { trackedXattrs, type Extra } from './extra.ts'
import { flagHashed, hashBytes, type TreeRecord } from './record.ts'
import { encodeVis, maxVisExpansion } from './vis.ts'

/** The keywords of umoci's manifests, in the order in which it writes them. */
export const umociKeywords: readonly string[] = [
  'size',
  'type',
  'uid',
  'gid',
  'mode',
  'link',
  'nlink',
  'tar_time',
  'sha256digest',
  'xattr',
]

// go-mtree reads lines with a scanner that gives up at 64 KiB.
const maxLineBytes = 64 * 1024 - 1
const maxCommentBytes = 4096
// Everything in a line but the name, the link target and the extended attributes.
const fixedBytes = 320

const typeWords: Readonly<Record<number, string>> = {
  [S_IFDIR]: ' type=dir',
  [S_IFLNK]: ' type=link',
  [S_IFCHR]: ' type=char',
  [S_IFBLK]: ' type=block',
  [S_IFIFO]: ' type=fifo',
  [S_IFSOCK]: ' type=socket',
}

/** Bytes after which a piece ends with the line at hand. */
const defaultPieceBytes = 256 * 1024

/**
 * Writes the record as text, in pieces of whole lines, each of which is valid until the next one is asked for.
 * The same record gives the same bytes: unlike umoci's, they name no user, host or date.
 */
export function* writeMtree(
  record: TreeRecord,
  pieceBytes: number = defaultPieceBytes,
): Generator<Buffer, void, undefined> {
  const { mode, uid, gid, end } = record.columns
  const out = new TextWriter(pieceBytes)
  const open: number[] = []
  const path: Buffer[] = []
  let setUid = -1
  let setGid = -1

  out.text(`#      keywords: ${umociKeywords.join(',')}\n`)
  for (let row = 0; row < record.count; row++) {
    while (open.length > 0 && row >= (open.at(-1) as number)) {
      open.pop()
      path.pop()
      out.text('..\n')
    }
    const isDirectory = ((mode[row] as number) & S_IFMT) === S_IFDIR
    if (isDirectory) {
      open.push(end[row] as number)
      path.push(row === 0 ? dot : record.name(row))
      out.comment(path)
      if (uid[row] !== setUid || gid[row] !== setGid) {
        setUid = uid[row] as number
        setGid = gid[row] as number
        out.text(`/set type=file nlink=1 mode=0664 uid=${setUid} gid=${setGid}\n`)
      }
    }
    out.entry(record, row, setUid, setGid)
    if (out.length >= pieceBytes) yield out.take()
  }
  for (let depth = open.length; depth > 0; depth--) {
    out.text('..\n')
    if (out.length >= pieceBytes) yield out.take()
  }
  if (out.length > 0) yield out.take()
}

const dot = Buffer.from('.')

class TextWriter {
  #buffer: Buffer
  #at = 0

  constructor(pieceBytes: number) {
    this.#buffer = Buffer.allocUnsafe(pieceBytes + 4096)
  }

  /** Bytes that were not taken yet. */
  get length(): number {
    return this.#at
  }

  /** What was written since; the memory is used again. */
  take(): Buffer {
    const piece = this.#buffer.subarray(0, this.#at)
    this.#at = 0
    return piece
  }

  text(text: string): void {
    this.#reserve(text.length)
    this.#at += this.#buffer.write(text, this.#at, 'latin1')
  }

  /** The path of a directory, for people; names are encoded, because a newline in one would end the comment. */
  comment(path: readonly Buffer[]): void {
    this.text('\n# ')
    const start = this.#at
    for (let i = path.length > 1 ? 1 : 0; i < path.length; i++) {
      const name = path[i] as Buffer
      if (this.#at - start + name.length * maxVisExpansion > maxCommentBytes) {
        this.text('...')
        break
      }
      this.#encode(name, 0, name.length)
      if (i < path.length - 1) this.text('/')
    }
    this.text('\n')
  }

  entry(record: TreeRecord, row: number, setUid: number, setGid: number): void {
    const { columns } = record
    const mode = columns.mode[row] as number
    const type = mode & S_IFMT
    const nameStart = record.nameStart(row)
    const nameEnd = (columns.nameEnd[row] as number) - 1
    this.#reserve(fixedBytes + (nameEnd - nameStart) * maxVisExpansion)
    const start = this.#at
    if (row === 0) this.#word('.')
    else {
      if (type !== S_IFDIR) this.#word('    ')
      this.#at = encodeVis(record.names, nameStart, nameEnd, this.#buffer, this.#at)
    }
    this.#word(' size=')
    this.#decimal(columns.size[row] as number)
    if (type !== S_IFREG) this.#word(typeWords[type] ?? '')
    this.#keyword(' uid=', columns.uid[row] as number, setUid)
    this.#keyword(' gid=', columns.gid[row] as number, setGid)
    if ((mode & 0o7777) !== 0o664) this.#mode(mode & 0o7777)
    const extra = record.extra(row)
    if (type === S_IFLNK && extra.rawLinkname) this.#link(extra.rawLinkname)
    this.#keyword(' nlink=', columns.nlink[row] as number, 1)
    this.#word(' tar_time=')
    this.#decimal(floorSeconds(columns.mtime[row] as bigint))
    this.#word('.000000000')
    if (type === S_IFREG && (columns.flags[row] as number) & flagHashed)
      this.#hash(columns.sha256, row)
    this.#xattrs(mode, extra, start)
    this.#buffer[this.#at++] = 0x0a
  }

  #link(target: Buffer): void {
    this.text(' link=')
    this.#encode(target, 0, target.length)
    this.#reserve(fixedBytes)
  }

  #xattrs(mode: number, extra: Extra, start: number): void {
    if (!extra.xattrs?.length) return
    const end = this.#at
    for (const [name, value] of trackedXattrs(mode, extra.xattrs)) {
      this.text(' xattr.')
      this.#encode(name, 0, name.length)
      this.text(`=${value.toString('base64')}`)
    }
    if (this.#at - start > maxLineBytes) this.#at = end
    this.#reserve(1)
  }

  #keyword(key: string, value: number, set: number): void {
    if (value === set) return
    this.#word(key)
    this.#decimal(value)
  }

  #mode(mode: number): void {
    this.#word(mode === 0 ? ' mode=' : ' mode=0')
    this.#word(mode.toString(8))
  }

  #hash(sums: Buffer, row: number): void {
    this.#word(' sha256digest=')
    const from = row * hashBytes
    for (let at = from; at < from + hashBytes; at++) {
      const byte = sums[at] as number
      this.#buffer[this.#at++] = hexDigits[byte >> 4] as number
      this.#buffer[this.#at++] = hexDigits[byte & 15] as number
    }
  }

  // For short words, where a call into native code costs more than the bytes. Space was reserved.
  #word(word: string): void {
    for (let i = 0; i < word.length; i++) this.#buffer[this.#at++] = word.charCodeAt(i)
  }

  #decimal(value: number): void {
    if (value < 0) {
      this.#buffer[this.#at++] = 0x2d
      value = -value
    }
    let digits = 1
    for (let bound = 10; value >= bound; bound *= 10) digits++
    this.#at += digits
    for (let at = this.#at - 1; digits > 0; digits--, at--) {
      const rest = Math.floor(value / 10)
      this.#buffer[at] = 0x30 + (value - rest * 10)
      value = rest
    }
  }

  #encode(bytes: Buffer, from: number, to: number): void {
    this.#reserve((to - from) * maxVisExpansion)
    this.#at = encodeVis(bytes, from, to, this.#buffer, this.#at)
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#buffer.length) return
    const buffer = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#at + bytes))
    this.#buffer.copy(buffer, 0, 0, this.#at)
    this.#buffer = buffer
  }
}

const hexDigits = Buffer.from('0123456789abcdef')

/** Whole seconds of a time in nanoseconds, rounded down as Go's `Time.Unix()` does, before 1970, too. */
export function floorSeconds(time: bigint): number {
  const seconds = time / 1_000_000_000n
  return Number(time < 0n && seconds * 1_000_000_000n !== time ? seconds - 1n : seconds)
}
