// An entry as tar-stream's writer takes it, and the pax records for what the plain header can't hold or what that
// writer would change: it clamps ids above 2^18, and breaks times outside of 1970 to 2038.
import { isUtf8 } from 'node:buffer'
import type { Header } from 'tar-stream'
import { createError } from '../errors.ts'
import { cleanPath } from './clean-path.ts'
import type { LayerEntry } from './layer-writer.ts'
import { maxSpecialSize } from './sparse-map.ts'
import { isWhiteout } from './whiteout-name.ts'

/** A record of a pax header: both are bytes, and the key holds no `=`. */
export type PaxRecord = readonly [key: Buffer, value: Buffer]

/** A header as `pack.entry()` takes it; its types leave out one that it knows. */
export type PackHeader = Pick<Header, 'name' | 'size' | 'mode' | 'mtime' | 'uid' | 'gid'> &
  Partial<Pick<Header, 'linkname' | 'devmajor' | 'devminor'>> & {
    type: Header['type'] | 'pax-header'
  }

const S_IFREG = 0o100000
const S_IFDIR = 0o040000
const blockSize = 512
const nameSize = 100
const maxHeaderID = 0o777777
const maxHeaderMinor = 0o777777
const maxMajor = 0xfff
const maxID = 2 ** 32 - 2
const maxHeaderSize = 2 ** 33 - 1
const maxHeaderTime = 2n ** 31n - 1n
const nsPerSecond = 1_000_000_000n
const slash = 0x2f
const whiteoutPrefix = Buffer.from('.wh.')
const opaqueName = Buffer.from('.wh..wh..opq')

const types = {
  file: 'file',
  whiteout: 'file',
  opaqueWhiteout: 'file',
  directory: 'directory',
  symlink: 'symlink',
  hardlink: 'link',
  char: 'character-device',
  block: 'block-device',
  fifo: 'fifo',
} as const satisfies { [Type in LayerEntry['type']]: PackHeader['type'] }

/** The header of an entry. What doesn't fit it is added to `records`. */
export function toHeader(
  entry: LayerEntry,
  records: PaxRecord[],
  clampTime: bigint | undefined,
): PackHeader {
  if (entry.type !== 'whiteout' && entry.type !== 'opaqueWhiteout')
    return toOrdinaryHeader(entry, records, clampTime)
  const name = fitName(whiteoutName(entry), 'path', records)
  return { ...epoch, name, type: types.whiteout, size: 0 }
}

/**
 * The body of a pax header, records sorted, filled up to whole blocks by a `comment`: tar-stream pads before the body,
 * not behind it.
 * @throws {LimitError} ERR_KOCI_LIMIT_EXCEEDED where no reader would take it
 */
export function encodeRecords(records: readonly PaxRecord[], subject: Buffer): Buffer {
  const sorted = withCharset(records)
    .toSorted((a, b) => Buffer.compare(a[0], b[0]))
    .map(encodeRecord)
  const length = sorted.reduce((sum, record) => sum + record.length, 0)
  let gap = -length & (blockSize - 1)
  if (gap > 0 && gap < comment(0).length) gap += blockSize
  if (gap > 0) sorted.push(comment(gap))
  if (length + gap > maxSpecialSize)
    throw createError('LIMIT_EXCEEDED', {
      subject,
      limit: 'size of its extended attributes and names',
      value: length,
      maximum: maxSpecialSize,
    })
  return Buffer.concat(sorted)
}

/** The header in front of those records. Its own name and metadata mean nothing, and are always the same. */
export function recordsHeader(size: number): PackHeader {
  return { ...epoch, name: 'PaxHeader', mode: S_IFREG | 0o644, type: 'pax-header', size }
}

/** What an entry is called in an error. */
export function subjectOf(entry: LayerEntry): Buffer {
  return entry.rawPath.length > 0 ? entry.rawPath : Buffer.from('.')
}

// tar-stream replaces a mode of 0 by its own, but not one with type bits.
const epoch = { mode: S_IFREG, uid: 0, gid: 0, mtime: new Date(0) }

function toOrdinaryHeader(
  entry: LayerEntry,
  records: PaxRecord[],
  clampTime: bigint | undefined,
): PackHeader {
  const subject = subjectOf(entry)
  const name = ordinaryName(entry)
  const header: PackHeader = {
    name: fitName(name, 'path', records),
    type: types[entry.type],
    mode: (entry.type === 'directory' ? S_IFDIR : S_IFREG) | (entry.mode & 0o7777),
    uid: fitNumber(entry.uid, 'uid', maxHeaderID, maxID, subject, records),
    gid: fitNumber(entry.gid, 'gid', maxHeaderID, maxID, subject, records),
    size: entry.type === 'file' ? fitSize(entry.size, subject, records) : 0,
    mtime: fitTime(clamp(entry.mtime, clampTime), records),
  }
  if (entry.type === 'symlink' || entry.type === 'hardlink')
    header.linkname = fitName(linkname(entry), 'linkpath', records)
  if (entry.type === 'char' || entry.type === 'block') {
    const { devmajor = 0, devminor = 0 } = entry
    expectNumber(devmajor, 'devmajor', maxMajor, subject)
    expectNumber(devminor, 'devminor', maxHeaderMinor, subject)
    Object.assign(header, { devmajor, devminor })
  }
  for (const [key, value] of entry.xattrs ?? []) records.push(xattrRecord(key, value, subject))
  return header
}

function clamp(time: bigint, latest: bigint | undefined): bigint {
  return latest !== undefined && time > latest ? latest : time
}

function ordinaryName(entry: LayerEntry): Buffer {
  const path = expectClean(entry)
  if (isWhiteout(path, path.lastIndexOf(slash) + 1))
    throw createError('INVALID_WHITEOUT', {
      subject: path,
      reason: 'a layer cannot hold a file of that name - rename it',
    })
  if (entry.type !== 'directory') {
    if (path.length > 0) return path
    throw createError('INVALID_ENTRY', {
      subject: subjectOf(entry),
      reason: `the root is a ${entry.type}`,
    })
  }
  return Buffer.concat([path.length > 0 ? path : Buffer.from('.'), Buffer.from('/')])
}

function whiteoutName(entry: LayerEntry): Buffer {
  const path = expectClean(entry)
  if (entry.type === 'opaqueWhiteout')
    return path.length > 0 ? Buffer.concat([path, Buffer.from('/'), opaqueName]) : opaqueName
  const start = path.lastIndexOf(slash) + 1
  if (path.length === 0 || isWhiteout(path, start))
    throw createError('INVALID_WHITEOUT', {
      subject: subjectOf(entry),
      reason:
        path.length === 0
          ? 'the root cannot be deleted'
          : 'no whiteout can say that it is gone',
    })
  return Buffer.concat([path.subarray(0, start), whiteoutPrefix, path.subarray(start)])
}

function expectClean(entry: LayerEntry): Buffer {
  if (cleanPath(entry.rawPath) === entry.rawPath) return entry.rawPath
  throw createError('INVALID_ENTRY', {
    subject: entry.rawPath,
    reason: 'its path is not clean',
  })
}

function linkname(entry: LayerEntry): Buffer {
  const target = entry.rawLinkname
  if (target !== undefined && target.length > 0 && !target.includes(0)) return target
  throw createError('INVALID_ENTRY', {
    subject: subjectOf(entry),
    reason: 'it links to nothing',
  })
}

/** The name where the header can hold it; else a stand-in in ASCII for readers that know no pax, which is no name. */
function fitName(name: Buffer, key: 'path' | 'linkpath', records: PaxRecord[]): string {
  const text = name.toString('latin1')
  const isAscii = name.every(byte => byte < 0x80)
  if (isAscii && name.length <= nameSize) return text
  records.push([Buffer.from(key), name])
  const standIn = text.replaceAll(/[^\x21-\x7e]/g, '_').slice(0, nameSize - 1)
  return name.at(-1) === slash ? `${standIn.replace(/\/$/, '')}/` : standIn.replace(/\/$/, '_')
}

function fitNumber(
  value: number,
  key: 'uid' | 'gid',
  fits: number,
  maximum: number,
  subject: Buffer,
  records: PaxRecord[],
): number {
  expectNumber(value, key, maximum, subject)
  if (value <= fits) return value
  records.push([Buffer.from(key), Buffer.from(String(value))])
  return 0
}

function fitSize(size: number, subject: Buffer, records: PaxRecord[]): number {
  expectNumber(size, 'size', Number.MAX_SAFE_INTEGER, subject)
  if (size > maxHeaderSize) records.push([Buffer.from('size'), Buffer.from(String(size))])
  return size
}

function fitTime(time: bigint, records: PaxRecord[]): Date {
  const seconds = time / nsPerSecond
  const fraction = time % nsPerSecond
  if (time >= 0n && fraction === 0n && seconds <= maxHeaderTime)
    return new Date(Number(seconds) * 1000)
  records.push([Buffer.from('mtime'), Buffer.from(formatTime(time))])
  return new Date(time < 0n || seconds > maxHeaderTime ? 0 : Number(seconds) * 1000)
}

/** Seconds with as many digits behind the point as it takes. */
function formatTime(time: bigint): string {
  const sign = time < 0n ? '-' : ''
  const distance = time < 0n ? -time : time
  const fraction = String(distance % nsPerSecond).padStart(9, '0')
  return `${sign}${distance / nsPerSecond}.${fraction}`.replace(/\.?0+$/, '')
}

function xattrRecord(name: Buffer, value: Buffer, subject: Buffer): PaxRecord {
  if (name.length === 0 || name.includes('=') || name.includes(0))
    throw createError('INVALID_ENTRY', {
      subject,
      reason: 'tar cannot hold an extended attribute of that name',
      attribute: name,
    })
  return [Buffer.concat([Buffer.from('SCHILY.xattr.'), name]), value]
}

function expectNumber(value: number, name: string, maximum: number, subject: Buffer): void {
  if (Number.isInteger(value) && value >= 0 && value <= maximum) return
  throw createError('INVALID_ENTRY', {
    subject,
    reason: `its ${name} ${value} is out of range`,
  })
}

/** Names in pax are UTF-8 unless it says otherwise; only bsdtar minds. */
function withCharset(records: readonly PaxRecord[]): readonly PaxRecord[] {
  const isText = records.every(
    ([key, value]) => !key.toString().endsWith('path') || isUtf8(value),
  )
  return isText ? records : [...records, [Buffer.from('hdrcharset'), Buffer.from('BINARY')]]
}

/** A record's length counts its own digits. */
function encodeRecord([key, value]: PaxRecord): Buffer {
  const rest = key.length + value.length + 3
  let length = rest + String(rest).length
  if (String(length).length > String(rest).length) length = rest + String(length).length
  return Buffer.concat([
    Buffer.from(`${length} `),
    key,
    Buffer.from('='),
    value,
    Buffer.from('\n'),
  ])
}

/** A record that is as long as is wanted. */
function comment(length: number): Buffer {
  const start = `${Math.max(length, 12)} comment=`
  return Buffer.from(`${start.padEnd(length - 1, ' ')}\n`)
}
