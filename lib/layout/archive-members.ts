// The table of contents of a tar file, made by reading its headers and seeking over the bodies. Knows what archives of
// images are made of: ustar, GNU long names, pax path, linkpath and size. The last member of a name counts, as it
// would after extraction. Nothing is extracted: names are only compared.
import type { FileHandle } from 'node:fs/promises'
import { createError } from '../errors.ts'
import { readFrom } from './regular-file.ts'

/** One member; its body is `size` bytes from `offset` of the archive. */
export interface ArchiveMember {
  readonly type: 'file' | 'link' | 'symlink' | 'other'
  readonly offset: number
  readonly size: number
  /** Bytes as latin1 text, as are the names. */
  readonly linkname: string
}

/** Members by name: bytes as latin1 text, without leading `./` or `/` and without a trailing slash. */
export type ArchiveMembers = ReadonlyMap<string, ArchiveMember>

const blockSize = 512
const maxMembers = 1_000_000
const maxExtensionBytes = 1024 * 1024

/**
 * Reads the table of contents.
 * @throws {FormatError} ERR_KOCI_BAD_ARCHIVE; ERR_KOCI_INVALID_LAYOUT for a compressed archive
 */
export async function readMembers(
  handle: FileHandle,
  archiveSize: number,
  subject: string,
): Promise<ArchiveMembers> {
  const members = new Map<string, ArchiveMember>()
  let extension: Extension = {}
  let isFirst = true
  for (let at = 0; at < archiveSize;) {
    const bad = (reason: string): Error =>
      createError('BAD_ARCHIVE', { subject, offset: at, reason })
    const block = await readFrom(handle, at, blockSize)
    if (isFirst) refuseCompressed(block, subject)
    isFirst = false
    if (block.length < blockSize) throw bad('it ends within a header')
    if (isZero(block)) {
      if (isZero(await readFrom(handle, at + blockSize, blockSize))) break
      throw bad('a header follows one block of zeros')
    }
    const header = parseHeader(block, bad)
    const { flag } = header
    const isExtension = extensionFlags.has(flag)
    const size = sizeOf(flag, (isExtension ? undefined : extension.size) ?? header.size)
    const offset = at + blockSize
    if (offset + size > archiveSize) throw bad('it ends within a member')
    at = offset + Math.ceil(size / blockSize) * blockSize
    if (isExtension) {
      if (size > maxExtensionBytes) throw bad('an extended header is over 1 MiB')
      const body = await readFrom(handle, offset, size)
      extension = { ...extension, ...readExtension(flag, body, bad) }
      continue
    }
    // GNU's names go before pax's, as in Go
    const name = extension.longName ?? extension.name ?? header.name
    const linkname = extension.longLinkname ?? extension.linkname ?? header.linkname
    const type = extension.isSparse ? 'other' : (types[flag] ?? 'other')
    extension = {}
    members.set(cleanName(name), { type, offset, size, linkname })
    if (members.size > maxMembers)
      throw createError('LIMIT_EXCEEDED', {
        subject,
        limit: 'number of members',
        value: members.size,
        maximum: maxMembers,
      })
  }
  return members
}

/** Follows links within the archive to a regular file; undefined if there is none of that name. */
export function findMember(members: ArchiveMembers, name: string): ArchiveMember | undefined {
  let at = cleanName(name)
  for (let hops = 0; hops < 40; hops++) {
    const member = members.get(at)
    if (!member || member.type === 'file') return member
    if (member.type === 'other') return undefined
    at = member.type === 'link' ? cleanName(member.linkname) : join(at, member.linkname)
  }
  return undefined
}

interface Extension {
  longName?: string
  longLinkname?: string
  name?: string
  linkname?: string
  size?: number
  isSparse?: boolean
}

const types: Record<string, ArchiveMember['type']> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  '1': 'link',
  '2': 'symlink',
}

const extensionFlags: ReadonlySet<string> = new Set(['x', 'g', 'L', 'K'])

interface Header {
  name: string
  linkname: string
  size: number
  flag: string
}

function parseHeader(block: Buffer, bad: (reason: string) => Error): Header {
  let sum = 8 * 0x20
  for (let at = 0; at < blockSize; at++) if (at < 148 || at >= 156) sum += block[at] as number
  if (sum !== parseNumber(block.subarray(148, 156))) throw bad('wrong checksum')
  const size = parseNumber(block.subarray(124, 136))
  if (size === undefined) throw bad('the size is not a number')
  const isPosix = block.toString('latin1', 257, 263) === 'ustar\0'
  const prefix = isPosix ? text(block, 345, 500) : ''
  const name = text(block, 0, 100)
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    linkname: text(block, 157, 257),
    size,
    flag: String.fromCharCode(block[156] as number),
  }
}

function readExtension(flag: string, body: Buffer, bad: (reason: string) => Error): Extension {
  if (flag === 'L') return { longName: text(body, 0, body.length) }
  if (flag === 'K') return { longLinkname: text(body, 0, body.length) }
  // a global header could only rename every member that follows: nobody writes that into an image
  if (flag === 'g') return {}
  const extension: Extension = {}
  for (const [key, value] of paxRecords(body, bad)) {
    if (key === 'path') extension.name = value
    else if (key === 'linkpath') extension.linkname = value
    else if (key.startsWith('GNU.sparse.')) extension.isSparse = true
    else if (key === 'size') {
      if (!/^\d{1,15}$/.test(value)) throw bad('the pax size is not a number')
      extension.size = Number(value)
    }
  }
  return extension
}

function* paxRecords(
  body: Buffer,
  bad: (reason: string) => Error,
): Generator<[key: string, value: string]> {
  for (let at = 0; at < body.length;) {
    const space = body.indexOf(0x20, at)
    const digits = space < 0 ? '' : body.toString('latin1', at, space)
    const end = at + Number(digits)
    const equals = body.indexOf(0x3d, space)
    const isSound =
      /^[1-9]\d{0,6}$/.test(digits) &&
      end <= body.length &&
      body[end - 1] === 0x0a &&
      equals > space &&
      equals < end
    if (!isSound) throw bad('malformed pax record')
    yield [
      body.toString('latin1', space + 1, equals),
      body.toString('latin1', equals + 1, end - 1),
    ]
    at = end
  }
}

/** Octal text, or a big-endian number marked by the top bit. */
function parseNumber(field: Buffer): number | undefined {
  if ((field[0] as number) & 0x80) {
    let value = (field[0] as number) & 0x7f
    for (const byte of field.subarray(1)) value = value * 256 + byte
    return Number.isSafeInteger(value) ? value : undefined
  }
  const digits = field.toString('latin1').replaceAll(/^[ \0]+|[ \0]+$/g, '')
  if (digits === '') return 0
  return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : undefined
}

// Links and the like have no body, whatever their size says
function sizeOf(flag: string, size: number): number {
  return '123456'.includes(flag) ? 0 : size
}

function text(bytes: Buffer, start: number, end: number): string {
  const field = bytes.toString('latin1', start, end)
  const terminator = field.indexOf('\0')
  return terminator < 0 ? field : field.slice(0, terminator)
}

function isZero(block: Buffer): boolean {
  return block.every(byte => byte === 0)
}

function cleanName(name: string): string {
  return join('', name.replace(/^\/+/, ''))
}

/** Resolves a relative name against the directory of another; `..` at the top stays there. */
function join(from: string, name: string): string {
  const parts = name.startsWith('/') ? [] : from.split('/').slice(0, -1)
  for (const part of name.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  return parts.join('/')
}

const compressions: ReadonlyArray<readonly [magic: string, name: string, tool: string]> = [
  ['1f8b', 'gzip', 'gunzip'],
  ['28b52ffd', 'zstd', 'unzstd'],
  ['425a68', 'bzip2', 'bunzip2'],
  ['fd377a585a00', 'xz', 'unxz'],
]

function refuseCompressed(block: Buffer, subject: string): void {
  const start = block.toString('hex', 0, 8)
  for (const [magic, name, tool] of compressions)
    if (start.startsWith(magic))
      throw createError('INVALID_LAYOUT', {
        subject,
        reason: `it is compressed with ${name} - decompress it first, with ${tool}`,
      })
}
