import * as fc from 'fast-check'
import t from 'tap'
import { TarReader } from '../../../lib/layer/tar-reader.ts'
import { bodyOf, collectTar, type Outcome } from '../../support/collect-tar.ts'
import { paxRecord, tarBytes, type TarMember } from '../../support/tar-builder.ts'
import '../../support/seed.ts'

interface Case {
  name: string
  archive: Buffer
  /** `type name size`, or the code without its prefix. */
  expected: string[] | string
  warnings?: string[]
}

const zeros = (size: number): Buffer => Buffer.alloc(size)
const a: TarMember = { name: 'a', body: 'aaaa' }
const b: TarMember = { name: 'b', body: 'bb' }
const gnuMagic = 'ustar  \0'
const longName = (name: string | Buffer): TarMember => ({
  name: '././@LongLink',
  type: 'gnuLongName',
  body: name,
  magic: gnuMagic,
})
const longLink = (name: string): TarMember => ({ ...longName(name), type: 'gnuLongLink' })
const pax = (...records: Array<[string, string]>): TarMember => ({
  name: 'PaxHeaders/x',
  type: 'pax',
  body: Buffer.concat(records.map(([key, value]) => paxRecord(key, value))),
})
const global = (...records: Array<[string, string]>): TarMember => ({
  ...pax(...records),
  type: 'paxGlobal',
})
const members = (...list: TarMember[]): Buffer => tarBytes(list)
const open = (...list: TarMember[]): Buffer => tarBytes(list, { end: false })

type Asserts = Pick<typeof t, 'same'>

function summary({ entries, error }: Outcome): string[] | string {
  if (error) return (error.code ?? error.message).replace('ERR_KOCI_', '')
  return entries.map(
    ({ header }) => `${header.type} ${header.rawPath.toString('latin1')} ${header.size}`,
  )
}

function check(t: Asserts, cases: readonly Case[]): void {
  for (const { name, archive, expected, warnings } of cases) {
    const outcome = collectTar(archive)
    t.same(summary(outcome), expected, name)
    if (warnings) t.same(outcome.warnings, warnings, `${name}: warnings`)
    const pieces = collectTar(archive, [513, 1, 511])
    t.same(summary(pieces), summary(outcome), `${name}: the same in pieces`)
  }
}

await t.test('the matrix of what tar tools read differently', async t => {
  const inner = members({ name: 'smuggled', body: 'x' }).subarray(0, 1024)
  check(t, [
    { name: 'no end blocks', archive: open(a), expected: ['file a 4'] },
    {
      name: 'one zero block, then an entry',
      archive: Buffer.concat([open(a), zeros(512), members(b)]),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'two zero blocks, then entries: only what comes first counts',
      archive: Buffer.concat([members(a), members(b)]),
      expected: ['file a 4'],
      warnings: ['TRAILING_DATA'],
    },
    {
      name: 'garbage after the end',
      archive: Buffer.concat([members(a), Buffer.alloc(100, 'x')]),
      expected: ['file a 4'],
      warnings: ['TRAILING_DATA'],
    },
    {
      name: 'truncated inside a header',
      archive: Buffer.concat([open(a), open(b).subarray(0, 300)]),
      expected: 'BAD_ARCHIVE',
    },
    { name: 'truncated body', archive: members(a).subarray(0, 514), expected: 'BAD_ARCHIVE' },
    {
      name: 'truncated in the padding of the last entry',
      archive: members(a).subarray(0, 516),
      expected: ['file a 4'],
    },
    {
      name: 'bad checksum',
      archive: members({ ...a, checksum: '000001\0 ' }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'size -1 in base-256',
      archive: members({ ...a, size: -1 }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'size 2^63 - 1 in base-256',
      archive: members({ ...a, size: 2n ** 63n - 1n }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'octal junk in the size',
      archive: members({ ...a, raw: [[124, '0000000000x\0']] }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P01 pax size -1',
      archive: members({ ...a, pax: [['size', '-1']] }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P01 pax size 0 over 1024 in the header: the body is read as entries',
      archive: members({ name: 'a', body: inner, pax: [['size', '0']] }, b),
      expected: ['file a 0', 'file smuggled 1', 'file b 2'],
    },
    {
      name: 'P01 TARmageddon: pax size 1024 over 0 in the header',
      archive: members({ name: 'a', body: inner, size: 0, pax: [['size', '1024']] }, b),
      expected: ['file a 1024', 'file b 2'],
    },
    {
      name: 'P01 pax size 1024 over 512 in the header',
      archive: members({ name: 'a', body: inner, size: 512, pax: [['size', '1024']] }, b),
      expected: ['file a 1024', 'file b 2'],
    },
    {
      name: 'pax size is not for the GNU long name between it and the file',
      archive: members(
        pax(['size', '2048']),
        longName('long'),
        { name: 's', body: zeros(2048) },
        b,
      ),
      expected: ['file long 2048', 'file b 2'],
    },
    {
      name: 'GNU long name, then pax path: the GNU name wins',
      archive: members(longName('gnu'), pax(['path', 'pax']), a),
      expected: ['file gnu 4'],
    },
    {
      name: 'pax path, then GNU long name: the GNU name wins',
      archive: members(pax(['path', 'pax']), longName('gnu'), a),
      expected: ['file gnu 4'],
    },
    {
      name: 'of two pax headers only the last counts',
      archive: members(pax(['path', 'one'], ['size', '9']), pax(['mtime', '1']), a),
      expected: ['file a 4'],
    },
    {
      name: 'a global header with a path',
      archive: members(global(['path', 'x']), a),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'a global header with a size',
      archive: members(global(['size', '0']), a),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'a global header with a linkpath',
      archive: members(global(['linkpath', '']), a),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'a global header with anything else is ignored',
      archive: members(global(['comment', 'abc'], ['uid', '7'], ['mtime', '9']), a),
      expected: ['file a 4'],
      warnings: ['IGNORED_GLOBAL_HEADER'],
    },
    {
      name: 'a directory with a size has no body',
      archive: members({ name: 'd/', type: 'directory', body: inner }, b),
      expected: ['directory d/ 0', 'file smuggled 1', 'file b 2'],
      warnings: ['IGNORED_SIZE'],
    },
    {
      name: 'a symlink with a size has no body',
      archive: members({ name: 'l', type: 'symlink', linkname: 'a', body: inner }, b),
      expected: ['symlink l 0', 'file smuggled 1', 'file b 2'],
      warnings: ['IGNORED_SIZE'],
    },
    {
      name: 'a hard link with a size has no body',
      archive: members({ name: 'h', type: 'hardlink', linkname: 'a', size: 1024 }, b),
      expected: ['hardlink h 0', 'file b 2'],
      warnings: ['IGNORED_SIZE'],
    },
    {
      name: 'a fifo with a size has no body',
      archive: members({ name: 'p', type: 'fifo', body: inner }, b),
      expected: ['fifo p 0', 'file smuggled 1', 'file b 2'],
    },
    {
      name: 'unknown type Z',
      archive: members({ name: 'z', typeflag: 'Z', body: 'zz' }),
      expected: 'UNSUPPORTED_ENTRY',
    },
    {
      name: 'type 7 is a file',
      archive: members({ name: 'c', type: 'contiguous', body: 'cc' }),
      expected: ['file c 2'],
    },
    {
      name: 'type NUL with a trailing slash is a directory',
      archive: members({ name: 'd/', typeflag: 0 }),
      expected: ['directory d/ 0'],
    },
    {
      name: 'type NUL without one is a file',
      archive: members({ name: 'f', typeflag: 0, body: 'ff' }),
      expected: ['file f 2'],
    },
    {
      name: 'type 0 with a trailing slash and a body is a file',
      archive: members({ name: 'd/', body: 'dd' }),
      expected: ['file d/ 2'],
    },
    {
      name: 'NUL in a pax path',
      archive: members({ ...a, pax: [['path', 'vis\0hidden']] }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'a pax record with a bad length',
      archive: members({ ...a, rawPax: '11 path=evil\n' }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'a pax record without a newline',
      archive: members({ ...a, rawPax: '13 path=evil!' }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'a pax key like __proto__',
      archive: members({
        ...a,
        pax: [
          ['__proto__', 'x'],
          ['constructor', 'y'],
        ],
      }),
      expected: ['file a 4'],
    },
    {
      name: 'a newline in a pax path',
      archive: members({ ...a, pax: [['path', 'a\nb']] }),
      expected: ['file a\nb 4'],
    },
    {
      name: 'a name that is not UTF-8',
      archive: members({ ...a, name: Buffer.from('a\xff\xfe', 'latin1') }),
      expected: ['file a\xff\xfe 4'],
    },
    {
      name: 'an empty name is handed on: only whoever applies it knows that the root is a directory',
      archive: members({ ...a, name: '' }),
      expected: ['file  4'],
    },
    {
      name: 'a GNU long name of 64 MiB',
      archive: members({ ...longName('x'), size: 64 << 20 }, a),
      expected: 'LIMIT_EXCEEDED',
    },
    {
      name: 'v7 header without magic',
      archive: members({ ...a, magic: '\0\0\0\0\0\0\0\0' }),
      expected: ['file a 4'],
    },
    { name: 'only zero blocks', archive: zeros(10240), expected: [] },
    { name: 'nothing at all', archive: zeros(0), expected: [] },
    { name: '100 bytes of junk', archive: Buffer.alloc(100, 'x'), expected: 'BAD_ARCHIVE' },
    { name: '512 bytes of junk', archive: Buffer.alloc(512, 'x'), expected: 'BAD_ARCHIVE' },
  ])
})

await t.test('T: framing', async t => {
  const withChecksum = (edit: (sum: number) => string): Buffer => {
    const archive = members({ name: Buffer.from('\xe9', 'latin1'), body: 'x' })
    const sum = Number.parseInt(archive.toString('latin1', 148, 154), 8)
    archive.write(edit(sum), 148, 8, 'latin1')
    return archive
  }
  const octal = (sum: number): string => sum.toString(8).padStart(6, '0')
  const field = (at: number, bytes: string): Buffer => members({ ...a, raw: [[at, bytes]] })
  const prefix = (text: string): Array<[number, string]> => [[345, text]]
  check(t, [
    { name: 'T01 512 zero bytes', archive: zeros(512), expected: [] },
    { name: 'T01 1024 zero bytes', archive: zeros(1024), expected: [] },
    { name: 'T01 612 zero bytes', archive: zeros(612), expected: 'BAD_ARCHIVE' },
    {
      name: 'T03 signed checksum',
      archive: withChecksum(sum => `${octal(sum - 256)}\0 `),
      expected: ['file \xe9 1'],
    },
    {
      name: 'T03 checksum with spaces',
      archive: withChecksum(sum => `${sum.toString(8).padStart(7, ' ')} `),
      expected: ['file \xe9 1'],
    },
    {
      name: 'T03 checksum off by one',
      archive: withChecksum(sum => `${octal(sum + 1)}\0 `),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'T04 size with leading spaces',
      archive: field(124, '          4 '),
      expected: ['file a 4'],
    },
    {
      name: 'T04 size of 12 digits',
      archive: field(124, '000000000004'),
      expected: ['file a 4'],
    },
    {
      name: 'T04 size cut at a NUL within',
      archive: field(124, '4\x00009999 '),
      expected: ['file a 4'],
    },
    {
      name: 'T04 size with a space within',
      archive: field(124, '0004 0000000'),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'T04 size of 8 GiB in base-256, body missing',
      archive: members({ ...a, size: 2n ** 33n }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'T05 size 2^53',
      archive: members({ ...a, size: 2n ** 53n }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'T05 size 2^53 + 1',
      archive: members({ ...a, size: 2n ** 53n + 1n }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'T05 size 2^63',
      archive: members({ ...a, size: 2n ** 63n }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'T05 pax size 2^63',
      archive: members({ ...a, pax: [['size', '9223372036854775808']] }),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'T06 size of 1 TiB',
      archive: members({ ...a, size: 2n ** 40n }),
      expected: 'BAD_ARCHIVE',
    },
    ...([100, 108, 116, 136, 329, 337] as const).map(at => ({
      name: `T07 junk in the number field at ${at}`,
      archive: field(at, '00x'),
      expected: 'BAD_ARCHIVE',
    })),
    {
      name: 'T08 a single zero block within',
      archive: Buffer.concat([open(a), zeros(512), open(b)]),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'T09 zeros after the end',
      archive: Buffer.concat([members(a), zeros(200_000)]),
      expected: ['file a 4'],
      warnings: [],
    },
    {
      name: 'T13 an archive within a file',
      archive: members({ name: 'a.tar', body: members(a, b) }, b),
      expected: ['file a.tar 3072', 'file b 2'],
    },
    {
      name: 'T14 prefix and name of 255 bytes',
      archive: members({ ...a, name: 'n'.repeat(100), raw: prefix('p'.repeat(155)) }),
      expected: [`file ${'p'.repeat(155)}/${'n'.repeat(100)} 4`],
    },
    {
      name: 'T14 v7 has no prefix',
      archive: members({ ...a, magic: '\0\0\0\0\0\0\0\0', raw: prefix('ppp') }),
      expected: ['file a 4'],
    },
    {
      name: 'T14 GNU has times where ustar has the prefix',
      archive: members({ ...a, magic: gnuMagic, raw: prefix('00000000012\x0000000000013\0') }),
      expected: ['file a 4'],
    },
    {
      name: 'T14 GNU with a prefix, as old Go wrote it',
      archive: members({ ...a, magic: gnuMagic, raw: prefix('some/directory') }),
      expected: ['file some/directory/a 4'],
    },
    {
      name: 'T14 GNU with a prefix that is not ASCII',
      archive: members({
        ...a,
        magic: gnuMagic,
        raw: [[345, Buffer.from('dir\xe9', 'latin1')]],
      }),
      expected: ['file a 4'],
    },
    {
      name: 'T15 star: a shorter prefix',
      archive: members({
        ...a,
        raw: [
          [345, 'p'.repeat(131)],
          [476, '00000000001\x0000000000002\0'],
          [508, 'tar\0'],
        ],
      }),
      expected: [`file ${'p'.repeat(131)}/a 4`],
    },
    {
      name: 'T15 star with junk for a time',
      archive: members({
        ...a,
        raw: [
          [476, 'x'],
          [508, 'tar\0'],
        ],
      }),
      expected: 'BAD_ARCHIVE',
    },
    ...['V', 'M', 'D', 'N', 'X', 'A', 's', '8', ' '].map(typeflag => ({
      name: `T16 type ${typeflag}`,
      archive: members({ name: 'x', typeflag }),
      expected: 'UNSUPPORTED_ENTRY',
    })),
  ])
})

await t.test('T02 an archive cut anywhere is complete only where Go says so', async t => {
  const archive = members(
    a,
    { name: 'd/', type: 'directory' },
    { ...b, pax: [['path', 'long/b']] },
    longName('c'.repeat(200)),
    { name: 'c', body: zeros(512) },
  )
  const complete: number[] = []
  for (let length = 0; length <= archive.length; length++)
    if (!collectTar(archive.subarray(0, length)).error) complete.push(length)
  const range = (from: number, to: number): number[] =>
    Array.from({ length: to - from + 1 }, (_, index) => from + index)
  // a: 0-1024, d/: -1536, pax: -2048 -2560, b: -3072 -3584, L: -4096 -4608, c: -5120 -5632
  t.same(complete, [0, ...range(516, 1024), 1536, ...range(3074, 3584), 5632, 6144, 6656])
})

await t.test('T10 a second archive behind the first is not read', async t => {
  const outcome = collectTar(Buffer.concat([members(a), members(b)]))
  t.same(summary(outcome), ['file a 4'])
  t.same(outcome.warnings, ['TRAILING_DATA'])
})

await t.test('P: pax records and GNU extensions', async t => {
  const record = (...records: Array<[string, string]>): Buffer =>
    members({ ...a, pax: records })
  const raw = (text: string): Buffer => members({ ...a, rawPax: text })
  const many = Array.from({ length: 10_000 }, (_, index): [string, string] => [
    `K.${index}`,
    'v',
  ])
  check(t, [
    {
      name: 'P02 a pax size is for one entry',
      archive: members(pax(['size', '4']), a, b),
      expected: ['file a 4', 'file b 2'],
    },
    {
      name: 'P03 x, g, x: the last counts',
      archive: members(pax(['path', 'one']), global(['comment', 'c']), pax(['path', 'two']), a),
      expected: ['file two 4'],
    },
    {
      name: 'P03 what comes before a global header is forgotten, as Go does',
      archive: members(pax(['path', 'one']), longName('gnu'), global(['comment', 'c']), a),
      expected: ['file a 4'],
    },
    {
      name: 'P03 x at the end',
      archive: members(a, pax(['path', 'x'])),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P03 x at the end, no end blocks',
      archive: open(a, pax(['path', 'x'])),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P03 x at the end, its padding missing',
      archive: open(a, pax(['path', 'x'])).subarray(0, 1550),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P03 x before one zero block',
      archive: Buffer.concat([open(pax(['path', 'x'])), zeros(512)]),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P04 L, L: the last counts',
      archive: members(longName('one'), longName('two'), a),
      expected: ['file two 4'],
    },
    {
      name: 'P04 K, K, L',
      archive: members(longLink('one'), longLink('two'), longName('name'), {
        name: 's',
        type: 'symlink',
        linkname: 'x',
      }),
      expected: ['symlink name 0'],
    },
    { name: 'P04 L at the end', archive: members(a, longName('x')), expected: 'BAD_ARCHIVE' },
    { name: 'P04 K at the end', archive: members(a, longLink('x')), expected: 'BAD_ARCHIVE' },
    {
      name: 'P05 L without NUL',
      archive: members(longName('name'), a),
      expected: ['file name 4'],
    },
    {
      name: 'P05 L cut at its first NUL',
      archive: members(longName('name\0rest\0'), a),
      expected: ['file name 4'],
    },
    { name: 'P05 L empty', archive: members(longName(''), a), expected: 'BAD_ARCHIVE' },
    { name: 'P05 L only a NUL', archive: members(longName('\0'), a), expected: 'BAD_ARCHIVE' },
    { name: 'P06 length 0', archive: raw('0 a=b\n'), expected: 'BAD_ARCHIVE' },
    { name: 'P06 length 00', archive: raw('00 a=b\n'), expected: 'BAD_ARCHIVE' },
    { name: 'P06 negative length', archive: raw('-6 a=b\n'), expected: 'BAD_ARCHIVE' },
    { name: 'P06 length with a plus sign', archive: raw('+7 a=b\n'), expected: ['file a 4'] },
    {
      name: 'P06 length with leading zeros',
      archive: raw('0000016 path=bb\n'),
      expected: ['file bb 4'],
    },
    {
      name: 'P06 length 10^18',
      archive: raw('1000000000000000000 a=b\n'),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P06 length 10^30',
      archive: raw(`1${'0'.repeat(30)} a=b\n`),
      expected: 'BAD_ARCHIVE',
    },
    { name: 'P06 leading space', archive: raw(' 6 a=b\n'), expected: 'BAD_ARCHIVE' },
    {
      name: 'P06 length that is not decimal',
      archive: raw('0x6 a=b\n'),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P06 a record that overlaps the next',
      archive: raw('7 a=b\n6 c=d\n'),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P06 a record longer than the header',
      archive: raw('7 a=b\n'),
      expected: 'BAD_ARCHIVE',
    },
    { name: 'P06 no space', archive: raw('abcdef'), expected: 'BAD_ARCHIVE' },
    { name: 'P06 no equals sign', archive: raw('6 abc\n'), expected: 'BAD_ARCHIVE' },
    {
      name: 'P06 an equals sign only in the next record',
      archive: raw('6 abc\n6 a=b\n'),
      expected: 'BAD_ARCHIVE',
    },
    { name: 'P06 empty key', archive: raw('6 =ab\n'), expected: 'BAD_ARCHIVE' },
    {
      name: 'P06 zeros after the records',
      archive: raw('6 a=b\n\0\0'),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P06 equals sign in a value',
      archive: record(['path', 'a=b']),
      expected: ['file a=b 4'],
    },
    {
      name: 'P06 NUL in linkpath',
      archive: record(['linkpath', 'a\0']),
      expected: 'BAD_ARCHIVE',
    },
    { name: 'P06 NUL in uname', archive: record(['uname', 'a\0']), expected: 'BAD_ARCHIVE' },
    { name: 'P06 NUL in gname', archive: record(['gname', 'a\0']), expected: 'BAD_ARCHIVE' },
    {
      name: 'P06 NUL in an xattr key',
      archive: record(['SCHILY.xattr.a\0b', 'x']),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P06 NUL in any other value',
      archive: record(['comment', 'a\0b']),
      expected: ['file a 4'],
    },
    {
      name: 'P06 a path that looks like a number',
      archive: record(['path', '12345']),
      expected: ['file 12345 4'],
    },
    {
      name: 'P06 a path that looks like a literal',
      archive: record(['path', 'true']),
      expected: ['file true 4'],
    },
    {
      name: 'P07 10,000 records',
      archive: members({ ...a, pax: many }),
      expected: ['file a 4'],
    },
    {
      name: 'P07 a header of 1 MiB',
      archive: record(['comment', 'x'.repeat((1 << 20) - 17)]),
      expected: ['file a 4'],
    },
    {
      name: 'P07 a header beyond 1 MiB',
      archive: record(['comment', 'x'.repeat(1 << 20)]),
      expected: 'LIMIT_EXCEEDED',
    },
    ...[
      'abc',
      '1e9',
      '-',
      '+',
      '-9223372036854775809',
      '9'.repeat(100),
      '.5',
      '-.5',
      '1.5x',
      '1,5',
      '--1',
      '1.-5',
      ' 1',
      '9223372036854775808',
    ].map(mtime => ({
      name: `P08 mtime ${mtime}`,
      archive: record(['mtime', mtime]),
      expected: 'BAD_ARCHIVE',
    })),
    {
      name: 'P08 ctime is checked, too',
      archive: record(['ctime', 'x']),
      expected: 'BAD_ARCHIVE',
    },
    {
      name: 'P08 of equal keys the last counts, and it alone is read',
      archive: record(['mtime', 'x'], ['mtime', '1']),
      expected: ['file a 4'],
    },
    ...['-2', '4294967295', '4294967296', '9223372036854775807'].map(uid => ({
      name: `P09 uid ${uid}`,
      archive: record(['uid', uid]),
      expected: 'INVALID_ENTRY',
    })),
    {
      name: 'P09 uid 2^63',
      archive: record(['uid', '9223372036854775808']),
      expected: 'BAD_ARCHIVE',
    },
    { name: 'P09 gid 1.0', archive: record(['gid', '1.0']), expected: 'BAD_ARCHIVE' },
    {
      name: 'P09 uid -1 in base-256',
      archive: members({ ...a, uid: -1 }),
      expected: 'INVALID_ENTRY',
    },
    {
      name: 'P09 uid 2^32 - 1 in base-256',
      archive: members({ ...a, uid: 2 ** 32 - 1 }),
      expected: 'INVALID_ENTRY',
    },
    {
      name: 'P09 a pax uid goes before a bad one in the header',
      archive: members({ ...a, uid: -1, pax: [['uid', '5']] }),
      expected: ['file a 4'],
    },
    {
      name: 'P10 an empty path changes nothing',
      archive: record(['path', '']),
      expected: ['file a 4'],
    },
    {
      name: 'P11 a path that ends in a slash, type file',
      archive: record(['path', 'x/']),
      expected: ['file x/ 4'],
    },
    {
      name: 'P11 a path that ends in a slash, type NUL',
      archive: members({ name: 'a', typeflag: 0, pax: [['path', 'x/']] }),
      expected: ['directory x/ 0'],
    },
    {
      name: 'P12 SCHILY.realsize',
      archive: record(['SCHILY.realsize', '9999']),
      expected: ['file a 4'],
    },
    {
      name: 'P13 hdrcharset',
      archive: record(['hdrcharset', 'BINARY']),
      expected: ['file a 4'],
    },
    {
      name: 'P14 unknown keys',
      archive: record(['comment', 'x'], ['VENDOR.key', 'y']),
      expected: ['file a 4'],
    },
    {
      name: 'P15 attributes in the dialect of other tools',
      archive: record(['LIBARCHIVE.xattr.user.a', 'YQ=='], ['RHT.security.selinux', 'x']),
      expected: ['file a 4'],
      warnings: ['IGNORED_RECORD', 'IGNORED_RECORD'],
    },
    {
      name: 'P16 access control lists and flags as text',
      archive: record(['SCHILY.acl.access', 'user::rw-'], ['SCHILY.fflags', 'nodump']),
      expected: ['file a 4'],
      warnings: ['IGNORED_RECORD', 'IGNORED_RECORD'],
    },
    {
      name: 'P18 linkpath on a file',
      archive: record(['linkpath', 'x']),
      expected: ['file a 4'],
    },
    {
      name: 'P19 a pax path, then a GNU name: the GNU one counts, as Go has it',
      archive: members(pax(['path', 'pax']), longName('gnu'), a),
      expected: ['file gnu 4'],
    },
    {
      name: 'P19 a GNU name, then a pax path: the GNU one counts, as Go has it',
      archive: members(longName('gnu'), pax(['path', 'pax']), a),
      expected: ['file gnu 4'],
    },
    {
      name: 'P19 the same with the target of a link',
      archive: members(pax(['linkpath', 'pax'], ['path', 'p']), longLink('gnu'), {
        name: 's',
        type: 'symlink',
        linkname: 'x',
      }),
      expected: ['symlink p 0'],
    },
    {
      name: 'X01 a device number that does not exist',
      archive: members({ name: 'c', type: 'char', devmajor: 2 ** 40 }),
      expected: 'INVALID_ENTRY',
    },
    {
      name: 'X01 a negative device number',
      archive: members({ name: 'c', type: 'block', devminor: -1 }),
      expected: 'INVALID_ENTRY',
    },
    {
      name: 'X01 device numbers of other entries do not matter',
      archive: members({ ...a, devmajor: -1 }),
      expected: ['file a 4'],
    },
  ])
})

await t.test('fields are read as Go reads them', async t => {
  const one = (member: TarMember): Outcome['entries'][number]['header'] => {
    const { entries, error } = collectTar(members(member))
    if (error) throw error
    const [entry] = entries
    if (!entry) throw new Error('no entry')
    return entry.header
  }
  const times: Array<[text: string, ns: bigint]> = [
    ['0', 0n],
    ['1', 1_000_000_000n],
    ['1.', 1_000_000_000n],
    ['+1.5', 1_500_000_000n],
    ['-1.5', -1_500_000_000n],
    ['-0.5', -500_000_000n],
    ['1.000000001', 1_000_000_001n],
    ['1.0000000019999', 1_000_000_001n],
    ['-1.0000000019999', -1_000_000_001n],
    [`1.${'1'.repeat(30)}`, 1_111_111_111n],
    ['99999999999999', 99_999_999_999_999_000_000_000n],
    ['9223372036854775807', 9_223_372_036_854_775_807_000_000_000n],
    ['-9223372036854775808', -9_223_372_036_854_775_808_000_000_000n],
    ['9007199254740993.5', 9_007_199_254_740_993_500_000_000n],
    [`-${'0'.repeat(40)}1.25`, -1_250_000_000n],
  ]
  for (const [text, ns] of times) {
    t.equal(one({ pax: [['mtime', text]] }).mtime, ns, `mtime ${text}`)
    t.equal(one({ pax: [['atime', text]] }).atime, ns, `atime ${text}`)
  }
  t.equal(one({ pax: [['size', '-0']] }).size, 0, 'size -0')
  t.equal(one({ mtime: -5 }).mtime, -5_000_000_000n, 'negative mtime in base-256')
  t.equal(one({ mtime: 2n ** 40n }).mtime, 2n ** 40n * 1_000_000_000n, 'late mtime in base-256')
  t.equal(one({}).atime, undefined, 'no atime')
  t.equal(
    one({ magic: gnuMagic, raw: [[345, '00000000012\0']] }).atime,
    10_000_000_000n,
    'GNU atime',
  )
  t.equal(one({ mode: 0o177777 }).mode, 0o7777, 'type bits in the mode are dropped')
  t.equal(one({ mode: -1 }).mode, 0o7777, 'a negative mode in base-256')
  t.equal(one({ mode: 0 }).mode, 0)
  t.equal(one({ uid: 2 ** 32 - 2 }).uid, 2 ** 32 - 2, 'the largest uid, in base-256')
  t.equal(one({ pax: [['gid', '4294967294']] }).gid, 2 ** 32 - 2, 'the largest gid, in pax')
  const device = one({ type: 'char', devmajor: 4095, devminor: 1_048_575 })
  t.match(device, { type: 'char', devmajor: 4095, devminor: 1_048_575 })
  const link = one({ type: 'symlink', pax: [['linkpath', '../\xff']] })
  t.equal(link.rawLinkname.toString(), '../\xff')
  t.equal(one({ linkname: 'junk' }).rawLinkname.length, 0, 'a file has no link name')
  const value = Buffer.from([1, 0, 0xff, 0x0a, 0x3d])
  const { xattrs } = one({
    pax: [
      ['SCHILY.xattr.security.capability', value],
      ['SCHILY.xattr.user.empty', ''],
      ['SCHILY.xattr.user.twice', '1'],
      ['SCHILY.xattr.user.twice', '2'],
      [Buffer.from('SCHILY.xattr.user.\xff\xfe', 'latin1'), 'x'],
    ],
  })
  t.same(xattrs, [
    [Buffer.from('security.capability'), value],
    [Buffer.from('user.empty'), Buffer.alloc(0)],
    [Buffer.from('user.twice'), Buffer.from('2')],
    [Buffer.from('user.\xff\xfe', 'latin1'), Buffer.from('x')],
  ])
})

await t.test('sparse files are handed out as regions of data', async t => {
  const data = Buffer.from('0123456789'.repeat(60))
  const expand = (...regions: Array<[offset: number, length: number]>): Buffer => {
    const body = zeros(2000)
    let from = 0
    for (const [offset, length] of regions) from += data.copy(body, offset, from, from + length)
    return body
  }
  const entry = (offset: number, length: number): string =>
    `${offset.toString(8).padStart(11, '0')}\0${length.toString(8).padStart(11, '0')}\0`
  const gnu = (map: string, body: Buffer, extended = false, size = 2000): TarMember => ({
    name: 's',
    type: 'gnuSparse',
    magic: gnuMagic,
    body,
    raw: [
      [386, map],
      [482, extended ? '\x01' : '\0'],
      [483, `${size.toString(8).padStart(11, '0')}\0`],
    ],
  })
  const extension = (map: string, more: boolean): Buffer => {
    const block = zeros(512)
    block.write(map, 0, 'latin1')
    block[504] = more ? 1 : 0
    return block
  }
  const paxMap = (
    map: string,
    blocks: string,
    ...more: Array<[string, string]>
  ): TarMember => ({
    name: 's',
    body: data.subarray(0, 10),
    pax: [
      ['GNU.sparse.size', '2000'],
      ['GNU.sparse.numblocks', blocks],
      ['GNU.sparse.map', map],
      ...more,
    ],
  })
  const version1 = (
    text: string,
    body: Buffer,
    ...more: Array<[string, string]>
  ): TarMember => {
    const map = zeros(Math.ceil(text.length / 512) * 512)
    map.write(text)
    return {
      name: 's',
      body: Buffer.concat([map, body]),
      pax: [
        ['GNU.sparse.major', '1'],
        ['GNU.sparse.minor', '0'],
        ['GNU.sparse.name', 'real'],
        ['GNU.sparse.realsize', '2000'],
        ...more,
      ],
    }
  }
  const ten = data.subarray(0, 10)
  const ranges = (count: number): Array<[number, number]> =>
    Array.from({ length: count }, (_, index) => [index * 20, 2])
  const good: Array<[name: string, archive: Buffer, body: Buffer, path?: string]> = [
    ['GNU, one region', members(gnu(entry(100, 10), ten), b), expand([100, 10])],
    ['GNU, no region', members(gnu('', zeros(0)), b), zeros(2000)],
    ['GNU, only an empty region', members(gnu(entry(2000, 0), zeros(0)), b), zeros(2000)],
    [
      'GNU, empty regions between',
      members(gnu(entry(5, 0) + entry(7, 4) + entry(11, 0) + entry(100, 6), ten), b),
      expand([7, 4], [100, 6]),
    ],
    ['pax 0.1', members(paxMap('0,5,1995,5', '2'), b), expand([0, 5], [1995, 5])],
    [
      'pax 0.0',
      members(
        {
          name: 's',
          body: ten,
          pax: [
            ['GNU.sparse.size', '2000'],
            ['GNU.sparse.numblocks', '2'],
            ['GNU.sparse.offset', '3'],
            ['GNU.sparse.numbytes', '4'],
            ['GNU.sparse.offset', '8'],
            ['GNU.sparse.numbytes', '6'],
          ],
        },
        b,
      ),
      expand([3, 4], [8, 6]),
    ],
    ['pax 1.0', members(version1('1\n100\n10\n', ten), b), expand([100, 10]), 'real'],
    ['pax 1.0, empty map', members(version1('0\n', zeros(0)), b), zeros(2000), 'real'],
    [
      'pax 1.0, a map of several blocks',
      members(
        version1(
          `90\n${ranges(90)
            .map(([o, l]) => `${o}\n${l}\n`)
            .join('')}`,
          data.subarray(0, 180),
        ),
        b,
      ),
      expand(...ranges(90)),
      'real',
    ],
    [
      'pax 1.0 with a pax size over a wrong one in the header',
      members({ ...version1('1\n100\n10\n', ten, ['size', '522']), size: 7 }, b),
      expand([100, 10]),
      'real',
    ],
    [
      'P12 keys of 0.0 beside those of 1.0',
      members(
        version1(
          '1\n100\n10\n',
          ten,
          ['GNU.sparse.offset', '7'],
          ['GNU.sparse.numbytes', '3'],
          ['GNU.sparse.numblocks', '1'],
        ),
        b,
      ),
      expand([100, 10]),
      'real',
    ],
    [
      'the name of a sparse entry goes before a GNU long name',
      members(longName('gnu'), version1('1\n100\n10\n', ten), b),
      expand([100, 10]),
      'real',
    ],
  ]
  for (const [name, archive, body, path = 's'] of good) {
    for (const sizes of [undefined, [1], [511], [513], [7, 600]]) {
      const { entries, error } = collectTar(archive, sizes)
      t.equal(error, undefined, name)
      const [sparse, next] = entries
      if (!sparse || !next) throw new Error(`${name}: entries are missing`)
      t.match(sparse.header, { type: 'file', sparse: true, size: 2000 }, name)
      t.equal(sparse.header.rawPath.toString(), path, name)
      t.ok(bodyOf(sparse).equals(body), `${name}: body`)
      t.equal(next.header.rawPath.toString(), 'b', `${name}: what comes next`)
    }
  }

  const extended = (count: number): Buffer => {
    const all = ranges(count).map(r => entry(...r))
    const blocks: Buffer[] = []
    for (let from = 4; from < count; from += 21)
      blocks.push(extension(all.slice(from, from + 21).join(''), from + 21 < count))
    const body = data.subarray(0, count * 2)
    const member = open(gnu(all.slice(0, 4).join(''), body, count > 4))
    return Buffer.concat([member.subarray(0, 512), ...blocks, member.subarray(512), members(b)])
  }
  for (const count of [1, 4, 5, 25, 26, 90]) {
    const { entries, error } = collectTar(extended(count), [300])
    t.equal(error, undefined)
    const [sparse, next] = entries
    if (!sparse || !next) throw new Error('entries are missing')
    t.ok(bodyOf(sparse).equals(expand(...ranges(count))), `GNU, ${count} regions`)
    t.equal(next.header.rawPath.toString(), 'b')
  }

  const bad: Array<[name: string, archive: Buffer, code?: string]> = [
    ['regions that overlap', members(paxMap('0,6,5,4', '2'))],
    ['regions out of order', members(paxMap('10,5,0,5', '2'))],
    ['a negative offset', members(paxMap('-1,10', '1'))],
    ['a negative length', members(paxMap('0,-1,5,11', '2'))],
    ['a region beyond the size', members(paxMap('1995,10', '1'))],
    ['an offset that overflows', members(paxMap('9223372036854775807,10', '1'))],
    ['an offset beyond 64 bits', members(paxMap('9223372036854775808,10', '1'))],
    ['something that is not a number', members(paxMap('x,10', '1'))],
    ['more entries than said', members(paxMap('0,5,10,5', '1'))],
    ['fewer entries than said', members(paxMap('0,10', '2'))],
    ['half an entry', members(paxMap('0,10,20', '1'))],
    ['no count', members({ name: 's', pax: [['GNU.sparse.map', '0,10']] })],
    ['more data than regions', members(paxMap('0,5', '1'))],
    ['less data than regions', members(paxMap('0,20', '1'))],
    ['a negative size', members(paxMap('0,10', '1', ['GNU.sparse.size', '-1']))],
    [
      'a size beyond 2^53',
      members(paxMap('0,10', '1', ['GNU.sparse.size', '9007199254740993'])),
    ],
    ['a size that is not a number', members(paxMap('0,10', '1', ['GNU.sparse.size', 'x']))],
    ['a NUL in its name', members(paxMap('0,10', '1', ['GNU.sparse.name', 'a\0b']))],
    ['1.0 without a count', members(version1('\n1\n2\n', ten))],
    ['1.0 with a negative count', members(version1('-1\n', ten))],
    ['1.0 with a count of 2^62', members(version1('4611686018427387904\n', ten))],
    ['1.0 with a map that runs out of its body', members(version1('50\n1\n1\n', zeros(0)))],
    ['1.0 with a body of less than a block', members({ ...version1('', ten), body: ten })],
    [
      '1.0 with an endless map',
      members(version1('0'.repeat(2 << 20), zeros(0))),
      'LIMIT_EXCEEDED',
    ],
    [
      '0.0 with its records out of order',
      members({
        name: 's',
        pax: [
          ['GNU.sparse.numbytes', '4'],
          ['GNU.sparse.offset', '4'],
        ],
      }),
    ],
    [
      '0.0 with a comma in a record',
      members({
        name: 's',
        pax: [
          ['GNU.sparse.offset', '4,5'],
          ['GNU.sparse.numbytes', '4'],
        ],
      }),
    ],
    ['a sparse directory', members({ ...paxMap('0,10', '1'), type: 'directory', name: 's/' })],
    ['type S in an ustar header', members({ ...gnu(entry(0, 10), ten), magic: 'ustar\x0000' })],
    ['GNU with junk for a size', members({ ...gnu('', zeros(0)), raw: [[483, 'x']] })],
    ['GNU with junk in its map', members(gnu('x', zeros(0)))],
    ['GNU without its extension', open(gnu(entry(0, 10), ten, true)).subarray(0, 512)],
    [
      'GNU with endless extensions',
      Buffer.concat([
        open(gnu('', zeros(0), true)),
        ...Array.from({ length: 2050 }, () => extension('', true)),
      ]),
      'LIMIT_EXCEEDED',
    ],
  ]
  for (const [name, archive, code = 'BAD_ARCHIVE'] of bad)
    t.equal(collectTar(archive).error?.code, `ERR_KOCI_${code}`, name)
})

await t.test('P12 a sparse version that nobody knows is no sparse file', async t => {
  for (const version of [
    [['GNU.sparse.major', '1']],
    [['GNU.sparse.minor', '0']],
    [
      ['GNU.sparse.major', '2'],
      ['GNU.sparse.minor', '0'],
    ],
  ] as Array<Array<[string, string]>>) {
    const more: Array<[string, string]> = [
      ['GNU.sparse.name', 'real'],
      ['GNU.sparse.realsize', '2000'],
      ['GNU.sparse.map', '0,4'],
    ]
    const outcome = collectTar(members({ ...a, pax: [...version, ...more] }, b))
    t.same(summary(outcome), ['file a 4', 'file b 2'])
    t.equal(outcome.entries[0]?.header.sparse, false)
  }
})

await t.test('a sparse file of 1 TiB costs nothing to read', async t => {
  const { entries, error } = collectTar(
    members({
      name: 's',
      body: 'x',
      pax: [
        ['GNU.sparse.size', String(2 ** 40)],
        ['GNU.sparse.numblocks', '1'],
        ['GNU.sparse.map', `${2 ** 40 - 1},1`],
      ],
    }),
  )
  t.equal(error, undefined)
  t.equal(entries[0]?.header.size, 2 ** 40)
  t.equal(entries[0]?.pieces[0]?.offset, 2 ** 40 - 1)
})

await t.test('T11 how an archive is cut into pieces does not matter', async t => {
  const archive = members(
    a,
    {
      ...b,
      pax: [
        ['path', 'é'.repeat(300)],
        ['SCHILY.xattr.user.x', 'y'],
      ],
    },
    longName('c'.repeat(600)),
    { name: 'c', body: Buffer.alloc(1500, 'c') },
    { name: 'd/', type: 'directory' },
    { name: 'e', type: 'hardlink', linkname: 'a' },
  )
  const plain = (sizes?: number[]): unknown => {
    const { entries, error } = collectTar(archive, sizes)
    if (error) throw error
    return entries.map(entry => ({ header: entry.header, body: bodyOf(entry).toString() }))
  }
  const expected = plain()
  for (const size of [1, 2, 511, 512, 513, 1024, 65_536])
    t.same(plain([size]), expected, `pieces of ${size}`)
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 1600 }), { minLength: 1 }), sizes => {
      t.same(plain(sizes), expected)
    }),
    { numRuns: 50 },
  )
})

await t.test('P17 a global header, then a hundred thousand entries', async t => {
  let warnings = 0
  let entries = 0
  const warn = (): number => warnings++
  const reader = new TarReader({ entry: () => entries++, data() {}, endEntry() {}, warn })
  reader.push(open(global(['comment', 'c'])))
  reader.push(Buffer.alloc(100_000 * 512, open({ name: 'e' })))
  reader.end()
  t.strictSame([entries, warnings], [100_000, 1])
})

await t.test('T12 many empty entries need no memory', async t => {
  const block = open({ name: 'x' })
  const chunk = Buffer.concat(Array.from({ length: 1000 }, () => block))
  let entries = 0
  const reader = new TarReader({ entry: () => entries++, data() {}, endEntry() {} })
  for (let round = 0; round < 1000; round++) reader.push(chunk)
  reader.end()
  t.equal(entries, 1_000_000)
  t.ok(process.memoryUsage().heapUsed < 200 << 20)
})

await t.test('bodies are slices of what was pushed, not copies', async t => {
  const archive = members({ name: 'a', body: Buffer.alloc(100_000, 'x') })
  let inside = true
  const reader = new TarReader({
    entry() {},
    data: chunk => {
      inside &&= chunk.buffer === archive.buffer
    },
    endEntry() {},
  })
  reader.push(archive)
  reader.end()
  t.ok(inside)
})

await t.test('after an error every call throws the same', async t => {
  const reader = new TarReader({ entry() {}, data() {}, endEntry() {} })
  const thrown = (work: () => void): unknown => {
    try {
      work()
    } catch (error) {
      return error
    }
    return undefined
  }
  const first = thrown(() => reader.push(Buffer.alloc(512, 'x')))
  t.match(first, { code: 'ERR_KOCI_BAD_ARCHIVE', message: /^archive: .* byte 0: bad header/ })
  t.equal(
    thrown(() => reader.push(members(a))),
    first,
  )
  t.equal(
    thrown(() => reader.end()),
    first,
  )
})

await t.test("a handler's error stops the reader for good", async t => {
  const error = new Error('no space')
  let entries = 0
  const reader = new TarReader({
    entry() {
      entries++
      throw error
    },
    data() {},
    endEntry() {},
  })
  t.throws(() => reader.push(members(a, b)), error)
  t.throws(() => reader.push(members(b)), error)
  t.throws(() => reader.end(), error)
  t.equal(entries, 1)
})

await t.test('it counts the bytes it has taken, and names the place of an error', async t => {
  const reader = new TarReader(
    { entry() {}, data() {}, endEntry() {} },
    { subject: 'sha256:x' },
  )
  reader.push(members(a).subarray(0, 700))
  t.equal(reader.offset, 700)
  reader.push(zeros(500))
  t.equal(reader.offset, 1200)
  t.throws(() => reader.push(Buffer.alloc(512, 'x')), {
    code: 'ERR_KOCI_BAD_ARCHIVE',
    message: /^sha256:x: malformed tar archive at byte 1024/,
  })
})

await t.test('nothing can be pushed after the end', async t => {
  const reader = new TarReader({ entry() {}, data() {}, endEntry() {} })
  reader.push(members(a))
  reader.end()
  reader.end()
  t.throws(() => reader.push(members(a)), { code: 'ERR_KOCI_CONSUMED' })
})

await t.test('what is not tar is said to be what it looks like', async t => {
  const block = Buffer.alloc(512, 'x')
  block.writeUInt32BE(0x28b52ffd)
  t.match(collectTar(block).error?.message, /bad header checksum - it looks like zstd$/)
  const damaged = members({ ...a, checksum: '000001\0 ' })
  t.match(collectTar(damaged).error?.message, /bad header checksum$/)
})

await t.test('errors about an entry name it', async t => {
  const { error } = collectTar(members({ name: 'etc/x\x1b', pax: [['uid', '-1']] }))
  t.equal(error?.message, 'test: etc/x\\x1b: invalid layer entry: its uid -1 is out of range')
  t.match(collectTar(members({ name: 'x', typeflag: 'Z' })).error?.message, /of type "Z"/)
  const endless = members(longName('n'.repeat(1 << 20)), { name: 'x', typeflag: 'Z' })
  t.ok((collectTar(endless).error?.message.length ?? 0) < 5000, 'but not a name without end')
})
