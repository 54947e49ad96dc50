// Archives with everything in them that the reader knows, ways to spoil them, and whether what was read is what Go read.
import type { TarHeader } from '../../lib/layer/tar-reader.ts'
import { sumOf, type Collected, type Outcome } from './collect-tar.ts'
import type { GoMember, GoResult } from './go-tar.ts'
import { paxRecord, tarBytes, type TarMember } from './tar-builder.ts'

const gnuMagic = 'ustar  \0'
/** Bodies beyond it are not compared: a sparse file may claim to be endless. */
export const largest: number = 1 << 22

const types: Record<TarHeader['type'], string> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
}

/** Where koci refuses what Go takes, on purpose: by code, or by the reason given. */
const refused = [
  'UNSUPPORTED_ENTRY',
  'INVALID_ENTRY',
  'a global header sets',
  'that no entry follows',
  'a GNU long name is empty',
  'its size is beyond 2^53',
  // Go notices this when it reads the body, which is not done for a very large one.
  'its sparse map does not cover its body',
  'NUL byte in a name',
]

const base: TarMember[] = [
  { name: 'dir/', type: 'directory', mtime: 1_700_000_000 },
  { name: 'dir/a', body: 'aaaa', uid: 1000, gid: 1000, mode: 0o4755 },
  { name: 'l', type: 'symlink', linkname: 'dir/a' },
  { name: 'h', type: 'hardlink', linkname: 'dir/a' },
  { name: 'c', type: 'char', devmajor: 1, devminor: 3 },
  { name: 'f', type: 'fifo' },
  { name: 'b', body: Buffer.alloc(700, 'b') },
]
const gnuEntry = (offset: number, length: number): string =>
  `${offset.toString(8).padStart(11, '0')}\0${length.toString(8).padStart(11, '0')}\0`
const longLink = (type: 'gnuLongName' | 'gnuLongLink', body: string): TarMember => ({
  name: '././@LongLink',
  type,
  body,
  magic: gnuMagic,
})
const sparse = (map: string, size: string, more: Array<[string, string]>): TarMember => ({
  name: 's',
  body: map,
  pax: [['GNU.sparse.realsize', size], ...more],
})

/** Archives that the reader takes. */
export const seeds: readonly Buffer[] = [
  tarBytes(base),
  tarBytes(base.map(member => ({ ...member, magic: gnuMagic }))),
  tarBytes(base.map(member => ({ ...member, magic: '\0\0\0\0\0\0\0\0' }))),
  tarBytes([
    {
      name: 'x',
      body: 'xxxxx',
      pax: [
        ['path', 'some/long/path'],
        ['size', '5'],
        ['uid', '70000'],
        ['gid', '70001'],
        ['mtime', '-1.5'],
        ['atime', '1700000000.123456789'],
        ['SCHILY.xattr.user.a', 'v\0\n='],
        ['SCHILY.xattr.user.b', ''],
        ['linkpath', 'where'],
        ['comment', 'c'],
      ],
    },
    { name: 'y', type: 'symlink', pax: [['linkpath', 'dir/\xff']] },
    {
      name: 'z',
      body: Buffer.alloc(1024, 'z'),
      pax: [
        ['size', '1024'],
        ['path', 'z/'],
      ],
    },
  ]),
  tarBytes([
    longLink('gnuLongName', `${'n'.repeat(120)}\0`),
    longLink('gnuLongLink', `${'k'.repeat(120)}\0`),
    { name: 'n', type: 'symlink', linkname: 'k', magic: gnuMagic },
    { name: 'big', body: 'x', uid: 2 ** 31, mtime: -5, magic: gnuMagic },
    { name: 't', body: 't', magic: gnuMagic, raw: [[345, '00000000012\x0000000000013\0']] },
    { name: 'p', body: 'p', magic: gnuMagic, raw: [[345, 'a/prefix']] },
  ]),
  tarBytes([
    {
      name: 's',
      type: 'gnuSparse',
      magic: gnuMagic,
      body: 'abcdefghij',
      raw: [
        [386, gnuEntry(0, 4) + gnuEntry(600, 6)],
        [483, '00000001274\0'],
      ],
    },
    {
      name: 'star',
      body: 's',
      raw: [
        [345, 'prefix'],
        [476, '00000000001\x0000000000002\0'],
        [508, 'tar\0'],
      ],
    },
    sparse('abcdefghij', '700', [
      ['GNU.sparse.numblocks', '2'],
      ['GNU.sparse.map', '3,4,600,6'],
    ]),
    sparse('abcd', '700', [
      ['GNU.sparse.numblocks', '1'],
      ['GNU.sparse.offset', '9'],
      ['GNU.sparse.numbytes', '4'],
    ]),
    sparse(`${'2\n5\n4\n600\n6\n'.padEnd(512, '\0')}abcdefghij`, '700', [
      ['GNU.sparse.major', '1'],
      ['GNU.sparse.minor', '0'],
      ['GNU.sparse.name', 'real'],
    ]),
  ]),
  tarBytes([
    { name: 'g', type: 'paxGlobal', body: paxRecord('comment', 'global') },
    { name: 'a', typeflag: 0, body: 'a' },
    { name: 'd/', typeflag: 0 },
    { name: '7', type: 'contiguous', body: '7' },
    { name: 'deep', raw: [[345, 'prefix/dir']], body: Buffer.alloc(512, 'q') },
  ]),
]

/** Numbers from 0 up to, not including, `below`. */
export type Random = (below: number) => number

/** A small generator of known quality, so that every run has the same mutants (mulberry32). */
export function random(seed: number): Random {
  let state = seed
  return below => {
    state = (state + 0x6d_2b_79_f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

/** One of them. */
export const pick = <T>(next: Random, values: readonly T[]): T =>
  values[next(values.length)] as T
const fields = [100, 108, 116, 124, 136, 329, 337, 345, 357, 386, 476, 483]
const texts = [
  '0',
  '7',
  '1',
  ' ',
  '\0',
  '9',
  'x',
  '-',
  '\x80',
  '\xff',
  ',',
  '\n',
  '=',
  '.',
  '/',
]
const flags = ['0', '1', '2', '3', '4', '5', '6', '7', 'S', 'x', 'g', 'L', 'K', '\0', 'Z', 'V']

/** An archive spoilt in one to three places, its checksums made right again, mostly. */
export function mutate(seed: Buffer, next: Random): Buffer {
  let bytes: Buffer = Buffer.from(seed)
  for (let edits = 1 + next(3); edits > 0; edits--) bytes = edit(bytes, next)
  if (next(12) > 0) repair(bytes)
  return bytes
}

function edit(bytes: Buffer, next: Random): Buffer {
  const blocks = Math.floor(bytes.length / 512)
  if (blocks === 0) return bytes
  const at = next(blocks) * 512
  const block = bytes.subarray(at, at + 512)
  switch (next(10)) {
    case 0: // a type
      block.write(pick(next, flags), 156, 'latin1')
      break
    case 1: // a size that fits what is there, or almost
      block.write(
        `${pick(next, [0, 1, 4, 512, 700, 1024, 1536]).toString(8).padStart(11, '0')}\0`,
        124,
      )
      break
    case 2: // a byte in a field
      block.write(pick(next, texts), pick(next, fields) + next(12), 'latin1')
      break
    case 3: // a byte early in a block, where records and names are
      block.write(pick(next, texts), next(80), 'latin1')
      break
    case 4: // a base-256 number
      block.writeUInt8(pick(next, [0x80, 0xff, 0xc0, 0xbf]), pick(next, fields))
      break
    case 5: // any byte
      block.writeUInt8(next(256), next(512))
      break
    case 6: // a block gone
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 512)])
    case 7: // a block twice
      return Buffer.concat([bytes.subarray(0, at), block, bytes.subarray(at)])
    case 8: // a block from elsewhere
      bytes.copy(bytes, at, next(blocks) * 512, next(blocks) * 512 + 512)
      break
    default: // the end gone
      return next(3) === 0 ? bytes.subarray(0, next(bytes.length)) : bytes
  }
  return bytes
}

function repair(bytes: Buffer): void {
  for (let at = 0; at + 512 <= bytes.length; at += 512) {
    const block = bytes.subarray(at, at + 512)
    const isHeader =
      block.toString('latin1', 257, 262) === 'ustar' ||
      block.toString('latin1', 154, 156) === '\0 '
    if (!isHeader) continue
    block.fill(' ', 148, 156)
    const sum = block.reduce((total, byte) => total + byte, 0)
    block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  }
}

function asGo(entry: Collected): GoMember {
  const { header } = entry
  const pair = ([name, value]: readonly [Buffer, Buffer]): [string, string] => [
    name.toString('base64'),
    value.toString('base64'),
  ]
  return {
    name: header.rawPath.toString('base64'),
    type: types[header.type],
    size: header.size,
    linkname: header.rawLinkname.toString('base64'),
    mode: header.mode,
    uid: header.uid,
    gid: header.gid,
    mtime: String(header.mtime),
    atime: String(header.atime ?? ''),
    devmajor: header.devmajor,
    devminor: header.devminor,
    // as Go writes a map
    xattrs: Object.fromEntries(
      header.xattrs.map(pair).sort(([one], [other]) => (one < other ? -1 : 1)),
    ),
    sha256: header.size > largest ? '' : sumOf(entry),
  }
}

/** Types that are one kind of entry to koci, entries that are none, and bodies too large to compare. */
export function normalized({ members }: GoResult): GoMember[] {
  return members
    .filter(member => member.type !== 'g')
    .map(member => ({
      ...member,
      type: member.type === '7' || member.type === 'S' ? '0' : member.type,
      sha256: member.size > largest ? '' : member.sha256,
    }))
}

/** Whether both took it, or neither, or koci refused what it refuses on purpose; and what is wrong, if anything is. */
export interface Verdict {
  readonly kind: 'both' | 'neither' | 'refused'
  readonly problem?: string
}

/** Whatever koci accepts, Go reads the same way. */
export function compareWithGo(ours: Outcome, go: GoResult): Verdict {
  if (ours.error) {
    if (go.error !== undefined) return { kind: 'neither' }
    const why = `${ours.error.code ?? ''} ${ours.error.message}`
    if (refused.some(known => why.includes(known))) return { kind: 'refused' }
    return { kind: 'refused', problem: `only koci refuses it: ${why}` }
  }
  if (go.error !== undefined) return { kind: 'both', problem: `Go refuses it: ${go.error}` }
  const one = ours.entries.map(asGo).map(member => JSON.stringify(member))
  const other = normalized(go).map(member => JSON.stringify(member))
  const at = one.findIndex((text, index) => text !== other[index])
  if (at < 0 && one.length === other.length) return { kind: 'both' }
  const index = at < 0 ? one.length : at
  const problem = `entry ${index}: koci reads ${one[index]}\nand Go ${other[index]}`
  return { kind: 'both', problem }
}
