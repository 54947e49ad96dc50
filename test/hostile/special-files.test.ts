// X: devices, fifos, modes that do something, sparse files.
import { createHash } from 'node:crypto'
import { chmodSync, lstatSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { described, linesOf } from '../support/described.ts'
import { makeSandbox } from '../support/extract.ts'
import { hostile, isRoot, merged, type Chain, type HostileCase } from '../support/hostile.ts'
import { device, dir, fifo, file, hard, link } from '../support/members.ts'
import { gnuSparse, paxSparse, paxSparse1, type Region } from '../support/sparse.ts'
import { tarBytes, xattrRecord, type TarMember } from '../support/tar-builder.ts'

// far more than it takes, but tests run beside each other
t.setTimeout(900_000)

const needsRoot = !isRoot && 'needs root: mknod, chown'
/** Nothing bounds it. */
const bare: Chain[] = [{ name: 'bare', make: () => new Koci() }]
const block = (name: string, devmajor: number, devminor: number): TarMember => ({
  name,
  type: 'block',
  devmajor,
  devminor,
})
const acl = Buffer.from(
  '0200000001000700ffffffff02000700e803000004000500ffffffff10000700ffffffff20000500ffffffff',
  'hex',
)
const tebi = 2 ** 40

const devices: HostileCase[] = [
  {
    id: 'X01',
    what: 'devices have exactly the numbers, owner and mode that the layer says',
    skip: needsRoot,
    cli: true,
    layers: [
      [
        dir('nodes', { mtime: 3 }),
        device('nodes/null', { mode: 0o666, uid: 7, gid: 8, mtime: 4 }),
        block('last', 4095, 1048575),
        device('wide', { devmajor: 256, devminor: 256 }),
      ],
    ],
    tree: ['last block 4095,1048575', 'nodes dir', 'nodes/null char 1,3', 'wide char 256,256'],
    inspect: described([
      'last block 644 0:0 4095,1048575 @0',
      'nodes dir 755 0:0 @3000000000',
      'nodes/null char 666 7:8 1,3 @4000000000',
      'wide char 644 0:0 256,256 @0',
    ]),
  },
  ...(
    [
      ['major', { devmajor: 4096 }],
      ['minor', { devminor: 1048576 }],
      ['major', { devmajor: -1 }],
      ['minor', { devminor: -1 }],
      ['minor', { devminor: 2 ** 32 }],
    ] as const
  ).map(([which, numbers]): HostileCase => ({
    id: 'X01',
    what: `a device with ${JSON.stringify(numbers)} is none`,
    layers: [[file('kept', 'x'), device('c', numbers)]],
    rejects: 'INVALID_ENTRY',
    says: `dev${which} ${Object.values(numbers)[0]} is out of range`,
    kept: ['kept file x'],
  })),
  {
    id: 'X02',
    what: 'rootless, devices become empty files, and nothing that repack would pack',
    chains: [merged],
    layers: [[device('null', { mode: 0o666 }), block('sda', 8, 0), file('f')]],
    options: { rootless: true },
    tree: ['f file', 'null file', 'sda file'],
    warns: ['DEVICE_AS_FILE'],
    inspect: async (t, { place, warnings }) => {
      t.match(warnings, [{ code: 'DEVICE_AS_FILE', count: 2, message: /^null: / }])
      const { changes } = await new Koci()
        .use(mtree())
        .repack({ image: `${place.images}:next`, bundle: place.bundle })
      t.strictSame([...changes], [])
    },
  },
  {
    id: 'X03',
    what: 'a device 0:0, which overlayfs takes for a whiteout, is a device in a plain rootfs',
    skip: needsRoot,
    layers: [[file('lower'), device('c', { devmajor: 0, devminor: 0 })]],
    tree: ['c char 0,0', 'lower file'],
    stackedRejects: 'INVALID_ENTRY',
  },
  {
    id: 'X04',
    what: 'a fifo, then a file of its name: nobody opens the fifo',
    layers: [[fifo('p'), file('p', 'data')]],
    tree: ['p file data'],
    cli: true,
  },
  {
    id: 'X04',
    what: 'a file, then a fifo',
    layers: [[file('p', 'data'), fifo('p')]],
    tree: ['p fifo'],
  },
  {
    id: 'X05',
    what: 'a fifo for a parent is replaced, as any other file is',
    layers: [[fifo('a'), file('a/x')]],
    tree: ['a dir', 'a/x file'],
  },
  ...['etc/passwd', 'etc/group'].map((name): HostileCase => ({
    id: 'X06',
    what: `a fifo for ${name} is not waited for`,
    layers: [[file('etc/passwd', 'u:x:1:1::/:\n'), fifo(name)]],
    image: { config: { User: 'u:g' } },
    split: false,
    rejects: 'INVALID_BUNDLE',
    says: name,
    aboutLayer: false,
    cli: true,
  })),
  {
    id: 'X06',
    what: 'a symlink for etc/passwd to the outside is read inside',
    layers: ({ canary }) => [[link('etc/passwd', `${canary}/file`)]],
    image: { config: { User: 'u' } },
    split: false,
    rejects: 'USER_NOT_FOUND',
    aboutLayer: false,
  },
  {
    id: 'X07',
    what: 'a device that cannot be opened gets its metadata all the same',
    skip: needsRoot,
    layers: [
      [
        device('c', { devmajor: 4000, devminor: 1, mode: 0o6751, uid: 5, mtime: 6 }),
        hard('h', 'c', { mode: 0o777, uid: 9, mtime: 9 }),
        fifo('p', { mode: 0o1642, gid: 5, mtime: 7 }),
      ],
    ],
    inspect: described([
      'c char 6751 5:0 4000,1 @6000000000',
      'h char 6751 5:0 4000,1 @6000000000 =c',
      'p fifo 1642 0:5 @7000000000',
    ]),
  },
  {
    id: 'X08',
    what: 'setuid, setgid and sticky bits survive the change of owner',
    skip: needsRoot,
    layers: [
      [
        file('f', 'x', { uid: 9, gid: 9, mode: 0o6755 }),
        file('own', 'x', { mode: 0o4711 }),
        dir('d', { uid: 9, mode: 0o7775 }),
      ],
    ],
    inspect: described(['d dir 7775 9:0 @0', 'f file 6755 9:9 @0', 'own file 4711 0:0 @0']),
  },
  {
    id: 'X09',
    what: 'of a mode only the lowest twelve bits count',
    layers: [[file('f', '', { mode: 0o177777 }), dir('d', { mode: 0o170755 })]],
    inspect: described(['d dir 755 0:0 @0', 'f file 7777 0:0 @0']),
  },
  {
    id: 'X10',
    what: 'directories that bar their owner, with what later members and layers do in them',
    layers: [
      [
        dir('d', { mode: 0 }),
        dir('d/e', { mode: 0o200 }),
        file('d/e/x', '', { mode: 0 }),
        file('d/y', 'y'),
      ],
      [file('d/e/x', 'new', { mode: 0o400 }), file('d/.wh.y')],
    ],
    inspect: (t, { place: { rootfs } }) => {
      for (const [name, mode] of [
        ['d', 0],
        ['d/e', 0o200],
        ['d/e/x', 0o400],
      ] as const) {
        const found = path.join(rootfs, name)
        t.equal(lstatSync(found).mode & 0o7777, mode, name)
        if (!isRoot) chmodSync(found, 0o700)
      }
      t.strictSame(
        linesOf(rootfs, { times: false }).map(line => line.split(' ')[0]),
        ['d', 'd/e', 'd/e/x'],
      )
    },
  },
  {
    id: 'X11',
    what: 'neither setgid nor the default ACL of a lower directory leaks into what is new',
    skip: needsRoot,
    onDisk: true,
    layers: [
      [
        dir('d', {
          mode: 0o2777,
          gid: 1234,
          pax: [xattrRecord('system.posix_acl_default', acl)],
        }),
      ],
      [
        file('d/a'),
        file('d/b', '', { mode: 0o600 }),
        dir('d/sub', { mode: 0o755 }),
        file('d/sub/c'),
        file('d/implicit/e'),
        fifo('d/p', { mode: 0o600 }),
        link('d/s', 'x'),
      ],
    ],
    inspect: (t, { place }) => {
      t.strictSame(linesOf(place.rootfs, { times: false }).slice(1), [
        'd/a file 644 0:0',
        'd/b file 600 0:0',
        'd/implicit dir 755 0:0',
        'd/implicit/e file 644 0:0',
        'd/p fifo 600 0:0',
        'd/s link 777 0:0 -> x',
        'd/sub dir 755 0:0',
        'd/sub/c file 644 0:0',
      ])
    },
  },
]
for (const each of devices) await hostile(t, each)

await t.test('X08 no file is setuid while it is written', async t => {
  const base = mkdtempSync(path.join(tmpdir(), 'koci-hostile-'))
  try {
    const sandbox = makeSandbox(base)
    const whole = tarBytes([file('f', 'x'.repeat(5000), { mode: 0o6777 })])
    t.throws(() => sandbox.applyBytes(whole.subarray(0, 2000), { rootless: !isRoot }), {
      code: 'ERR_KOCI_BAD_ARCHIVE',
    })
    const stat = lstatSync(path.join(sandbox.rootfs, 'f'))
    t.ok(stat.size > 0, 'some of it was written')
    t.equal(stat.mode & 0o7000, 0)
  } finally {
    rmSync(base, { recursive: true })
  }
})

const few: Region[] = [
  [100, 'begin'],
  [4096, 'x'.repeat(50)],
]
const many = Array.from({ length: 60 }, (_, at): Region => [at * 1000, `region ${at}`])
const forms: Array<
  [name: string, make: (size: number, regions: readonly Region[]) => TarMember]
> = [
  ['GNU', (size, regions) => gnuSparse('s', size, regions)],
  ['pax 0.0', (size, regions) => paxSparse('0.0', 's', size, regions)],
  ['pax 0.1', (size, regions) => paxSparse('0.1', 's', size, regions)],
  ['pax 1.0', (size, regions) => paxSparse1('s', size, regions)],
]
/** What the reader makes of the other forms goes the same ways. */
const elsewhere = (form: string): { chains?: [] } => (form === 'GNU' ? {} : { chains: [] })

for (const [form, make] of forms) {
  for (const [what, size, regions] of [
    ['no region', 9000, []],
    ['a few regions', 9000, few],
    ['many regions', 100_000, many],
  ] as const)
    await hostile(t, {
      id: 'X12',
      what: `${form}, ${what}`,
      // without a map that is no sparse file, as Go sees it
      ...elsewhere(form),
      ...(form.startsWith('pax 0') && regions.length === 0
        ? { tree: ['after file x', 's file'] }
        : { tree: ['after file x', `s file ${contentOf(size, regions)}`] }),
      layers: [[make(size, regions), file('after', 'x')]],
    })
  await hostile(t, {
    id: 'X12',
    what: `${form}, a hole of 1 TiB`,
    onDisk: true,
    layers: [[make(tebi, [[0, 'begin']])]],
    chains: bare,
    direct: false,
    inspect: (t, { place }) => {
      const { size, blocks } = lstatSync(path.join(place.rootfs, 's'))
      t.equal(size, tebi)
      t.ok(blocks <= 64, `${blocks} blocks on disk`)
    },
  })
  await hostile(t, {
    id: 'X12',
    what: `${form}, a hole of 1 TiB is beyond the limits: somebody would have to read it`,
    ...elsewhere(form),
    layers: [[make(tebi, [[0, 'begin']])]],
    rejects: 'LIMIT_EXCEEDED',
    says: 'size of the files with their holes',
    cli: form === 'GNU',
  })
  for (const [what, size, regions] of [
    [
      'overlap',
      9000,
      [
        [0, 'abcd'],
        [2, 'abcd'],
      ],
    ],
    [
      'are out of order',
      9000,
      [
        [100, 'abcd'],
        [2, 'abcd'],
      ],
    ],
    ['end behind the file', 100, [[98, 'abcd']]],
    ['begin behind the file', 100, [[200, 'abcd']]],
    ['end beyond 2^63', 9000, [[2 ** 63, 'abcd']]],
  ] as const)
    await hostile(t, {
      id: 'X12',
      what: `${form}, regions that ${what}`,
      layers: [[file('kept', 'x'), make(size, regions)]],
      ...elsewhere(form),
      rejects: 'BAD_ARCHIVE',
      kept: ['kept file x'],
    })
}
const crowd = Array.from({ length: 200_000 }, (_, at): Region => [at * 4, 'x'])
for (const [form, make] of forms)
  await hostile(t, {
    id: 'X12',
    what: `${form}, more regions than its map may have`,
    ...elsewhere(form),
    layers: [[make(1_000_000, crowd)]],
    rejects: 'LIMIT_EXCEEDED',
  })

const rest: HostileCase[] = [
  {
    id: 'X13',
    what: 'the types 7 and NUL are files, and NUL with a slash a directory',
    layers: [
      [
        { name: 'seven', type: 'contiguous', body: 'x' },
        { name: 'nul', typeflag: 0, body: 'y' },
        { name: 'd/', typeflag: 0 },
      ],
    ],
    tree: ['d dir', 'nul file y', 'seven file x'],
  },
  {
    id: 'X14',
    what: 'user attributes of symlinks and fifos are left out with a warning',
    onDisk: true,
    layers: [
      [
        link('s', '../../canary/file', { pax: [xattrRecord('user.k', 'v')] }),
        fifo('p', { pax: [xattrRecord('user.k', 'v')] }),
      ],
    ],
    tree: ['p fifo', 's link -> ../../canary/file'],
    warns: ['XATTR_REFUSED'],
    inspect: described(['p fifo 644 0:0 @0', 's link 777 0:0 -> ../../canary/file @0']),
  },
]
for (const each of rest) await hostile(t, each)

/** As a tree shows it. */
function contentOf(size: number, regions: readonly Region[]): string {
  const body = Buffer.alloc(size)
  for (const [offset, data] of regions) body.write(data, offset, 'latin1')
  return `${size} ${createHash('sha256').update(body).digest('hex').slice(0, 16)}`
}
