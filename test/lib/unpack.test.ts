import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { digestOf } from '../../lib/oci/digest.ts'
import type { Compression } from '../../lib/oci/media-type.ts'
import { makeImage, type TestImage, type TestLayer } from '../support/image.ts'
import type { TarMember } from '../support/tar-builder.ts'
import { describeTree } from '../support/tree.ts'

const isRoot = process.geteuid?.() === 0
const rootless = !isRoot

interface Place {
  readonly base: string
  readonly images: string
  readonly bundle: string
}

function placeIn(t: { testdir(): string }): Place {
  const base = t.testdir()
  return { base, images: path.join(base, 'images'), bundle: path.join(base, 'bundle') }
}

async function unpackImage(t: { testdir(): string }, image: TestImage): Promise<string> {
  const { images, bundle } = placeIn(t)
  await makeImage(images, 'test', image)
  const { rootfs } = await new Koci().unpack({ image: `${images}:test`, bundle, rootless })
  return rootfs
}

const file = (name: string, body = name): TarMember => ({ name, body, mtime: 1_700_000_000 })
const dir = (name: string, mode = 0o755): TarMember => ({
  name: `${name}/`,
  type: 'directory',
  mode,
  mtime: 1_600_000_000,
})
const whiteout = (name: string): TarMember => ({ name })

const trees: [what: string, layers: TestLayer[], expected: string[]][] = [
  [
    'layers one over the other',
    [[dir('a'), file('a/x', 'old'), file('a/y')], [file('a/x', 'new')]],
    ['a/x=new', 'a/y=a/y'],
  ],
  ['a whiteout of a file', [[file('a/x'), file('a/y')], [whiteout('a/.wh.x')]], ['a/y=a/y']],
  ['a whiteout of a directory', [[file('a/b/x'), file('c')], [whiteout('.wh.a')]], ['c=c']],
  [
    'a whiteout before and after what replaces it',
    [
      [file('a'), file('b')],
      [whiteout('.wh.a'), file('a', '1'), file('b', '2'), whiteout('.wh.b')],
    ],
    ['a=1', 'b=2'],
  ],
  [
    'an opaque directory, its marker last',
    [
      [file('a/x'), file('a/y')],
      [file('a/z'), whiteout('a/.wh..wh..opq')],
    ],
    ['a/z=a/z'],
  ],
  ['a whiteout of nothing', [[whiteout('.wh.a'), file('b')], [whiteout('x/.wh.y')]], ['b=b']],
  ['a file in the place of a directory', [[file('a/x/y')], [file('a', 'file')]], ['a=file']],
  ['a directory in the place of a file', [[file('a')], [dir('a'), file('a/x')]], ['a/x=a/x']],
  [
    'a hard link within a layer',
    [[file('a', 'same'), { name: 'b', type: 'hardlink', linkname: 'a' }]],
    ['a=same', 'b=same'],
  ],
  [
    'a hard link to a lower layer',
    [[file('a', 'same')], [{ name: 'd/b', type: 'hardlink', linkname: 'a' }]],
    ['a=same', 'd/b=same'],
  ],
  [
    'a rewritten name of a link',
    [[file('a', 'old'), { name: 'b', type: 'hardlink', linkname: 'a' }], [file('a', 'new')]],
    ['a=new', 'b=old'],
  ],
  ['an empty layer between others', [[file('a')], [], [file('b')]], ['a=a', 'b=b']],
  [
    'a path through a link of a lower layer',
    [[dir('usr/lib'), { name: 'lib', type: 'symlink', linkname: 'usr/lib' }], [file('lib/x')]],
    ['lib->usr/lib', 'usr/lib/x=lib/x'],
  ],
  [
    'a link to anywhere, verbatim',
    [[{ name: 'a', type: 'symlink', linkname: '../../../../etc/passwd' }]],
    ['a->../../../../etc/passwd'],
  ],
]
for (const compression of ['gzip', 'zstd', 'none'] satisfies Compression[])
  for (const [what, layers, expected] of trees)
    await t.test(`${what} (${compression})`, async t => {
      const rootfs = await unpackImage(t, { layers, compression })
      t.same(brief(rootfs), expected)
    })

await t.test(
  'implied directories and a root that no layer mentions are the same everywhere',
  async t => {
    const before = process.umask(0o077)
    t.teardown(() => process.umask(before))
    const rootfs = await unpackImage(t, { layers: [[file('a/b/x')]] })
    for (const name of ['', 'a', 'a/b']) {
      const { mode, mtimeMs } = statSync(path.join(rootfs, name))
      t.same([mode & 0o7777, mtimeMs], [0o755, 0], name || 'root')
    }
    t.equal(statSync(path.dirname(rootfs)).mode & 0o7777, 0o700)
  },
)

await t.test('directories keep their times and modes whatever happens in them', async t => {
  const rootfs = await unpackImage(t, {
    layers: [
      [
        { name: './', type: 'directory', mode: 0o711, mtime: 5 },
        dir('closed', 0o500),
        file('closed/x'),
        file('closed/y'),
      ],
      [whiteout('closed/.wh.x'), file('closed/z')],
    ],
  })
  const closed = statSync(path.join(rootfs, 'closed'))
  t.same([closed.mode & 0o7777, closed.mtimeMs / 1000], [0o500, 1_600_000_000])
  const root = statSync(rootfs)
  t.same([root.mode & 0o7777, root.mtimeMs / 1000], [0o711, 5])
  chmodSync(path.join(rootfs, 'closed'), 0o700)
})

await t.test('the same image gives the same tree, twice', async t => {
  const { base, images } = placeIn(t)
  const image = await makeImage(images, 'test', {
    layers: trees.flatMap(([, layers]) => layers),
  })
  const listings = []
  for (const name of ['one', 'two']) {
    const { rootfs } = await new Koci().unpack({
      image,
      bundle: path.join(base, name),
      rootless,
    })
    listings.push(describeTree(rootfs))
  }
  t.same(listings[0], listings[1])
})

await t.test('config.json says what the image says, and whom the rootfs knows', async t => {
  const { images, bundle } = placeIn(t)
  const image = await makeImage(images, 'test', {
    layers: [
      [file('etc/passwd', 'www:x:33:34::/var/www:/bin/sh\n'), file('etc/group', 'www:x:34:\n')],
    ],
    config: { User: 'www', Cmd: ['/bin/serve'], Env: ['A=b'], WorkingDir: '/srv' },
  })
  const { runtimeConfig } = await new Koci().unpack({ image, bundle, rootless })
  const written = JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8'))
  t.same(written, JSON.parse(JSON.stringify(runtimeConfig)))
  t.match(written, {
    root: { path: 'rootfs' },
    process: { user: { uid: 33, gid: 34 }, args: ['/bin/serve'], cwd: '/srv' },
  })
})

await t.test('middleware can change the runtime configuration', async t => {
  const { images, bundle } = placeIn(t)
  const image = await makeImage(images, 'test', { layers: [[file('a')]] })
  const app = new Koci().use({
    name: 'hostname',
    config: async (ctx, next) => {
      await next()
      if (ctx.runtimeConfig) ctx.runtimeConfig = { ...ctx.runtimeConfig, hostname: 'changed' }
    },
  })
  await app.unpack({ image, bundle, rootless })
  t.match(JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8')), {
    hostname: 'changed',
  })
})

await t.test(
  'ids are mapped, in the files and in config.json',
  { skip: !isRoot && 'needs root: chown' },
  async t => {
    const { images, bundle } = placeIn(t)
    const image = await makeImage(images, 'test', {
      layers: [[{ ...file('a'), uid: 7, gid: 8 }]],
    })
    const map = (hostID: number) => [{ containerID: 0, hostID, size: 1000 }]
    const { rootfs } = await new Koci().unpack({
      image,
      bundle,
      uidMap: map(5000),
      gidMap: map(6000),
    })
    const { uid, gid } = statSync(path.join(rootfs, 'a'))
    t.same([uid, gid], [5007, 6008])
    t.same([statSync(rootfs).uid, statSync(rootfs).gid], [5000, 6000])
    t.match(JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8')), {
      linux: { uidMappings: map(5000), gidMappings: map(6000) },
    })
  },
)

await t.test(
  'an id without a mapping is an error',
  { skip: !isRoot && 'needs root: chown' },
  async t => {
    const { base, images, bundle } = placeIn(t)
    const image = await makeImage(images, 'test', { layers: [[{ ...file('a'), uid: 7000 }]] })
    const uidMap = [{ containerID: 0, hostID: 5000, size: 1000 }]
    await t.rejects(new Koci().unpack({ image, bundle, uidMap }), {
      code: 'ERR_KOCI_INVALID_ENTRY',
      message: /7000/,
    })
    t.same(readdirSync(base), ['images'])
  },
)

// --- bad input: a typed error, and nothing left

type Spoil = (layout: string, layer: string) => Promise<void> | void
const blob = (layout: string, digest: string): string =>
  path.join(layout, 'blobs/sha256', digest.slice('sha256:'.length))

const spoilt: [what: string, code: string, spoil: Spoil][] = [
  [
    'one bit of a layer',
    'ERR_KOCI_DIGEST_MISMATCH',
    (layout, layer) => {
      const name = blob(layout, layer)
      const bytes = readFileSync(name)
      bytes[bytes.length - 12] = (bytes[bytes.length - 12] as number) ^ 1
      chmodSync(name, 0o644)
      writeFileSync(name, bytes)
    },
  ],
  [
    'a truncated layer',
    'ERR_KOCI_SIZE_MISMATCH',
    (layout, layer) => truncateSync(blob(layout, layer), 20),
  ],
  [
    'an empty layer blob',
    'ERR_KOCI_SIZE_MISMATCH',
    (layout, layer) => truncateSync(blob(layout, layer), 0),
  ],
  [
    'a layer that is gone',
    'ERR_KOCI_BLOB_NOT_FOUND',
    (layout, layer) => {
      spawnSync('rm', [blob(layout, layer)])
    },
  ],
  [
    'a directory in the place of a layer',
    'ERR_KOCI_INVALID_LAYOUT',
    (layout, layer) => {
      spawnSync('rm', [blob(layout, layer)])
      mkdirSync(blob(layout, layer))
    },
  ],
  [
    'a fifo in the place of a layer',
    'ERR_KOCI_INVALID_LAYOUT',
    (layout, layer) => {
      spawnSync('rm', [blob(layout, layer)])
      spawnSync('mkfifo', [blob(layout, layer)])
    },
  ],
]
for (const [what, code, spoil] of spoilt)
  await t.test(`${what} is ${code} and leaves nothing`, async t => {
    const { base, images, bundle } = placeIn(t)
    const image = await makeImage(images, 'test', {
      layers: [[file('a')], [file('b'), file('c')]],
    })
    const layout = await ImageLayout.open(images)
    const { layers } = await layout.resolve('test')
    await layout.close()
    await spoil(images, layers[1]?.descriptor.digest ?? '')
    await t.rejects(new Koci().unpack({ image, bundle, rootless }), { code })
    t.same(readdirSync(base), ['images'])
  })

await t.test('a DiffID that is not that of the layer', async t => {
  const { base, images, bundle } = placeIn(t)
  const image = await makeImage(images, 'test', {
    layers: [[file('a')]],
    change: draft => ({
      ...draft,
      config: {
        ...draft.config,
        rootfs: { type: 'layers', diff_ids: [digestOf(Buffer.from('other'))] },
      },
    }),
  })
  await t.rejects(new Koci().unpack({ image, bundle, rootless }), {
    code: 'ERR_KOCI_DIFF_ID_MISMATCH',
  })
  t.same(readdirSync(base), ['images'])
})

const badLayers: [what: string, layer: TestLayer, code: string][] = [
  ['junk for a tar', Buffer.alloc(700, 'junk'), 'ERR_KOCI_BAD_ARCHIVE'],
  ['a name that climbs', [file('../escaped')], 'ERR_KOCI_PATH_ESCAPE'],
  [
    'a root that is a link',
    [{ name: './', type: 'symlink', linkname: '/tmp' }],
    'ERR_KOCI_INVALID_ENTRY',
  ],
  ['a whiteout of the parent', [whiteout('a/.wh...')], 'ERR_KOCI_INVALID_WHITEOUT'],
  [
    'a link to nothing',
    [{ name: 'a', type: 'hardlink', linkname: 'nowhere' }],
    'ERR_KOCI_INVALID_ENTRY',
  ],
  ['a type that nobody knows', [{ name: 'a', typeflag: 'Z' }], 'ERR_KOCI_UNSUPPORTED_ENTRY'],
]
for (const [what, layer, code] of badLayers)
  await t.test(`a second layer with ${what} is ${code} and leaves nothing`, async t => {
    const { base, images, bundle } = placeIn(t)
    const image = await makeImage(images, 'test', { layers: [[file('a/x')], layer] })
    await t.rejects(new Koci().unpack({ image, bundle, rootless }), { code })
    t.same(readdirSync(base), ['images'])
    t.notOk(existsSync(path.join(base, 'escaped')))
  })

await t.test('gzip by name, something else by nature', async t => {
  const { base, images, bundle } = placeIn(t)
  const image = await makeImage(images, 'test', {
    compression: 'zstd',
    layers: [[file('a')]],
    change: draft => ({
      ...draft,
      manifest: {
        ...draft.manifest,
        layers: draft.manifest.layers.map(layer => ({
          ...layer,
          mediaType: layer.mediaType.replace('zstd', 'gzip'),
        })),
      },
    }),
  })
  await t.rejects(new Koci().unpack({ image, bundle, rootless }), {
    code: 'ERR_KOCI_BAD_COMPRESSION',
    message: /zstd/,
  })
  t.same(readdirSync(base), ['images'])
})

await t.test('an unknown tag lists those there are', async t => {
  const { base, images, bundle } = placeIn(t)
  await makeImage(images, 'first', { layers: [] })
  await makeImage(images, 'second', { layers: [] })
  await t.rejects(new Koci().unpack({ image: `${images}:third`, bundle, rootless }), {
    code: 'ERR_KOCI_REF_NOT_FOUND',
    message: /first.*second/,
  })
  t.same(readdirSync(base), ['images'])
})

await t.test(
  'a full disk: the reason, and nothing half-done',
  { skip: !isRoot && 'needs root: mount' },
  async t => {
    const { base, images } = placeIn(t)
    const disk = path.join(base, 'disk')
    mkdirSync(disk)
    const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk])
    t.equal(status, 0)
    try {
      const image = await makeImage(images, 'test', {
        layers: [[file('small')], [file('large', 'x'.repeat(2_000_000))]],
      })
      await t.rejects(new Koci().unpack({ image, bundle: path.join(disk, 'bundle') }), {
        code: 'ERR_KOCI_IO',
        message: /large.*ENOSPC/,
        cause: { code: 'ENOSPC' },
      })
      t.same(readdirSync(disk), [])
    } finally {
      spawnSync('umount', [disk])
    }
  },
)

// --- a kill at any moment, and again

const moments = ['unpack', 'locate', 'layer 0', 'layer 1', 'mount', 'config', 'after'] as const
for (const moment of moments)
  await t.test(
    `killed at ${moment}: a rerun into the same bundle succeeds`,
    { timeout: 60_000 },
    async t => {
      const { base, images, bundle } = placeIn(t)
      const image = await makeImage(images, 'test', {
        layers: [[file('a/x')], [file('b'), whiteout('a/.wh.x')]],
      })
      const program = `
      import { Koci } from ${JSON.stringify(path.resolve(import.meta.dirname, '../../lib/index.ts'))}
      const die = () => process.kill(process.pid, 'SIGKILL')
      const at = step => async (ctx, next) => {
        if (step === 'layer') { await next(); if (${JSON.stringify(moment)} === 'layer ' + ctx.layer.index) die() }
        else if (step === 'after') { await next(); die() }
        else { if (${JSON.stringify(moment)} === step) die(); await next() }
      }
      const app = new Koci().use({ name: 'killer', locate: at('locate'), layer: at('layer'), mount: at('mount'), config: at('config'),
        unpack: at(${JSON.stringify(moment)} === 'after' ? 'after' : 'unpack') })
      await app.unpack(${JSON.stringify({ image, bundle, rootless })})
    `
      const child = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
        timeout: 30_000,
      })
      t.equal(child.signal, 'SIGKILL', String(child.stderr))
      t.ok(existsSync(path.join(bundle, 'koci.json')))

      writeFileSync(path.join(bundle, 'notes.txt'), 'mine')
      const { rootfs } = await new Koci().unpack({ image, bundle, rootless })
      t.same(brief(rootfs), ['a/', 'b=b'])
      t.same(readdirSync(bundle).sort(), [
        'config.json',
        'koci.json',
        'notes.txt',
        'rootfs',
        'umoci.json',
      ])

      const fresh = await new Koci().unpack({
        image,
        bundle: path.join(base, 'fresh'),
        rootless,
      })
      t.same(describeTree(rootfs), describeTree(fresh.rootfs))
    },
  )

/** Names with contents or targets; directories only if they are empty. */
function brief(rootfs: string): string[] {
  return readdirSync(rootfs, { recursive: true, withFileTypes: true })
    .filter(({ parentPath }) => realpathSync(parentPath) === parentPath)
    .flatMap(entry => {
      const name = path.join(entry.parentPath, entry.name)
      const short = path.relative(rootfs, name)
      if (entry.isSymbolicLink()) return `${short}->${readlinkSync(name)}`
      if (entry.isDirectory()) return readdirSync(name).length === 0 ? `${short}/` : []
      return `${short}=${readFileSync(name, 'utf8')}`
    })
    .sort()
}

await t.test(
  'rootless without maps: the user is root in the container, and umoci is told',
  async t => {
    const { images, bundle } = placeIn(t)
    const image = await makeImage(images, 'test', { layers: [[{ ...file('a'), uid: 7 }]] })
    await new Koci().unpack({ image, bundle, rootless: true })
    const uidMappings = [{ containerID: 0, hostID: process.geteuid?.(), size: 1 }]
    t.match(JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8')), {
      linux: { uidMappings },
    })
    t.match(JSON.parse(readFileSync(path.join(bundle, 'umoci.json'), 'utf8')), {
      map_options: { uid_mappings: uidMappings, rootless: true },
    })
  },
)
