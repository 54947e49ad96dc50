// What went wrong in libraries that read and write tar, each advisory as a case of its own: its number, what it did
// there, and what becomes of it here. Those that other tests try are named with the test.
import { lstatSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { described } from '../support/described.ts'
import { expectElsewhere } from '../support/elsewhere.ts'
import { hostile, isRoot, type Chain, type HostileCase } from '../support/hostile.ts'
import { dir, fifo, file, hard, link } from '../support/members.ts'
import { gnuSparse, paxSparse1 } from '../support/sparse.ts'
import { paxRecord, tarBytes, xattrRecord, type TarMember } from '../support/tar-builder.ts'

// far more than it takes, but tests run beside each other
t.setTimeout(900_000)

const mebi = 2 ** 20
const acl = Buffer.from(
  '02000000 01000700ffffffff 02000700e8030000 04000500ffffffff 10000500ffffffff 20000500ffffffff'.replaceAll(
    ' ',
    '',
  ),
  'hex',
)
/** Nothing bounds it. */
const bare: Chain[] = [{ name: 'bare', make: () => new Koci() }]
/** A header with its body that a reader which has lost its place takes for a member. */
const smuggled = tarBytes([file('smuggled', 'x')], { end: false })
const pax = (...records: Array<readonly [string, string]>): TarMember => ({
  type: 'pax',
  name: 'PaxHeaders/x',
  body: Buffer.concat(records.map(([key, value]) => paxRecord(key, value))),
})
const long = (
  type: 'gnuLongName' | 'gnuLongLink',
  name: string,
  rest?: TarMember,
): TarMember => ({
  type,
  name: '././@LongLink',
  body: `${name}\0`,
  ...rest,
})

const nodeTar: HostileCase[] = [
  {
    id: 'CVE-2018-20834, CVE-2018-20835, CVE-2018-20990 (node-tar, tar-fs, tar-rs)',
    what: 'a file is written over a hard link, and so into what it links to: outside',
    layers: [[hard('h', '../../canary/file'), file('h', 'pwned')]],
    rejects: 'PATH_ESCAPE',
    kept: [],
  },
  {
    id: 'CVE-2018-20834, CVE-2018-20835, CVE-2018-20990 (node-tar, tar-fs, tar-rs)',
    what: 'a file is written over a hard link, and so into what it links to: inside',
    layers: [[file('a', 'old'), hard('h', 'a'), file('h', 'new', { mode: 0o777 })]],
    tree: ['a file old', 'h file new'],
  },
  {
    id: 'CVE-2021-32803 (node-tar), CVE-2021-38511 (tar-rs)',
    what: 'a directory is known to be one, and is a link by now',
    layers: [[dir('x'), link('x', '../../canary'), file('x/file', 'f'), dir('x/new')]],
    tree: ['canary dir', 'canary/file file f', 'canary/new dir', 'x link -> ../../canary'],
  },
  {
    id: 'CVE-2021-32804 (node-tar)',
    what: 'only one slash is stripped',
    layers: ({ canary }) => [[file(`/////${canary}/file`, 'mine'), dir('//'), dir('/././z')]],
    tree: ['@base/canary dir', '@base/canary/file file mine', 'z dir'],
  },
  {
    id: 'CVE-2021-32804 (node-tar)',
    what: 'what is behind the slashes climbs',
    layers: [[file('/./..//../canary/file', 'x')]],
    rejects: 'PATH_ESCAPE',
  },
  {
    id: 'CVE-2021-37701 (node-tar)',
    what: 'backslashes are slashes to one and not to another',
    layers: [
      [dir('a\\'), link('a', '../../canary'), file('a\\/file', 'x'), file('a\\file', 'y')],
    ],
    tree: [
      String.raw`a link -> ../../canary`,
      String.raw`a\ dir`,
      String.raw`a\/file file x`,
      String.raw`a\file file y`,
    ],
  },
  {
    id: 'CVE-2021-37712, CVE-2026-23950 (node-tar)',
    what: 'names are the same when they are normalised or folded',
    layers: [
      [
        dir('\u00e9'),
        link('e\u0301', '../../canary'),
        file('\u00e9/file', 'x'),
        dir('\u00df'),
        link('ss', '../../canary'),
        file('\u00df/file', 'y'),
        link('SS', '../../canary'),
      ],
    ],
    tree: [
      'SS link -> ../../canary',
      'e\u0301 link -> ../../canary',
      'ss link -> ../../canary',
      '\u00df dir',
      '\u00df/file file y',
      '\u00e9 dir',
      '\u00e9/file file x',
    ],
  },
  {
    id: 'CVE-2024-28863 (node-tar)',
    what: 'a path of a hundred thousand directories',
    layers: [[file('x'), dir('d/'.repeat(100_000))]],
    rejects: 'LIMIT_EXCEEDED',
    says: 'number of components of a path',
    kept: ['x file'],
  },
  ...(
    [
      ['CVE-2026-23745 (node-tar)', 'an absolute path', 'h', ({ canary }) => `${canary}/file`],
      ['CVE-2026-39243 (decompress)', 'a climbing path', 'h', () => '../../canary/file'],
      ['CVE-2026-24842 (node-tar)', 'a path from its own directory', 'sub/h', () => '../x'],
      ['CVE-2025-59343 (tar-fs)', 'a neighbour', 'h', () => '../rootfs-evil/file'],
    ] as Array<[string, string, string, (place: { canary: string }) => string]>
  ).map(([id, what, name, target]): HostileCase => ({
    id,
    what: `a hard link to ${what}`,
    layers: place => [[file('x'), hard(name, target(place))]],
    rejects: what.startsWith('an absolute') ? 'INVALID_ENTRY' : 'PATH_ESCAPE',
    kept: [...(name.startsWith('sub/') ? ['sub dir'] : []), 'x file'],
  })),
  {
    id: 'CVE-2026-26960 (node-tar)',
    what: 'a hard link’s target is behind a link of the archive',
    layers: ({ canary }) => [[link('l', canary), hard('h', 'l/file')]],
    rejects: 'INVALID_ENTRY',
    says: 'the target does not exist',
  },
  {
    id: 'CVE-2026-29786, CVE-2026-31802 (node-tar)',
    what: 'paths of another system are names here',
    layers: [
      [
        file('C:../x'),
        file('C:/y'),
        file('\\\\host\\share\\z'),
        file('d\\..\\..\\..\\canary\\file'),
        link('c:', 'C:..\\..'),
        file('nul:'),
      ],
    ],
    tree: [
      'C: dir',
      'C:/y file',
      'C:.. dir',
      'C:../x file',
      String.raw`\\host\share\z file`,
      String.raw`c: link -> C:..\..`,
      String.raw`d\..\..\..\canary\file file`,
      'nul: file',
    ],
  },
  {
    id: 'CVE-2026-53655 (node-tar)',
    what: 'the size of a pax header is taken for that of the long name behind it',
    layers: [
      tarBytes([
        pax(['size', '2048']),
        long('gnuLongName', 'the-name'),
        { name: 'short', body: Buffer.concat([smuggled, smuggled]), size: 7 },
        file('after', 'x'),
      ]),
    ],
    tree: ['after file x', 'the-name file 2048 771314d142c4fc44'],
  },
  ...(
    [
      ['path', file('a', '', { pax: [['path', 'vis\0hidden']] })],
      ['linkpath', link('a', 'x', { pax: [['linkpath', 'b\0c']] })],
      ['uname', file('a', '', { pax: [['uname', 'b\0c']] })],
      ['xattr', file('a', '', { pax: [['SCHILY.xattr.user.a\0b', 'v']] })],
      ['key', file('a', '', { pax: [['a\0b', 'v']] })],
    ] as Array<[string, TarMember]>
  ).map(([what, member]): HostileCase => ({
    id: 'GHSA-gvwx-54wh-qm9j (node-tar)',
    what: `NUL in a ${what} ends the program`,
    layers: [[file('x'), member]],
    rejects: 'BAD_ARCHIVE',
    kept: ['x file'],
  })),
  {
    id: 'GHSA-w8wr-v893-vjvp (node-tar)',
    what: 'names that look like something else end the program',
    layers: [
      ['12345', '1e5', 'true', 'null', '__proto__', 'constructor', 'NaN', '-0'].map(name =>
        file('short', 'x', { pax: [['path', name]] }),
      ),
      ['__proto__', 'constructor/__proto__', '1e5'].map(name =>
        dir('short', { pax: [['path', name]] }),
      ),
    ],
    tree: [
      '-0 file x',
      '12345 file x',
      '1e5 dir',
      'NaN file x',
      '__proto__ dir',
      'constructor dir',
      'constructor/__proto__ dir',
      'null file x',
      'true file x',
    ],
  },
  ...(
    [
      ['-1, base-256', file('a', '', { size: -1 })],
      ['-2^62, base-256', file('a', '', { size: -(2n ** 62n) })],
      ['-1, in pax', file('a', '', { pax: [['size', '-1']] })],
      ['-512, in octal', file('a', '', { raw: [[124, '-0000001000\0']] })],
      ['-9223372036854775808, in pax', file('a', '', { pax: [['size', `${-(2n ** 63n)}`]] })],
    ] as Array<[string, TarMember]>
  ).map(([what, member]): HostileCase => ({
    id: 'GHSA-8x88-c5mf-7j5w (node-tar)',
    what: `a size of ${what}, never ends`,
    layers: [[file('x'), member]],
    rejects: 'BAD_ARCHIVE',
    kept: ['x file'],
  })),
  {
    id: 'CVE-2026-59873 (node-tar)',
    what: 'ten GiB in ten MB',
    layers: [[file('zeros', Buffer.alloc(150 * mebi))]],
    split: false,
    direct: false,
    rejects: 'LIMIT_EXCEEDED',
  },
  {
    id: 'CVE-2026-59873 (node-tar)',
    what: 'whoever wants no bound has none',
    layers: [[file('zeros', Buffer.alloc(80 * mebi))]],
    split: false,
    direct: false,
    chains: bare,
    inspect: (t, { place }) =>
      void t.equal(lstatSync(path.join(place.rootfs, 'zeros')).size, 80 * mebi),
  },
  {
    id: 'node-tar 631ae59',
    what: 'what is deep is recursed into: made, replaced, hidden',
    layers: [
      [file(`${'a/'.repeat(4000)}x`), file(`b/${'a/'.repeat(4000)}x`), dir('c/'.repeat(4000))],
      [file('a', 'new'), file('.wh.b'), file('c/.wh..wh..opq')],
    ],
    tree: ['a file new', 'c dir'],
  },
]

const others: HostileCase[] = [
  {
    id: 'CVE-2024-12905, CVE-2025-48387 (tar-fs)',
    what: 'links that are harmless one by one lead out together',
    layers: [
      [
        link('a', '.'),
        link('a/b', '..'),
        link('a/b/c', 'b/..'),
        link('d', 'a/b/c/../canary'),
        file('d/file', 'mine'),
        hard('h', 'd/../canary/file'),
      ],
    ],
    tree: [
      'a link -> .',
      'b link -> ..',
      'c link -> b/..',
      'canary dir',
      'canary/file file mine',
      'd link -> a/b/c/../canary',
      'h file mine =canary/file',
    ],
  },
  {
    id: 'CVE-2025-59343 (tar-fs)',
    what: 'a neighbour’s path begins like the root’s',
    layers: ({ evil }) => [[link('e', evil), link('f', '../rootfs-evil'), file('f/file', 'x')]],
    tree: [
      'e link -> /@base/bundle/rootfs-evil',
      'f link -> ../rootfs-evil',
      'rootfs-evil dir',
      'rootfs-evil/file file x',
    ],
  },
  {
    id: 'CVE-2025-59343 (tar-fs)',
    what: 'a neighbour’s name',
    layers: [[file('../rootfs-evil/file', 'x')]],
    rejects: 'PATH_ESCAPE',
  },
  {
    id: 'CVE-2025-62518 (tokio-tar, TARmageddon)',
    what: 'pax says how long a body is, the header says it is empty, and the body is an archive',
    layers: [
      tarBytes([
        { name: 'a', pax: [['size', '1024']], body: smuggled, size: 0 },
        file('b', 'x'),
      ]),
    ],
    tree: ['a file 1024 0595736ad8efd60d', 'b file x'],
  },
  {
    id: 'CVE-2026-33055 (tar-rs)',
    what: 'pax says how long a body is, and the header says something else',
    layers: [
      tarBytes([
        { name: 'a', pax: [['size', '1024']], body: smuggled, size: 512 },
        file('b', 'x'),
      ]),
    ],
    tree: ['a file 1024 0595736ad8efd60d', 'b file x'],
  },
  {
    id: 'CVE-2026-33056, RUSTSEC-2026-0113 (tar-rs, tokio-tar)',
    what: 'a directory is there already, as a link, and its target gets the mode',
    layers: ({ canary }) => [
      [
        link('d', `${canary}/sub`),
        dir('d', { mode: 0o777, mtime: 3 }),
        link('e', '../../canary/sub'),
        dir('e/.', { mode: 0o777, mtime: 3 }),
      ],
    ],
    tree: ['d dir', 'e dir'],
  },
  ...(
    [
      ['too short a length', '10 path=evil\n'],
      ['too long a length', '99 path=evil\n'],
      ['no newline', '13 path=evil!'],
      ['no key', '8 =evil\n'],
      ['nothing but a length', '3 \n'],
    ] as const
  ).map(([what, rawPax]): HostileCase => ({
    id: 'GHSA-fp55 (astral-tokio-tar)',
    what: `a pax record with ${what} is skipped`,
    layers: [[file('x'), { name: 'a', rawPax, body: 'y' }]],
    rejects: 'BAD_ARCHIVE',
    kept: ['x file'],
  })),
  ...(
    [
      [
        'CVE-2022-2879 (Go)',
        'pax headers',
        { name: 'a', pax: [['comment', 'c'.repeat(2 * mebi)]] },
      ],
      [
        'CVE-2025-58183 (Go)',
        'GNU 1.0 sparse maps',
        paxSparse1(
          's',
          8 * mebi,
          Array.from({ length: 200_000 }, (_, at) => [at * 4, 'x']),
        ),
      ],
      [
        'CVE-2026-32288 (Go)',
        'old GNU sparse maps',
        gnuSparse(
          's',
          8 * mebi,
          Array.from({ length: 200_000 }, (_, at) => [at * 4, 'x']),
        ),
      ],
      ['CVE-2022-2879 (Go)', 'long names', long('gnuLongName', 'n'.repeat(2 * mebi))],
    ] as Array<[string, string, TarMember]>
  ).map(([id, what, member]): HostileCase => ({
    id,
    what: `${what} of any size are kept in memory`,
    layers: [[file('x'), member, file('after')]],
    direct: false,
    split: false,
    rejects: 'LIMIT_EXCEEDED',
  })),
  ...['0 a=b\n', '00 a=b\n', '-5 a=b\n', '+6 a=b\n', '4294967302 a=b\n', ' 6 a=b\n', '\n'].map(
    (rawPax): HostileCase => ({
      id: 'CVE-2025-8194, CVE-2019-20907 (CPython)',
      what: `a pax record of length ${JSON.stringify(rawPax.split(' a')[0])} never ends`,
      layers: [[file('x'), { name: 'a', rawPax, body: 'y' }]],
      chains: [],
      rejects: 'BAD_ARCHIVE',
      kept: ['x file'],
    }),
  ),
  ...[8 * 2 ** 30, 2 ** 40, 2n ** 63n - 1n].map((size): HostileCase => ({
    id: 'CPython #151498',
    what: `a long name of ${size} bytes, of which a thousand are there, is allocated`,
    layers: [tarBytes([file('x'), long('gnuLongName', 'n'.repeat(1000), { size })])],
    rejects: 'LIMIT_EXCEEDED',
  })),
  {
    id: 'CVE-2016-6321 (GNU tar)',
    what: 'a name is cut up to its last "..", behind the filter',
    layers: [[file('a/../../etc/x', 'pwned')]],
    rejects: 'PATH_ESCAPE',
    says: 'a/../../etc/x',
    kept: [],
  },
  {
    id: 'CVE-2016-6321 (GNU tar)',
    what: 'a name that climbs and comes back',
    layers: [[file('a/../etc/x', 'x'), file('etc/../etc/./y', 'y')]],
    tree: ['etc dir', 'etc/x file x', 'etc/y file y'],
  },
  {
    id: 'CVE-2019-9923 (GNU tar)',
    what: 'a sparse file whose map is missing',
    layers: [
      tarBytes([
        file('x'),
        { name: 's', type: 'gnuSparse', magic: 'ustar  \0', raw: [[482, '\x01']] },
      ]),
    ],
    // nothing, in the blocks of zeros behind it: no bytes, as Go has it
    tree: ['s file', 'x file'],
  },
  ...(
    [
      ['uid', 108, 8, 'INVALID_ENTRY'],
      ['mtime', 136, 12, 'BAD_ARCHIVE'],
      ['size', 124, 12, 'BAD_ARCHIVE'],
      ['devmajor', 329, 8, 'INVALID_ENTRY'],
    ] as const
  ).map(([field, offset, length, rejects]): HostileCase => ({
    id: 'CVE-2022-48303 (GNU tar)',
    what: `a number in base 256 as large as the field: ${field}`,
    layers: [
      [
        file('x'),
        {
          name: 'a',
          type: field === 'devmajor' ? 'char' : 'file',
          raw: [[offset, Buffer.alloc(length, 0xff).fill(0x80, 0, 1).fill(0x7f, 1, 2)]],
        },
      ],
    ],
    chains: [],
    rejects,
    kept: ['x file'],
  })),
  {
    id: 'CVE-2023-39804 (GNU tar)',
    what: 'the name of an attribute is as long as a stack',
    onDisk: true,
    layers: [
      [file('x'), file('a', '', { pax: [xattrRecord(`user.${'n'.repeat(900_000)}`, 'v')] })],
    ],
    rejects: 'IO',
    cause: 'ERANGE',
    says: 'a: ',
  },
  {
    id: 'CVE-2021-20193 (GNU tar)',
    what: 'a header of an extension that nothing follows, again and again',
    layers: [tarBytes([file('x'), ...Array.from({ length: 50 }, () => pax(['comment', 'c']))])],
    rejects: 'BAD_ARCHIVE',
  },
  {
    id: 'CVE-2025-45582 (GNU tar)',
    what: 'one archive plants a link, and the next writes through it',
    layers: ({ canary }) => [
      [link('x', '../../canary'), link('y', canary)],
      [file('x/file', 'x'), dir('x/sub', { mode: 0o777 }), fifo('y/fifo'), file('y/.wh.a')],
    ],
    tree: [
      '@base/canary dir',
      '@base/canary/fifo fifo',
      'canary dir',
      'canary/file file x',
      'canary/sub dir',
      'x link -> ../../canary',
      'y link -> /@base/canary',
    ],
  },
  {
    id: 'CVE-2016-5418, libarchive #744, #746',
    what: 'a hard link with a body is written into what it links to',
    layers: [
      tarBytes([
        file('a', 'old'),
        link('l', '../../canary/file'),
        { ...hard('h', 'l'), body: 'pwned', size: 5 },
      ]),
    ],
    // the body of a hard link is none, as Go sees it: what is there is taken for a header
    rejects: 'BAD_ARCHIVE',
  },
  {
    id: 'CVE-2016-5418, libarchive #743',
    what: 'a hard link that says it has a body, and has none',
    layers: [[file('a', 'old'), { ...hard('h', 'a'), size: 5000 }, file('b', 'x')]],
    tree: ['a file old', 'b file x', 'h file old =a'],
    warns: ['IGNORED_SIZE'],
  },
  {
    id: 'libarchive #745',
    what: 'a name that begins like one that was safe is taken for safe',
    layers: [
      [
        dir('a'),
        file('a/b'),
        link('aa', '../../canary'),
        file('aa/file', 'x'),
        dir('aaa'),
        link('aaa/b', '../../../canary'),
        file('aaa/b/file', 'y'),
        link('a/b', '../../../canary'),
        file('a/b/file', 'z'),
      ],
    ],
    tree: [
      'a dir',
      'a/b link -> ../../../canary',
      'aa link -> ../../canary',
      'aaa dir',
      'aaa/b link -> ../../../canary',
      'canary dir',
      'canary/file file z',
    ],
  },
  {
    id: 'CVE-2021-31566 (libarchive)',
    what: 'what a directory is to be in the end is done to the link that has replaced it',
    onDisk: true,
    layers: ({ canary }) => [
      [
        dir('d', {
          mode: 0o7777,
          uid: 5,
          mtime: 9,
          pax: [xattrRecord('user.k', 'v'), xattrRecord('system.posix_acl_access', acl)],
        }),
        file('d/x'),
        dir('d/sub', { mode: 0o777, mtime: 9 }),
        link('d', canary),
      ],
    ],
    tree: ['d link -> /@base/canary'],
  },
  {
    id: 'CVE-2021-23177 (libarchive)',
    what: 'the ACL of a link is set on what it leads to',
    skip: !isRoot && 'needs root: the ACL is left out for others',
    onDisk: true,
    layers: [
      [
        link('s', '../../canary/file', { pax: [xattrRecord('system.posix_acl_access', acl)] }),
        hard('h', 's', { pax: [xattrRecord('user.k', 'v')] }),
      ],
    ],
    tree: ['h link -> ../../canary/file', 's link -> ../../canary/file =h'],
    warns: null,
  },
  {
    id: 'CVE-2024-57970, CVE-2025-5914, CVE-2025-5915, CVE-2025-5916, CVE-2025-5917, CVE-2025-5918 (libarchive)',
    what: 'a long link that is cut',
    layers: [
      tarBytes([file('x'), long('gnuLongLink', 'l'.repeat(600)), link('s', 'short')]).subarray(
        0,
        512 * 3 + 100,
      ),
    ],
    rejects: 'BAD_ARCHIVE',
  },
  {
    id: 'CVE-2024-57970, CVE-2025-5914, CVE-2025-5915, CVE-2025-5916, CVE-2025-5917, CVE-2025-5918 (libarchive)',
    what: 'sizes whose sum is beyond what a number holds',
    layers: [
      tarBytes([
        { ...file('a', 'x'.repeat(512)), pax: [['size', '9223372036854775807']] },
        { ...file('b'), size: 2n ** 63n - 512n },
      ]),
    ],
    rejects: 'BAD_ARCHIVE',
  },
]

for (const each of [nodeTar, others].flat()) await hostile(t, each)

await t.test(
  'CVE-2023-30571 (libarchive) the umask of the process is changed, or counts',
  async t => {
    const before = process.umask(0o077)
    try {
      await hostile(t, {
        id: 'CVE-2023-30571',
        what: 'under a umask of 077',
        layers: [
          [
            file('f', '', { mode: 0o666 }),
            dir('d', { mode: 0o777 }),
            file('i/x', '', { mode: 0o604 }),
            fifo('p', { mode: 0o622 }),
          ],
        ],
        inspect: (t, found) => {
          t.equal(process.umask(), 0o077)
          described([
            'd dir 777 0:0 @0',
            'f file 666 0:0 @0',
            'i dir 755 0:0 @0',
            'i/x file 604 0:0 @0',
            'p fifo 622 0:0 @0',
          ])(t, found)
        },
      })
    } finally {
      process.umask(before)
    }
  },
)

await t.test('those that other tests try', t =>
  expectElsewhere(t, [
    [
      'GHSA-29xp-372q-xqph (node-tar): a file shrinks while it is packed',
      'hostile/repack.test.ts',
      'has shrunk',
    ],
    [
      'CVE-2018-20482 (GNU tar): a sparse file shrinks while it is packed',
      'hostile/repack.test.ts',
      'a sparse file that shrinks',
    ],
    [
      'CVE-2026-23950 (node-tar): names that fold to the same',
      'hostile/ordering.test.ts',
      'S08 ',
    ],
    [
      'node-tar PR 456: a race between lstat and open',
      'hostile/attacker.test.ts',
      'while layers are applied',
    ],
    [
      'CVE-2025-4517, CVE-2025-4330, CVE-2025-4138, CVE-2024-12718, CVE-2025-4435 (CPython): a tower of links',
      'hostile/links.test.ts',
      'a tower of symlinks beyond PATH_MAX',
    ],
    [
      'CVE-2026-53655, CVE-2025-62518, CVE-2026-33055: the list is Go’s',
      'lib/layer/tar-reader-go.test.ts',
      'Go',
    ],
  ]),
)
