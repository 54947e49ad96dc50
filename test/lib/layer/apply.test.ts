import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import * as libc from '../../../lib/fs/libc.ts'
import { removeTree } from '../../../lib/fs/walk.ts'
import { getXattr } from '../../../lib/fs/xattr.ts'
import { makeSandbox, type Sandbox } from '../../support/extract.ts'
import { xattrRecord, type TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'

const isRoot = process.getuid?.() === 0
const needsRoot = !isRoot && 'needs root: chown and mknod'
const needsUser = isRoot && 'needs an ordinary user'
const rootless = !isRoot

function sandboxIn(t: { teardown(run: () => void): void }): Sandbox {
  const base = mkdtempSync(join(tmpdir(), 'koci-apply-'))
  t.teardown(() => {
    // not rmSync: an ordinary user's 0000 directories would stop it
    const fd = libc.open(base, libc.O_RDONLY)
    for (const name of ['rootfs', 'canary']) removeTree(fd, libc.cstring(name))
    libc.close(fd)
    rmSync(base, { recursive: true })
  })
  return makeSandbox(base)
}

const file = (name: string, rest: Partial<TarMember> = {}): TarMember => ({
  name,
  mtime: 1,
  ...rest,
})
const dir = (name: string, rest: Partial<TarMember> = {}): TarMember => ({
  name,
  type: 'directory',
  mtime: 2,
  ...rest,
})

await t.test('directories without an entry are always the same', async t => {
  const sandbox = sandboxIn(t)
  const umask = process.umask(0o077)
  try {
    sandbox.apply([[file('a/b/c')]], { rootless })
  } finally {
    process.umask(umask)
  }
  for (const name of ['a', 'a/b']) {
    const stat = lstatSync(join(sandbox.rootfs, name), { bigint: true })
    t.match(
      { mode: stat.mode & 0o7777n, mtime: stat.mtimeNs, atime: stat.atimeNs },
      { mode: 0o755n, mtime: 0n, atime: 0n },
    )
  }
})

await t.test('modes come out whatever the umask', async t => {
  for (const umask of [0, 0o022, 0o377]) {
    const sandbox = sandboxIn(t)
    const before = process.umask(umask)
    try {
      sandbox.apply(
        [
          [
            dir('d', { mode: 0o1777 }),
            ...[0, 0o644, 0o4755, 0o7777].map(mode => file(`d/${mode}`, { mode })),
            { name: 'd/p', type: 'fifo', mode: 0o666 },
          ],
        ],
        { rootless },
      )
    } finally {
      process.umask(before)
    }
    t.equal(lstatSync(join(sandbox.rootfs, 'd')).mode & 0o7777, 0o1777)
    for (const mode of [0, 0o644, 0o4755, 0o7777])
      t.equal(lstatSync(join(sandbox.rootfs, `d/${mode}`)).mode & 0o7777, mode)
    t.equal(lstatSync(join(sandbox.rootfs, 'd/p')).mode & 0o7777, 0o666)
  }
})

await t.test(
  'S02: an entry of a directory counts wherever it stands, and the last one',
  async t => {
    const entry = dir('d', { mode: 0o750, mtime: 5 })
    for (const members of [
      [entry, file('d/x')],
      [file('d/x'), entry],
      [dir('d', { mtime: 4 }), file('d/x'), entry],
    ]) {
      const sandbox = sandboxIn(t)
      sandbox.apply([members], { rootless })
      t.match(
        describeTree(sandbox.rootfs, { root: false })[0],
        /^d dir 750 \d+:\d+ @5000000000/,
      )
    }
  },
)

await t.test(
  'A16: directories of lower layers keep their times, those around them, too',
  async t => {
    const sandbox = sandboxIn(t)
    const lower = [dir('a'), dir('a/b'), dir('a/b/c'), file('a/b/old'), file('a/b/c/old')]
    sandbox.apply([lower], { rootless })
    sandbox.apply(
      [
        [file('a/b/new')],
        [file('a/b/.wh.old')],
        [file('a/b/c/.wh..wh..opq')],
        [file('a/b/.wh.c')],
      ],
      { rootless },
    )
    const lines = describeTree(sandbox.rootfs, { root: false, xattrs: false })
    t.strictSame(
      lines.map(line => line.replace(/ \d+:\d+/, '').replace(/0 e3.* /, '')),
      ['a dir 755 @2000000000', 'a/b dir 755 @2000000000', 'a/b/new file 644 @1000000000'],
    )
  },
)

await t.test('a replaced directory takes its unfinished metadata with it', async t => {
  const sandbox = sandboxIn(t)
  sandbox.apply(
    [[dir('d', { mode: 0o700 }), file('d/x'), file('d'), dir('d', { mode: 0o711 })]],
    { rootless },
  )
  t.match(describeTree(sandbox.rootfs, { root: false })[0], /^d dir 711 /)
})

await t.test('a hard link never changes the file of a lower layer', async t => {
  const sandbox = sandboxIn(t)
  sandbox.apply([[file('a', { body: 'x', mode: 0o600 })]], { rootless })
  const before = lstatSync(join(sandbox.rootfs, 'a'))
  sandbox.apply(
    [
      [
        {
          name: 'b',
          type: 'hardlink',
          linkname: 'a',
          mode: 0o4777,
          uid: 5,
          mtime: 99,
          pax: [xattrRecord('user.k', 'v')],
        },
      ],
    ],
    { rootless },
  )
  const after = lstatSync(join(sandbox.rootfs, 'a'))
  t.match(after, { mode: before.mode, uid: before.uid, mtimeMs: before.mtimeMs, nlink: 2 })
})

await t.test('X12: holes stay holes, and are hashed as zeros', async t => {
  const sandbox = sandboxIn(t)
  const size = 64 * 2 ** 20
  const [result] = sandbox.apply(
    [
      [
        {
          name: 'sparse',
          body: Buffer.concat([
            Buffer.from(`1\n0\n4\n`.padEnd(512, '\0')),
            Buffer.from('data'),
          ]),
          mtime: 1,
          pax: [
            ['GNU.sparse.major', '1'],
            ['GNU.sparse.minor', '0'],
            ['GNU.sparse.name', 'sparse'],
            ['GNU.sparse.realsize', String(size)],
          ],
        },
      ],
    ],
    { rootless, hashFiles: true },
  )
  const stat = statSync(join(sandbox.rootfs, 'sparse'), { bigint: true })
  t.equal(stat.size, BigInt(size))
  t.ok(stat.blocks < 1000n, 'no blocks for the hole')
  const expected = createHash('sha256')
    .update('data')
    .update(Buffer.alloc(size - 4))
    .digest()
  t.strictSame(result?.hashes?.get(stat.ino)?.sha256, expected)
})

await t.test('files are hashed as they are written, in one piece or many', async t => {
  const sandbox = sandboxIn(t)
  const bodies = ['', 'x', 'y'.repeat(511), 'z'.repeat(3 * 2 ** 20)]
  const members = bodies.map((body, index) => file(`f${index}`, { body, mtime: '5.000000007' }))
  members.push({ name: 'h', type: 'hardlink', linkname: 'f1' })
  const [result] = sandbox.apply([members], { rootless, hashFiles: true })
  t.equal(result?.hashes?.length, bodies.length - 1)
  for (const [index, body] of bodies.entries()) {
    const { ino } = lstatSync(join(sandbox.rootfs, `f${index}`), { bigint: true })
    if (body === '') {
      t.equal(result?.hashes?.get(ino), undefined, 'nothing is kept about empty files')
      continue
    }
    t.strictSame(result?.hashes?.get(ino), {
      sha256: createHash('sha256').update(body).digest(),
      size: body.length,
      mtime: 5_000_000_007n,
    })
  }
  t.equal(sandbox.apply([[file('other')]], { rootless })[0]?.hashes, undefined)
})

await t.test(
  'A01: times beyond what the file system holds are clamped, with a warning',
  async t => {
    const sandbox = sandboxIn(t)
    const times = [-1n, 2n ** 33n, 99_999_999_999n]
    const members = times.map((mtime, index) => file(`t${index}`, { body: 'x', mtime }))
    const [result] = sandbox.apply([members], { rootless, hashFiles: true })
    const clamped = times.filter((mtime, index) => {
      const stat = lstatSync(join(sandbox.rootfs, `t${index}`), { bigint: true })
      const fits = stat.mtimeNs < 2n ** 63n
      t.equal(
        result?.hashes?.get(stat.ino)?.mtime,
        fits ? stat.mtimeNs : undefined,
        'recorded as stored',
      )
      return stat.mtimeNs / 1_000_000_000n !== mtime
    })
    const warning = result?.warnings.find(({ code }) => code === 'TIME_CLAMPED')
    t.equal(warning?.count ?? 0, clamped.length)
    t.equal(lstatSync(join(sandbox.rootfs, 't0'), { bigint: true }).mtimeNs, -1_000_000_000n)
  },
)

await t.test('attributes of hard links are ignored, those of files are bytes', async t => {
  const sandbox = sandboxIn(t)
  const value = Buffer.from([0, 10, 61, 255])
  sandbox.apply([[file('f', { mode: 0o444, pax: [xattrRecord('user.bin', value)] })]], {
    rootless,
  })
  const fd = libc.open(join(sandbox.rootfs, 'f'), libc.O_RDONLY)
  t.strictSame(getXattr(fd, Buffer.from('user.bin')), value)
  libc.close(fd)
})

await t.test('a limit on the depth of names', async t => {
  const sandbox = sandboxIn(t)
  sandbox.apply([[file('a/b/c')]], { rootless, limits: { maxDepth: 3 } })
  t.throws(() => sandbox.apply([[file('a/b/c/d')]], { rootless, limits: { maxDepth: 3 } }), {
    code: 'ERR_KOCI_LIMIT_EXCEEDED',
    details: { value: 4, maximum: 3 },
  })
})

await t.test('N05: deeper than any path the kernel takes', async t => {
  const sandbox = sandboxIn(t)
  const deep = Array.from({ length: 3000 }, () => 'dd').join('/')
  sandbox.apply([[file(`${deep}/f`, { body: 'x' }), dir(deep, { mode: 0o711 })]], { rootless })
  sandbox.apply([[file(`${deep}/.wh.f`)], [file('.wh.dd')]], { rootless })
  t.strictSame(describeTree(sandbox.rootfs, { root: false }), [])
})

await t.test(
  'owners are mapped, and an id without a mapping is refused',
  { skip: needsRoot },
  async t => {
    const sandbox = sandboxIn(t)
    const uidMap = [{ containerID: 0, hostID: 100_000, size: 10 }]
    const gidMap = [{ containerID: 0, hostID: 200_000, size: 10 }]
    sandbox.apply(
      [
        [
          file('a/f', { uid: 5, gid: 6 }),
          { name: 'l', type: 'symlink', linkname: 'x', uid: 1 },
          dir('d', { gid: 9 }),
        ],
      ],
      { uidMap, gidMap },
    )
    t.strictSame(
      describeTree(sandbox.rootfs, { root: false }).map(line => / \d+:\d+/.exec(line)?.[0]),
      [' 100000:200000', ' 100005:200006', ' 100000:200009', ' 100001:200000'],
    )
    t.throws(() => sandbox.apply([[file('g', { uid: 10 })]], { uidMap, gidMap }), {
      code: 'ERR_KOCI_INVALID_ENTRY',
      message: /^g: .* uid 10/,
    })
  },
)

await t.test('rootless: owners become attributes, devices become files', async t => {
  const sandbox = sandboxIn(t)
  const spoofed = xattrRecord('user.rootlesscontainers', 'spoofed')
  const [result] = sandbox.apply(
    [
      [
        file('own', { pax: [spoofed] }),
        file('a', { uid: 992, gid: 123, pax: [spoofed] }),
        file('b', { gid: 456 }),
        dir('d', { uid: 1 }),
        { name: 's', type: 'symlink', linkname: 'x', uid: 5 },
        { name: 'null', type: 'char', devmajor: 1, devminor: 3, mode: 0o666 },
        { name: 'sda', type: 'block', devmajor: 8 },
        { name: 'p', type: 'fifo' },
      ],
    ],
    { rootless: true },
  )
  const us = `${process.getuid?.()}:${process.getgid?.()}`
  const lines = describeTree(sandbox.rootfs, { root: false, times: false })
  t.strictSame(
    lines.map(line => line.replace(' 0 e3b0c44298fc1c14', '')),
    [
      `a file 644 ${us} user.rootlesscontainers=08e007107b`,
      `b file 644 ${us} user.rootlesscontainers=08ffffffff0f10c803`,
      `d dir 755 ${us} user.rootlesscontainers=080110ffffffff0f`,
      `null file 666 ${us}`,
      `own file 644 ${us}`,
      `p fifo 644 ${us}`,
      `s link 777 ${us} -> x`,
      `sda file 644 ${us}`,
    ],
  )
  t.match(result?.warnings, [
    { code: 'IGNORED_XATTR', count: 2, message: /^own: / },
    { code: 'DEVICE_AS_FILE', count: 2, message: /^null: / },
  ])
})

await t.test(
  'in a user namespace devices become files and what it may not set is left out',
  {
    skip:
      spawnSync('unshare', ['-Ur', 'true']).status !== 0 && 'needs unshare: user namespaces',
  },
  async t => {
    const sandbox = sandboxIn(t)
    chmodSync(sandbox.dir, 0o777)
    const script = `
    import { makeSandbox } from '${new URL('../../support/extract.ts', import.meta.url).href}'
    import { mkdirSync } from 'node:fs'
    mkdirSync('${sandbox.dir}/ns')
    const [result] = makeSandbox('${sandbox.dir}/ns').apply([[
      { name: 'null', type: 'char', devmajor: 1, devminor: 3 },
      { name: 'f', pax: [['SCHILY.xattr.trusted.x', '1']] },
    ]])
    console.log(JSON.stringify(result.warnings.map(({ code }) => code)))`
    const run = spawnSync(
      'unshare',
      ['-Ur', process.execPath, '--input-type=module', '-e', script],
      {
        encoding: 'utf8',
        env: { ...process.env, NODE_OPTIONS: '' },
      },
    )
    t.equal(run.stdout.trim(), '["DEVICE_AS_FILE","XATTR_REFUSED"]', run.stderr)
    t.match(describeTree(join(sandbox.dir, 'ns', 'rootfs'), { root: false }), [
      /^f file/,
      /^null file/,
    ])
  },
)

await t.test(
  'X10, S03: directories that bar their owner, from lower layers and from this one',
  { skip: needsUser },
  async t => {
    const sandbox = sandboxIn(t)
    const lower = [
      dir('d', { mode: 0 }),
      dir('d/e', { mode: 0o200 }),
      file('d/e/x', { mode: 0 }),
      file('d/e/y'),
    ]
    sandbox.apply([lower], { rootless })
    const mode = (name: string) => lstatSync(join(sandbox.rootfs, name)).mode & 0o7777
    t.equal(mode('d'), 0)
    sandbox.apply(
      [
        [
          file('d/e/new', { mode: 0o400, pax: [xattrRecord('user.k', 'v')] }),
          file('d/e/x', { body: 'x' }),
          file('d/e/.wh.y'),
        ],
      ],
      { rootless },
    )
    t.equal(mode('d'), 0, 'as it was')
    chmodSync(join(sandbox.rootfs, 'd'), 0o700)
    t.equal(mode('d/e'), 0o200)
    chmodSync(join(sandbox.rootfs, 'd/e'), 0o700)
    t.strictSame(
      describeTree(sandbox.rootfs, { root: false }).map(line => line.split(' ')[0]),
      ['d', 'd/e', 'd/e/new', 'd/e/x'],
    )
  },
)

await t.test('an ordinary user cannot give files away', { skip: needsUser }, async t => {
  const sandbox = sandboxIn(t)
  t.throws(() => sandbox.apply([[file('f', { uid: 0 })]]), {
    code: 'ERR_KOCI_IO',
    cause: { code: 'EPERM' },
    message: /^f: EPERM/,
  })
})

await t.test(
  'what is mounted in the target is neither removed nor emptied',
  {
    skip:
      spawnSync('unshare', ['-Urm', 'true']).status !== 0 && 'needs unshare: mount namespaces',
  },
  async t => {
    const sandbox = sandboxIn(t)
    mkdirSync(join(sandbox.dir, 'ns', 'rootfs', 'd', 'm'), { recursive: true })
    writeFileSync(join(sandbox.dir, 'canary', 'kept'), '')
    const script = `
    import { makeJob } from '${new URL('../../support/extract.ts', import.meta.url).href}'
    import { tarBytes } from '${new URL('../../support/tar-builder.ts', import.meta.url).href}'
    import { extractBlob } from '${new URL('../../../lib/layer/extract.ts', import.meta.url).href}'
    import { Control } from '${new URL('../../../lib/layer/control.ts', import.meta.url).href}'
    for (const names of [['.wh.d'], ['d'], ['d/m'], ['d/.wh.m'], ['.wh..wh..opq'], ['d/m/.wh.kept'], ['d/m/.wh..wh..opq'], ['d/m/new', '.wh.d']])
      try {
        extractBlob(makeJob('ns/layer.tar', tarBytes(names.map(name => ({ name }))), 'ns/rootfs'), new Control())
        console.log('done')
      } catch (error) { console.log(error.cause?.code) }`
    const run = spawnSync(
      'unshare',
      [
        '-Urm',
        'sh',
        '-c',
        'mount --bind canary ns/rootfs/d/m && exec "$0" --input-type=module -e "$1"',
        process.execPath,
        script,
      ],
      { cwd: sandbox.dir, encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: '' } },
    )
    t.strictSame(run.stdout.trim().split('\n'), Array(8).fill('EBUSY'), run.stderr)
    t.ok(lstatSync(join(sandbox.dir, 'canary', 'kept')))
  },
)
