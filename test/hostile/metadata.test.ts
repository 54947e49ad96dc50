// A: times, owners, extended attributes, ACLs.
import { execFileSync, spawnSync } from 'node:child_process'
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import { Koci, type Warning } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { described } from '../support/described.ts'
import { hostile, isRoot, merged, type HostileCase } from '../support/hostile.ts'
import { makeImage } from '../support/image.ts'
import { dir, file, hard } from '../support/members.ts'
import { xattrRecord } from '../support/tar-builder.ts'

// far more than it takes, but tests run beside each other
t.setTimeout(900_000)

const needsRoot = !isRoot && 'needs root: chown, security and trusted attributes'
const needsUser = isRoot && 'needs an ordinary user'
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex')

const giga = 1_000_000_000n

/** What the file system makes of a time, as another program sets it: seconds and nanoseconds. */
function storedTime(text: string): bigint {
  const base = mkdtempSync(path.join(tmpdir(), 'koci-time-'))
  try {
    execFileSync('touch', ['-d', `@${text}`, path.join(base, 'f')], { timeout: 20_000 })
    return lstatSync(path.join(base, 'f'), { bigint: true }).mtimeNs
  } finally {
    rmSync(base, { recursive: true })
  }
}

/** In nanoseconds, what was asked for. */
function wanted(text: string): bigint {
  const [seconds = '', fraction = ''] = text.split('.')
  const distance =
    BigInt(seconds.replace('-', '')) * 1_000_000_000n + BigInt(fraction.padEnd(9, '0'))
  return text.startsWith('-') ? -distance : distance
}

const times: HostileCase[] = [
  ['0', 'the epoch'],
  ['-1.5', 'before it'],
  ['-0.000000001', 'a nanosecond before it'],
  ['1.123456789', 'nanoseconds'],
  ['-2177452800', '1901'],
  ['2147483648', '2038'],
  ['4294967296', '2106'],
  ['15032385536', '2446'],
  ['253402300799', '9999'],
  ['99999999999999', 'three million years'],
  ['9223372036854775807', 'the last of 63 bits'],
].map(([mtime = '', what]): HostileCase => {
  const stored = storedTime(mtime)
  return {
    id: 'A01',
    what: `${what}: ${mtime}`,
    onDisk: true,
    // its record is looked into
    chains: [merged],
    layers: [
      [file('f', 'x', { pax: [['mtime', mtime]] }), dir('d', { pax: [['mtime', mtime]] })],
    ],
    warns: stored === wanted(mtime) ? [] : ['TIME_CLAMPED'],
    inspect: async (t, { place }) => {
      for (const name of ['f', 'd'])
        t.equal(
          lstatSync(path.join(place.rootfs, name), { bigint: true }).mtimeNs,
          stored,
          `${name} is what the file system makes of it`,
        )
      const record = readdirSync(place.bundle).find(name => name.endsWith('.mtree')) ?? ''
      const line = /^ +f .*$/m.exec(readFileSync(path.join(place.bundle, record), 'utf8'))
      // its columns end in 2262
      const recorded = stored < 2n ** 63n ? stored : 2n ** 63n - 1n
      const second = (recorded - (((recorded % giga) + giga) % giga)) / giga
      t.match(line?.[0], `tar_time=${second}.`, 'the record has what is stored')
      const { changes } = await new Koci()
        .use(mtree())
        .repack({ image: `${place.images}:next`, bundle: place.bundle })
      t.strictSame([...changes], [], 'nothing has changed')
    },
  }
})
for (const each of times) await hostile(t, each)

const owners: HostileCase[] = [
  ...(
    [
      ['uid', 'in the header', { uid: 2 ** 32 - 1 }],
      ['gid', 'in the header', { gid: 2 ** 32 - 1 }],
      ['uid', 'in pax', { pax: [['uid', '4294967295']] }],
      ['gid', 'in pax', { pax: [['gid', '4294967295']] }],
      ['uid', 'above 32 bits', { pax: [['uid', '4294967296']] }],
      ['gid', 'negative', { pax: [['gid', '-2']] }],
      ['uid', 'negative, base-256', { uid: -2 }],
    ] as const
  ).map(([which, what, rest]): HostileCase => ({
    id: 'A02',
    what: `a ${which} that nobody can have, ${what}`,
    layers: [[file('kept', 'x'), file('f', '', rest)]],
    rejects: 'INVALID_ENTRY',
    says: `its ${which} `,
    kept: ['kept file x'],
  })),
  {
    id: 'A02',
    what: 'the largest ids there are',
    skip: needsRoot,
    layers: [[file('f', '', { uid: 2 ** 32 - 2, pax: [['gid', '4294967294']] })]],
    inspect: described(['f file 644 4294967294:4294967294 @0']),
  },
  ...(['uid', 'gid'] as const).map((which): HostileCase => ({
    id: 'A03',
    what: `a ${which} that no map holds`,
    skip: needsRoot,
    layers: [[file('f', '', { [which]: 70_000 })]],
    options: {
      uidMap: [
        { containerID: 0, hostID: 100_000, size: 1000 },
        { containerID: 1000, hostID: 5000, size: 1 },
      ],
      gidMap: [{ containerID: 0, hostID: 100_000, size: 1001 }],
    },
    rejects: 'INVALID_ENTRY',
    says:
      which === 'uid' ? /uid 70000; they hold 0-999, 1000-1000/ : /gid 70000; they hold 0-1000/,
  })),
  {
    id: 'A04',
    what: 'names of users and groups mean nothing',
    skip: needsRoot,
    layers: [[file('f', '', { uid: 5, gid: 6, uname: 'root', gname: 'koci-nobody' })]],
    inspect: described(['f file 644 5:6 @0']),
  },
]
for (const each of owners) await hostile(t, each)

const capabilities = {
  2: hex('01000002 ff0a0000 0a000000 00000000 00000000'),
  3: hex('01000003 ff0a0000 0a000000 00000000 00000000 a0860100'),
}
const text = (value: Buffer): string => value.toString('hex')
const accessAcl = hex(
  '02000000 01000700ffffffff 02000700e8030000 04000500ffffffff 10000500ffffffff 20000500ffffffff',
)

const attributes: HostileCase[] = [
  ...([2, 3] as const).map((version): HostileCase => ({
    id: 'A05',
    what: `capabilities of version ${version}, byte for byte, whoever owns the file`,
    skip: needsRoot,
    onDisk: true,
    cli: true,
    layers: [
      [
        file('f', 'x', {
          uid: 9,
          mode: 0o6755,
          pax: [xattrRecord('security.capability', capabilities[version])],
        }),
      ],
    ],
    inspect: described([
      `f file 6755 9:0 @0 security.capability=${text(capabilities[version])}`,
    ]),
  })),
  ...['00', '', '01000002 ff'].map((value): HostileCase => ({
    id: 'A05',
    what: `capabilities that are ${value === '' ? 'nothing' : value}`,
    skip: needsRoot,
    onDisk: true,
    layers: [[file('f', 'x', { pax: [xattrRecord('security.capability', hex(value))] })]],
    rejects: 'IO',
    cause: 'EINVAL',
    says: 'f: ',
  })),
  {
    id: 'A05',
    what: 'capabilities are left out for an ordinary user',
    skip: needsUser,
    onDisk: true,
    layers: [[file('f', '', { pax: [xattrRecord('security.capability', capabilities[2])] })]],
    warns: ['XATTR_REFUSED'],
    inspect: described(['f file 644 0:0 @0']),
  },
  {
    id: 'A06',
    what: 'owner, mode, attributes, time: none undoes what came before',
    skip: needsRoot,
    onDisk: true,
    layers: [
      [
        file('f', 'x'.repeat(100_000), {
          uid: 9,
          gid: 9,
          mode: 0o6711,
          mtime: 77,
          pax: [
            xattrRecord('security.capability', capabilities[2]),
            xattrRecord('user.k', 'v'),
          ],
        }),
      ],
    ],
    inspect: described([
      `f file 6711 9:9 @77000000000 security.capability=${text(capabilities[2])} user.k=76`,
    ]),
  },
  {
    id: 'A07',
    what: 'attributes that belong to the host',
    onDisk: true,
    layers: [
      [
        file('f', '', {
          pax: [
            xattrRecord('security.selinux', 'spoofed'),
            xattrRecord('system.nfs4_acl', 'x'),
          ],
        }),
      ],
    ],
    warns: ['IGNORED_XATTR'],
    inspect: described(['f file 644 0:0 @0']),
  },
  {
    id: 'A08',
    what: 'attributes of overlayfs mean nothing in a plain rootfs, and stay',
    skip: needsRoot,
    onDisk: true,
    layers: [
      [
        dir('d', {
          pax: [
            xattrRecord('trusted.overlay.opaque', 'y'),
            xattrRecord('user.overlay.opaque', 'y'),
          ],
        }),
        file('d/f', 'x', {
          pax: [
            xattrRecord('trusted.overlay.metacopy', ''),
            xattrRecord('trusted.overlay.redirect', '/../../etc'),
            xattrRecord('trusted.overlay.origin', 'x'),
            xattrRecord('trusted.overlay.impure', 'y'),
            xattrRecord('trusted.overlay.whiteout', 'y'),
          ],
        }),
      ],
    ],
    inspect: described([
      'd dir 755 0:0 @0 trusted.overlay.opaque=79 user.overlay.opaque=79',
      `d/f file 644 0:0 @0 trusted.overlay.impure=79 trusted.overlay.metacopy= trusted.overlay.origin=78 trusted.overlay.redirect=${text(Buffer.from('/../../etc'))} trusted.overlay.whiteout=79`,
    ]),
  },
  {
    id: 'A09',
    what: 'no layer says who an ordinary user’s files belong to',
    onDisk: true,
    options: { rootless: true },
    layers: [
      [
        file('f', '', {
          uid: 7,
          pax: [
            'user.rootlesscontainers',
            'user.containers.override_stat',
            'user.fuseoverlayfs.override_stat',
            'user.fuseoverlayfs.opaque',
          ].map(name => xattrRecord(name, '0:0:4755')),
        }),
        dir('d', { pax: [xattrRecord('user.containers.override_stat', '0:0:4755')] }),
      ],
    ],
    warns: ['IGNORED_XATTR'],
    inspect: described([
      'd dir 755 0:0 @0',
      'f file 644 0:0 @0 user.rootlesscontainers=080710ffffffff0f',
    ]),
  },
  {
    id: 'A10',
    what: 'an attribute without a name',
    onDisk: true,
    layers: [[file('f', '', { pax: [['SCHILY.xattr.', 'v']] })]],
    rejects: 'IO',
    cause: 'ERANGE',
    says: 'f: ',
  },
  {
    id: 'A10',
    what: 'a name of 256 bytes',
    onDisk: true,
    layers: [[file('f', '', { pax: [xattrRecord(`user.${'n'.repeat(251)}`, 'v')] })]],
    rejects: 'IO',
    cause: 'ERANGE',
  },
  {
    id: 'A10',
    what: 'names of a kind that nobody knows are left out',
    onDisk: true,
    layers: [[file('f', '', { pax: [xattrRecord('koci.k', 'v'), xattrRecord('k', 'v')] })]],
    warns: ['XATTRS_UNSUPPORTED'],
    inspect: described(['f file 644 0:0 @0']),
  },
  {
    id: 'A10',
    what: 'a value of 64 KiB and a byte',
    onDisk: true,
    layers: [[file('f', '', { pax: [xattrRecord('user.k', 'v'.repeat(65_537))] })]],
    rejects: 'IO',
    cause: 'E2BIG',
  },
  {
    id: 'A10',
    what: 'an empty value, bytes, and of one name twice the last',
    onDisk: true,
    layers: [
      [
        file('f', '', {
          pax: [
            xattrRecord('user.empty', ''),
            xattrRecord('user.twice', 'first'),
            xattrRecord('user.bytes', hex('ff000a3d')),
            xattrRecord('user.twice', 'z'),
          ],
        }),
      ],
    ],
    inspect: described(['f file 644 0:0 @0 user.bytes=ff000a3d user.empty= user.twice=7a']),
  },
  {
    id: 'A11',
    what: 'an ACL is what the layer says, and so is the mode',
    skip: needsRoot,
    onDisk: true,
    layers: [
      [
        file('f', '', {
          mode: 0o755,
          pax: [xattrRecord('system.posix_acl_access', accessAcl)],
        }),
        dir('d', {
          mode: 0o755,
          pax: [
            xattrRecord('system.posix_acl_access', accessAcl),
            xattrRecord('system.posix_acl_default', accessAcl),
          ],
        }),
        file('d/f'),
      ],
    ],
    inspect: described([
      `d dir 755 0:0 @0 system.posix_acl_access=${text(accessAcl)} system.posix_acl_default=${text(accessAcl)}`,
      'd/f file 644 0:0 @0',
      `f file 755 0:0 @0 system.posix_acl_access=${text(accessAcl)}`,
    ]),
  },
  {
    id: 'A12',
    what: 'trusted attributes are left out for an ordinary user',
    skip: needsUser,
    onDisk: true,
    layers: [[file('f', '', { pax: [xattrRecord('trusted.k', 'v')] })]],
    warns: ['XATTR_REFUSED'],
    inspect: described(['f file 644 0:0 @0']),
  },
  {
    id: 'A14',
    what: 'attributes of a hard link are ignored',
    onDisk: true,
    layers: [
      [
        file('f', 'x', { pax: [xattrRecord('user.k', 'v')], mode: 0o600, mtime: 5 }),
        hard('h', 'f', {
          pax: [xattrRecord('user.k', 'other')],
          mode: 0o777,
          uid: 5,
          mtime: 9,
        }),
      ],
    ],
    inspect: described([
      'f file 600 0:0 @5000000000 user.k=76',
      'h file 600 0:0 @5000000000 user.k=76 =f',
    ]),
  },
  {
    id: 'A15',
    what: 'what a lower layer set and the upper does not mention is gone',
    onDisk: true,
    layers: [
      [
        dir('d', { pax: [xattrRecord('user.a', '1'), xattrRecord('user.b', '1')] }),
        file('f', 'x', { pax: [xattrRecord('user.a', '1')] }),
        file('d/kept', '', { pax: [xattrRecord('user.a', '1')] }),
      ],
      [dir('d', { pax: [xattrRecord('user.b', '2')] }), file('f', 'y')],
    ],
    inspect: described([
      'd dir 755 0:0 @0 user.b=32',
      'd/kept file 644 0:0 @0 user.a=31',
      'f file 644 0:0 @0',
    ]),
  },
  ...(
    [
      ['no atime: it is the mtime', {}, 50_000],
      [
        'an atime and a ctime: the one is set, the other nobody can',
        { atime: '7.5', ctime: '9' },
        7500,
      ],
      ['an atime before 1970', { atime: '-1.5' }, -1500],
    ] as Array<[string, Record<string, string>, number]>
  ).map(([what, records, atimeMs]): HostileCase => ({
    id: 'P20',
    what,
    onDisk: true,
    layers: [[file('f', 'x', { mtime: 50, pax: Object.entries(records) })]],
    // directories and links are read to record them
    inspect: (t, { place }) => {
      const stat = lstatSync(path.join(place.rootfs, 'f'))
      t.strictSame([stat.atimeMs, stat.mtimeMs], [atimeMs, 50_000])
      t.ok(stat.ctimeMs > 1e12, 'the ctime is of now')
    },
  })),
  {
    id: 'A16',
    what: 'directories that a layer only works in keep their times',
    layers: [
      [
        dir('.', { mtime: 4 }),
        dir('d', { mtime: 5 }),
        dir('d/sub', { mtime: 6, mode: 0o511 }),
        ...['gone', 'sub/gone', 'old', 'opaque/x'].map(name =>
          file(`d/${name}`, '', { mtime: 1 }),
        ),
        dir('d/opaque', { mtime: 7 }),
      ],
      [
        file('d/new', '', { mtime: 1 }),
        file('d/.wh.gone'),
        file('d/sub/.wh.gone'),
        hard('d/hard', 'd/old'),
        file('d/opaque/.wh..wh..opq'),
      ],
    ],
    inspect: described([
      'd dir 755 0:0 @5000000000',
      'd/hard file 644 0:0 @1000000000',
      'd/new file 644 0:0 @1000000000',
      'd/old file 644 0:0 @1000000000 =d/hard',
      'd/opaque dir 755 0:0 @7000000000',
      'd/sub dir 511 0:0 @6000000000',
    ]),
  },
]
for (const each of attributes) await hostile(t, each)

await t.test(
  'A10 more attributes than a file of ext4 can have',
  { skip: !isRoot && 'needs root: mount' },
  async t => {
    const base = t.testdir()
    const device = path.join(base, 'disk')
    const mounted = path.join(base, 'mounted')
    mkdirSync(mounted)
    execFileSync('truncate', ['-s', '16M', device])
    if (
      run(t, 'mkfs.ext4', '-q', '-b', '1024', device) &&
      run(t, 'mount', '-o', 'loop', device, mounted)
    )
      try {
        const pax = Array.from({ length: 200 }, (_, at) =>
          xattrRecord(`user.k${at}`, 'v'.repeat(50)),
        )
        const image = await makeImage(path.join(base, 'images'), 'test', {
          layers: [[file('f', '', { pax })]],
        })
        const bundle = path.join(mounted, 'bundle')
        await t.rejects(new Koci().use(mtree()).unpack({ image, bundle }), {
          code: 'ERR_KOCI_IO',
          cause: { code: 'ENOSPC' },
          message: /^f: /,
        })
        t.strictSame(readdirSync(mounted), ['lost+found'])
      } finally {
        execFileSync('umount', [mounted], { timeout: 20_000 })
      }
  },
)

await t.test(
  'A13 a file system without attributes: one warning',
  { skip: !isRoot && 'needs root: mount' },
  async t => {
    const base = t.testdir()
    const mounted = path.join(base, 'mounted')
    mkdirSync(mounted)
    if (!run(t, 'mount', '-t', 'ramfs', 'none', mounted)) return
    try {
      const pax = [xattrRecord('user.k', 'v'), xattrRecord('trusted.k', 'v')]
      const image = await makeImage(path.join(base, 'images'), 'test', {
        layers: [[file('a', '', { pax }), dir('d', { pax }), file('d/b', 'x', { pax })]],
      })
      const app = new Koci().use(mtree())
      const warnings: unknown[] = []
      app.on('warning', ({ data }) => void warnings.push(data))
      const bundle = path.join(mounted, 'bundle')
      const { rootfs } = await app.unpack({ image, bundle })
      t.match(warnings, [{ code: 'XATTRS_UNSUPPORTED', count: 6, message: /^a: / }])
      t.equal(warnings.length, 1)
      t.equal(readFileSync(path.join(rootfs, 'd/b'), 'utf8'), 'x')
      const { changes } = await app.repack({ image: `${base}/images:next`, bundle })
      t.strictSame([...changes], [], 'what could not be set has not changed')
    } finally {
      execFileSync('umount', [mounted], { timeout: 20_000 })
    }
  },
)

await t.test(
  'A17 what cannot be removed is told, and all else is removed',
  { skip: !isRoot && 'needs root: chattr' },
  async t => {
    const base = mkdtempSync(path.join(tmpdir(), 'koci-immutable-'))
    try {
      const image = await makeImage(path.join(base, 'images'), 'test', {
        layers: [[file('d/fixed', 'x'), file('other', 'x')]],
      })
      const bundle = path.join(base, 'bundle')
      const fixed = path.join(bundle, 'rootfs/d/fixed')
      let fixable = true
      const app = new Koci().use({
        name: 'fixer',
        mount: async (_, next) => {
          await next()
          fixable = run(t, 'chattr', '+i', fixed)
          throw new RangeError('enough')
        },
      })
      try {
        const warnings: Warning[] = []
        app.on('warning', ({ data }) => void warnings.push(data))
        await t.rejects(app.unpack({ image, bundle }), {
          code: 'ERR_KOCI_MIDDLEWARE_FAILED',
          message: /enough/,
        })
        if (!fixable) return
        t.match(warnings, [{ code: 'UNDO_FAILED', message: /EPERM/ }])
        t.equal(warnings.length, 1)
        t.strictSame(readdirSync(path.join(bundle, 'rootfs')), ['d'], 'all else is gone')
      } finally {
        spawnSync('chattr', ['-i', fixed])
      }
    } finally {
      rmSync(base, { recursive: true, force: true })
    }
  },
)

/** Whether a program could do it; a skip in the report says why not. */
function run(t: Test, command: string, ...args: string[]): boolean {
  const { status, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    timeout: 20_000,
  })
  if (status === 0) return true
  t.pass(command, { skip: error?.message ?? stderr })
  return false
}
