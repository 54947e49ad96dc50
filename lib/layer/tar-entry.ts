// From a header block and what came before it to the entry they mean, in the order in which Go applies them:
// pax records, then GNU long names, then the type.
import { createError } from '../errors.ts'
import { printable } from '../text.ts'
import { applyPax, type PaxRecords } from './pax.ts'
import type { Draft, Fail } from './tar-block.ts'
import type { EntryType } from './tar-header.ts'

/** What special headers said about the next entry. */
export interface Pending {
  records: PaxRecords | undefined
  longName: Buffer | undefined
  longLink: Buffer | undefined
}

/** The type bytes that are not a kind of entry, or not only. */
export const typeflags = {
  contiguous: 0x37,
  globalPax: 0x67,
  longLink: 0x4b,
  longName: 0x4c,
  pax: 0x78,
  sparse: 0x53,
} as const

// The kernel takes 4294967295 for "leave unchanged"; device numbers have 12 and 20 bits.
const maxima = {
  uid: 2 ** 32 - 2,
  gid: 2 ** 32 - 2,
  devmajor: 2 ** 12 - 1,
  devminor: 2 ** 20 - 1,
}
const slash = 0x2f
const empty = Buffer.alloc(0)

/** Completes the header but for its size and holes; returns the keys of pax records that were left out. */
export function completeHeader(
  header: Draft,
  pending: Pending,
  subject: string,
  fail: Fail,
): string[] {
  const left = pending.records ? applyPax(pending.records, header, fail) : []
  if (pending.longName) header.rawPath = pending.longName
  if (pending.longLink) header.rawLinkname = pending.longLink
  header.type = typeOf(header, subject)
  if (header.type !== 'symlink' && header.type !== 'hardlink') header.rawLinkname = empty
  expectRange(header, 'uid', subject)
  expectRange(header, 'gid', subject)
  if (header.type === 'char' || header.type === 'block') {
    expectRange(header, 'devmajor', subject)
    expectRange(header, 'devminor', subject)
  } else {
    header.devmajor = 0
    header.devminor = 0
  }
  return left
}

/** Whether an entry of this type has no body, whatever its size says. */
export function isHeaderOnly(typeflag: number): boolean {
  return typeflag >= 0x31 && typeflag <= 0x36
}

/** The subject of an error about one entry; of a hostile name only the beginning. */
export function subjectOf(header: Draft, subject: string): string {
  const { rawPath } = header
  if (rawPath.length <= 4096) return `${subject}: ${printable(rawPath)}`
  return `${subject}: ${printable(rawPath.subarray(0, 4096))}…`
}

function typeOf(header: Draft, subject: string): EntryType {
  const { typeflag, rawPath } = header
  switch (typeflag) {
    case 0:
      return rawPath.at(-1) === slash ? 'directory' : 'file'
    case 0x30:
    case typeflags.contiguous:
    case typeflags.sparse:
      return 'file'
    case 0x31:
      return 'hardlink'
    case 0x32:
      return 'symlink'
    case 0x33:
      return 'char'
    case 0x34:
      return 'block'
    case 0x35:
      return 'directory'
    case 0x36:
      return 'fifo'
    default: {
      const type = JSON.stringify(String.fromCodePoint(typeflag))
      throw createError('UNSUPPORTED_ENTRY', { subject: subjectOf(header, subject), type })
    }
  }
}

function expectRange(header: Draft, field: keyof typeof maxima, subject: string): void {
  const value = header[field]
  if (value >= 0 && value <= maxima[field]) return
  throw createError('INVALID_ENTRY', {
    subject: subjectOf(header, subject),
    reason: `its ${field} ${value} is out of range`,
  })
}
