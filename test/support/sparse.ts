// Sparse files in the four forms that tar has for them.
import type { TarMember } from './tar-builder.ts'

/** Where data lies, and what. */
export type Region = readonly [offset: number, data: string]

const octal = (value: number): string => `${value.toString(8).padStart(11, '0')}\0`
const bodyOf = (regions: readonly Region[]): string => regions.map(([, data]) => data).join('')

/** The old GNU form: four regions in the header, 21 in each block behind it. */
export function gnuSparse(name: string, size: number, regions: readonly Region[]): TarMember {
  const entries = regions.map(([offset, data]) => octal(offset) + octal(data.length))
  const blocks: Buffer[] = []
  for (let at = 4; at < entries.length; at += 21) {
    const block = Buffer.alloc(512)
    block.write(entries.slice(at, at + 21).join(''), 0, 'latin1')
    block[504] = at + 21 < entries.length ? 1 : 0
    blocks.push(block)
  }
  const body = bodyOf(regions)
  const padding = -body.length & 511
  return {
    name,
    type: 'gnuSparse',
    magic: 'ustar  \0',
    size: body.length,
    // the extension blocks aren't part of what the size counts
    body: Buffer.concat([...blocks, Buffer.from(body), Buffer.alloc(padding)]),
    raw: [
      [386, entries.slice(0, 4).join('')],
      [482, entries.length > 4 ? '\x01' : '\0'],
      // base-256, for sizes that octal can't hold
      [483, wide(size)],
    ],
  }
}

/** The pax forms 0.0 (a record per number) and 0.1 (one record for all). */
export function paxSparse(
  version: '0.0' | '0.1',
  name: string,
  size: number,
  regions: readonly Region[],
): TarMember {
  const numbers = regions.flatMap(([offset, data]) => [offset, data.length])
  const map = numbers.map((number, index): [string, string] => [
    index % 2 === 0 ? 'GNU.sparse.offset' : 'GNU.sparse.numbytes',
    String(number),
  ])
  return {
    name,
    body: bodyOf(regions),
    pax: [
      ['GNU.sparse.size', String(size)],
      ['GNU.sparse.numblocks', String(regions.length)],
      ...(version === '0.0' ? map : [['GNU.sparse.map', numbers.join(',')] as const]),
    ],
  }
}

/** The pax form 1.0: the map is the beginning of the body. */
export function paxSparse1(name: string, size: number, regions: readonly Region[]): TarMember {
  const lines = [
    regions.length,
    ...regions.flatMap(([offset, data]) => [offset, data.length]),
    '',
  ]
  const text = lines.join('\n')
  return {
    name: `GNUSparseFile.0/${name}`,
    body: text.padEnd(text.length + (-text.length & 511), '\0') + bodyOf(regions),
    pax: [
      ['GNU.sparse.major', '1'],
      ['GNU.sparse.minor', '0'],
      ['GNU.sparse.name', name],
      ['GNU.sparse.realsize', String(size)],
    ],
  }
}

function wide(value: number): Buffer {
  const bytes = Buffer.alloc(12)
  bytes.writeBigUInt64BE(BigInt(value), 4)
  bytes[0] = 0x80
  return bytes
}
