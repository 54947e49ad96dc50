// What went wrong in tools that write images to disk, each advisory as a case of its own: its number, what it did there,
// and what becomes of it here. Those that other tests try are named with the test; those that can't apply say why.
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { plainly, program } from '../bin/run-koci.ts'
import { expectElsewhere } from '../support/elsewhere.ts'
import {
  fingerprint,
  hostile,
  isRoot,
  makePlace,
  removePlace,
  shapeOf,
  type Chain,
  type HostileCase,
  type Place,
} from '../support/hostile.ts'
import type { ExecutionConfig } from '../../lib/oci/image-config.ts'
import { makeImage, type TestImage } from '../support/image.ts'
import { device, dir, fifo, file, hard, link } from '../support/members.ts'
import { finish, missing } from '../support/peers.ts'
import { gnuSparse } from '../support/sparse.ts'
import type { TarMember } from '../support/tar-builder.ts'

// far more than it takes, but tests run beside each other
t.setTimeout(900_000)

const needsRoot = !isRoot && 'needs root: mknod, mount'
const rootless = !isRoot
const up = '../'.repeat(12)
/** Nothing bounds it. */
const bare: Chain[] = [{ name: 'bare', make: () => new Koci() }]

type Image = Omit<TestImage, 'layers'>
/** In an image's config or manifest. */
const withConfig = (config: ExecutionConfig): Image => ({ config })
const withLayerDescriptor = (fields: object): Image => ({
  change: draft => ({
    ...draft,
    manifest: {
      ...draft.manifest,
      layers: draft.manifest.layers.map(layer => ({ ...layer, ...fields })),
    },
  }),
})

const roots: HostileCase[] = [
  ...['.', '/', './', '/.', 'a/..', ''].map((name): HostileCase => ({
    id: 'CVE-2021-29136 (umoci)',
    what: `a symlink ${JSON.stringify(name)} is the rootfs for the next layer`,
    layers: ({ canary }) => [[link(name, canary)], [file('file', 'pwned')]],
    ...(name === '.' ? {} : { chains: [] }),
    rejects: 'INVALID_ENTRY',
    says: 'the root can only be a directory',
    kept: [],
  })),
  {
    id: 'CVE-2021-29136 (umoci)',
    what: 'the same, called ..',
    layers: ({ canary }) => [[link('..', canary)], [file('file', 'pwned')]],
    rejects: 'PATH_ESCAPE',
  },
]

const links: HostileCase[] = [
  {
    id: 'CVE-2025-47290 (containerd)',
    what: 'the parent of a file is looked up once, and is then a link to the outside',
    layers: ({ canary }) => [
      [
        dir('foo'),
        dir('foo/sub'),
        file('foo/sub/file', 'one'),
        link('foo', canary),
        file('foo/sub/file', 'two'),
        dir('foo'),
        dir('foo/sub'),
        file('foo/sub/file', 'three'),
      ],
    ],
    tree: [
      '@base/canary dir',
      '@base/canary/sub dir',
      '@base/canary/sub/file file two',
      'foo dir',
      'foo/sub dir',
      'foo/sub/file file three',
    ],
  },
  {
    id: 'CVE-2021-32760 (containerd)',
    what: 'the mode of a hard link to a symlink is set through it',
    layers: ({ canary }) => [
      [link('s', `${canary}/file`), hard('h', 's', { mode: 0o4777, uid: 0, mtime: 1 })],
    ],
    tree: ['h link -> /@base/canary/file', 's link -> /@base/canary/file =h'],
  },
  {
    id: 'CVE-2021-41089 (docker cp)',
    what: 'directories that are there get the mode of the entry, behind a link, too',
    layers: [
      [
        link('sub', '../../canary/sub'),
        link('up', '../..'),
        dir('sub/.', { mode: 0o777 }),
        dir('up/canary/sub', { mode: 0o777 }),
        file('up/canary/sub/file', '', { mode: 0o777 }),
      ],
    ],
    tree: [
      'canary dir',
      'canary/sub dir',
      'canary/sub/file file',
      'sub dir',
      'up link -> ../..',
    ],
  },
  {
    id: 'CVE-2014-9356 (docker)',
    what: 'an absolute symlink is a parent',
    layers: ({ canary }) => [[link('x', canary), file('x/file', 'mine'), fifo('x/fifo')]],
    tree: [
      '@base/canary dir',
      '@base/canary/fifo fifo',
      '@base/canary/file file mine',
      'x link -> /@base/canary',
    ],
  },
  {
    id: 'CVE-2026-17106 (moby/go-archive)',
    what: 'a hard link to a neighbour whose name begins like the rootfs’s',
    layers: [[hard('h', '../rootfs-evil/file')]],
    rejects: 'PATH_ESCAPE',
    says: '../rootfs-evil/file',
    kept: [],
  },
  {
    id: 'CVE-2026-17106 (moby/go-archive)',
    what: 'the same through a link, and an absolute path',
    layers: ({ evil }) => [[link('s', evil), link('r', '../rootfs-evil'), hard('h', 'r/file')]],
    rejects: 'INVALID_ENTRY',
    says: 'the target does not exist',
  },
  {
    id: 'CVE-2026-28406 (kaniko)',
    what: 'a name that climbs is joined to the root',
    layers: [[file('../outside.txt', 'x')]],
    rejects: 'PATH_ESCAPE',
    says: '../outside.txt',
  },
  {
    id: 'CVE-2026-28406 (kaniko)',
    what: 'its remedy broke links that climb further than they are deep: they are verbatim',
    layers: [
      [
        link('usr/lib/jvm/java/lib/cacerts', `${'../'.repeat(10)}etc/pki/cacerts`),
        link('abs/dir', '/usr/lib'),
        file('abs/dir/x', 'x'),
      ],
    ],
    tree: [
      'abs dir',
      'abs/dir link -> /usr/lib',
      'usr dir',
      'usr/lib dir',
      'usr/lib/jvm dir',
      'usr/lib/jvm/java dir',
      'usr/lib/jvm/java/lib dir',
      `usr/lib/jvm/java/lib/cacerts link -> ${'../'.repeat(10)}etc/pki/cacerts`,
      'usr/lib/x file x',
    ],
  },
  {
    id: 'go-containerregistry #2227, #2399 (crane)',
    what: 'names are taken as they are; the remedy refused the entry "."',
    layers: [
      [
        dir('.', { mode: 0o755 }),
        dir('./'),
        file('./usr/local/bin/python3', 'x'),
        dir('/', { mode: 0o755 }),
      ],
    ],
    tree: ['usr dir', 'usr/local dir', 'usr/local/bin dir', 'usr/local/bin/python3 file x'],
  },
  {
    id: 'frostyard/nbc #86',
    what: 'a hard link that leads outside is copied instead',
    layers: ({ canary }) => [[link('out', canary), hard('h', 'out/file')]],
    rejects: 'INVALID_ENTRY',
    says: 'h: ',
  },
  {
    id: 'indaco/malt #852',
    what: 'hard links are made at the end, when their place is a link to the outside',
    layers: [
      [
        file('f', 'x'),
        dir('door', { mode: 0o777, mtime: 7 }),
        hard('door/new', 'f'),
        link('door', '../../canary'),
      ],
    ],
    tree: ['door link -> ../../canary', 'f file x'],
  },
  {
    id: 'CVE-2024-45310, CVE-2025-31133, CVE-2025-52565, CVE-2025-52881, CVE-2026-41579 (runc)',
    what: 'directories are made and removed by joined paths, in a rootfs whose /dev and /proc are links',
    layers: [
      [
        link('dev', '../../canary'),
        link('proc', '../../canary/sub'),
        dir('dev/new/deep'),
        device('dev/.wh.file'),
        file('proc/.wh.file'),
        file('dev/sub/.wh..wh..opq'),
        file('proc/self/attr/current', 'unconfined'),
      ],
    ],
    tree: [
      'canary dir',
      'canary/new dir',
      'canary/new/deep dir',
      'canary/sub dir',
      'canary/sub/self dir',
      'canary/sub/self/attr dir',
      'canary/sub/self/attr/current file unconfined',
      'dev link -> ../../canary',
      'proc link -> ../../canary/sub',
    ],
  },
  ...(
    [
      ['a file', file('out/', 'x'), ['out file x']],
      ['a directory', dir('out/', { mode: 0o777 }), ['out dir']],
      ['a fifo', fifo('out//'), ['out fifo']],
      ['a whiteout', file('.wh.out/'), []],
    ] as Array<[string, TarMember, string[]]>
  ).map(([what, member, left]): HostileCase => ({
    id: 'CVE-2026-39822 (os.Root)',
    what: `a slash behind a link follows it: ${what}`,
    layers: [[link('out', '../../canary')], [member]],
    tree: left,
  })),
  {
    id: 'CVE-2026-39822 (os.Root)',
    what: 'a slash behind a link follows it: the target of a hard link',
    layers: [[link('out', '../../canary'), hard('h', 'out/./'), file('out/x')]],
    tree: [
      'canary dir',
      'canary/x file',
      'h link -> ../../canary',
      'out link -> ../../canary =h',
    ],
  },
]

/** CVE-2025-5981: only files were confined, and that not in every way of writing a name. */
const types: Array<(name: string) => TarMember> = [
  name => file(name, 'x'),
  name => dir(name),
  name => link(name, 'x'),
  name => hard(name, 'f'),
  name => fifo(name),
  name => device(name),
]
const forms: Array<[name: string, rejected: boolean]> = [
  ['../../canary/new', true],
  ['/../../canary/new', true],
  ['d/../../../canary/new', true],
  ['./.././../canary/new', true],
  ['../rootfs-evil/new', true],
  ['rel/new', false],
  ['abs/new', false],
  ['far/new', false],
  ['abs/sub/new', false],
  ['rel/../new', false],
]
const everyWay: HostileCase[] = types.flatMap(make =>
  forms.map(([name, rejected]): HostileCase => ({
    id: 'CVE-2025-5981 (osv-scalibr)',
    what: `a ${make('').type ?? 'file'} as ${name}`,
    skip: make('').type === 'char' && needsRoot,
    layers: ({ canary }) => [
      [
        file('f'),
        link('rel', '../../canary'),
        link('abs', canary),
        link('far', `${up}${canary.slice(1)}`),
        make(name),
      ],
    ],
    // the applier's; a few go through everything
    ...(name === 'abs/sub/new' ? {} : { chains: [] }),
    split: false,
    ...(rejected ? { rejects: 'PATH_ESCAPE', says: name } : {}),
  })),
)

const numbers: HostileCase[] = [
  ...([2 ** 32 + 8, -1, 2 ** 31, 2 ** 62] as const).map((devmajor): HostileCase => ({
    id: 'containerd 0205398ac',
    what: `a device’s major number ${devmajor} is cut to 32 bits`,
    layers: [[device('c', { devmajor })]],
    rejects: 'INVALID_ENTRY',
    says: 'c: ',
    kept: [],
  })),
  ...(
    [
      ['2147483648', 'INVALID_CONFIG'],
      ['4294967295', 'INVALID_CONFIG'],
      ['4294967296:4294967296', 'INVALID_CONFIG'],
      ['-1', 'INVALID_CONFIG'],
      ['1e9', 'USER_NOT_FOUND'],
      ['0x0', 'USER_NOT_FOUND'],
      [' 0', 'USER_NOT_FOUND'],
      ['٣', 'USER_NOT_FOUND'],
    ] as const
  ).map(([User, rejects]): HostileCase => ({
    id: 'CVE-2024-40635 (containerd)',
    what: `the user ${JSON.stringify(User)} becomes 0`,
    layers: [[file('etc/passwd', 'root:x:0:0::/:\n')]],
    split: false,
    image: withConfig({ User }),
    rejects,
    aboutLayer: false,
  })),
  ...[
    'sha256:../../etc/passwd',
    'sha256:',
    'sha256:ABC',
    `sha256:${'A'.repeat(64)}`,
    `sha512:${'0'.repeat(64)}`,
    `sha256:${'0'.repeat(62)}/x`,
    '../../canary/file',
  ].map((digest): HostileCase => ({
    id: 'CVE-2024-3727 (containers/image), CVE-2014-9358 (docker)',
    what: `a digest or an id is part of a path: ${digest.slice(0, 30)}`,
    layers: [[file('f')]],
    split: false,
    image: withLayerDescriptor({ digest }),
    rejects: 'INVALID_DIGEST',
    aboutLayer: false,
  })),
  {
    id: 'CVE-2021-41190 (OCI)',
    what: 'a document that is a manifest and an index',
    layers: [[file('f')]],
    split: false,
    image: {
      change: draft => ({
        ...draft,
        manifest: { ...draft.manifest, manifests: [draft.manifest.config] },
      }),
    },
    rejects: 'INVALID_MANIFEST',
    aboutLayer: false,
  },
  {
    id: 'CVE-2021-41190 (OCI)',
    what: 'a document that says it is another than its descriptor says',
    layers: [[file('f')]],
    split: false,
    image: {
      change: draft => ({
        ...draft,
        manifest: {
          ...draft.manifest,
          mediaType: 'application/vnd.oci.image.index.v1+json',
        },
      }),
    },
    rejects: 'INVALID_MANIFEST',
    aboutLayer: false,
  },
]

const passwd = 'u:x:1000:1000::/home/u:/bin/sh\n'
const users = (
  [
    [
      'a link to the outside',
      ({ canary }) => [link('etc/passwd', `${canary}/passwd`)],
      'USER_NOT_FOUND',
    ],
    ['behind a link to the outside', () => [link('etc', '../../canary')], 'USER_NOT_FOUND'],
    [
      'a link that climbs',
      () => [link('etc/passwd', '../../../canary/passwd')],
      'USER_NOT_FOUND',
    ],
    [
      'a link to a magic link',
      () => [link('etc/passwd', '/proc/self/environ')],
      'USER_NOT_FOUND',
    ],
    ['a fifo', () => [fifo('etc/passwd')], 'INVALID_BUNDLE'],
    ['a directory', () => [dir('etc/passwd')], 'INVALID_BUNDLE'],
    ['a link to itself', () => [link('etc/passwd', 'passwd')], 'IO'],
    [
      'a file of 10 GiB',
      () => [gnuSparse('etc/passwd', 10 * 2 ** 30, [[0, passwd]])],
      'LIMIT_EXCEEDED',
    ],
    [
      'a device without an end',
      () => [device('etc/passwd', { devminor: 5 })],
      'INVALID_BUNDLE',
    ],
  ] as Array<[string, (place: Place) => TarMember[], string]>
).map(([what, members, rejects]): HostileCase => ({
  id: 'CVE-2024-9676 (containers/storage), CVE-2024-9341, CVE-2024-1753, CVE-2024-9407, CVE-2024-9675, CVE-2024-11218 (buildah)',
  what: `/etc/passwd is ${what}`,
  skip: what.startsWith('a device') && needsRoot,
  layers: place => {
    if (existsSync(place.canary)) writeFileSync(path.join(place.canary, 'passwd'), passwd)
    return [members(place)]
  },
  split: false,
  image: withConfig({ User: 'u' }),
  chains: bare,
  rejects,
  aboutLayer: false,
  onDisk: what.startsWith('a file'),
}))
const volumes: HostileCase = {
  id: 'CVE-2022-23648 (containerd)',
  what: 'a volume’s path leads out of the rootfs, by itself or by a link, and is copied',
  layers: ({ canary }) => [[link('data', canary)]],
  split: false,
  image: withConfig({ Volumes: { '/../../canary': {}, '/data': {}, '/data/../../sub': {} } }),
  inspect: (t, { place }) => {
    const config = JSON.parse(readFileSync(path.join(place.bundle, 'config.json'), 'utf8')) as {
      mounts: Array<{ destination: string; type: string; source: string }>
    }
    t.strictSame(
      config.mounts
        .filter(({ source, type }) => type === 'tmpfs' && source === 'none')
        .map(({ destination }) => destination),
      ['/canary', '/data', '/sub'],
    )
    t.strictSame(shapeOf(place.rootfs), [`data link -> ${place.canary}`])
  },
}

for (const each of [roots, links, everyWay, numbers, users, volumes].flat())
  await hostile(t, each)

/** A place of its own, removed in any case, whose canaries must be as they were. */
async function withPlace(
  t: { strictSame(found: unknown, wanted: unknown, what: string): unknown },
  use: (place: Place) => Promise<void>,
): Promise<void> {
  const place = makePlace()
  try {
    const before = fingerprint(place)
    await use(place)
    t.strictSame(fingerprint(place), before, 'nothing outside was touched')
  } finally {
    removePlace(place)
  }
}

await t.test('CVE-2023-25153 (containerd) documents of any size are read into memory', t =>
  withPlace(t, async place => {
    const { images, bundle } = place
    const image = await makeImage(images, 'test', { layers: [[file('f')]] })
    const index = path.join(images, 'index.json')
    const text = readFileSync(index, 'utf8')
    const before = process.memoryUsage().rss
    truncateSync(index, 5 * 2 ** 30)
    await t.rejects(new Koci().unpack({ image, bundle, rootless }), {
      code: 'ERR_KOCI_LIMIT_EXCEEDED',
    })
    writeFileSync(index, text)
    const manifest = blobOf(images, JSON.parse(text).manifests[0].digest)
    const config = blobOf(images, JSON.parse(readFileSync(manifest, 'utf8')).config.digest)
    truncateSync(config, 2 ** 30)
    await t.rejects(new Koci().unpack({ image, bundle, rootless }), {
      code: 'ERR_KOCI_SIZE_MISMATCH',
    })
    const grown = (process.memoryUsage().rss - before) / 2 ** 20
    t.ok(grown < 100, `${grown.toFixed(0)} MB more`)
  }),
)

function blobOf(images: string, digest: string): string {
  return path.join(images, 'blobs', ...digest.split(':'))
}

await t.test(
  'CVE-2024-25621 (containerd) others reach the setuid files of an image, umask or not',
  t =>
    withPlace(t, async place => {
      const { images, bundle } = place
      const layers = [[dir('.', { mode: 0o777 }), file('su', 'x', { mode: 0o4755 })]]
      const image = await makeImage(images, 'test', { layers })
      const modes: number[] = []
      const umask = process.umask(0)
      try {
        const app = new Koci().use(async (_, next) => {
          modes.push(statSync(bundle).mode & 0o7777)
          await next()
        })
        await app.use(mtree()).unpack({ image, bundle, rootless })
      } finally {
        process.umask(umask)
      }
      t.strictSame([...modes, statSync(bundle).mode & 0o7777], [0o700, 0o700])
      for (const name of readdirSync(bundle))
        if (name !== 'rootfs') t.equal(statSync(path.join(bundle, name)).mode & 0o022, 0, name)
    }),
)

await t.test(
  'CVE-2020-15157 (containerd) the URLs of a layer are asked for it, and told who asks',
  t =>
    withPlace(t, async place => {
      const { images, bundle } = place
      let asked = 0
      const server = createServer((_, response) => {
        asked += 1
        response.end()
      }).listen(0, '127.0.0.1')
      await once(server, 'listening')
      try {
        const { port } = server.address() as AddressInfo
        const urls = [`http://127.0.0.1:${port}/layer`]
        const image = await makeImage(images, 'test', {
          layers: [[file('f')]],
          ...withLayerDescriptor({ urls }),
        })
        await new Koci().unpack({ image, bundle, rootless })

        const layer = await makeImage(images, 'test', {
          layers: [[file('f')]],
          ...withLayerDescriptor({ urls, digest: `sha256:${'0'.repeat(64)}` }),
        })
        await t.rejects(new Koci().unpack({ image: layer, bundle: `${bundle}-2`, rootless }), {
          code: 'ERR_KOCI_BLOB_NOT_FOUND',
        })
      } finally {
        server.close()
      }
      t.equal(asked, 0, 'nobody asked')
    }),
)

await t.test(
  'CVE-2026-50195, CVE-2026-53492, CVE-2026-53488 (containerd) what an image says of itself is trusted',
  t =>
    withPlace(t, async place => {
      const spoken = {
        'org.opencontainers.image.ref.name': '../../canary:latest',
        'io.koci.use': 'hooks:file=/canary/file',
        'koci.json': '{}',
        'cdi.k8s.io/x': 'vendor/class=all',
        HOOK: '$(touch canary/pwned)',
        'io.containerd.image.name': 'docker.io/library/alpine:latest',
      }
      const plain: TestImage = { layers: [[file('f', 'x')]] }
      const loud: TestImage = {
        ...plain,
        config: { Labels: spoken },
        change: draft => ({
          ...draft,
          manifest: {
            ...draft.manifest,
            annotations: spoken,
            config: { ...draft.manifest.config, annotations: spoken },
            layers: draft.manifest.layers.map(layer => ({ ...layer, annotations: spoken })),
          },
        }),
      }
      const found = []
      for (const [name, contents] of Object.entries({ plain, loud })) {
        const bundle = `${place.bundle}-${name}`
        const image = await makeImage(place.images, name, contents)
        await new Koci().use(mtree()).unpack({ image, bundle, rootless })
        found.push({
          files: readdirSync(bundle).map(file => file.replace(/^sha256_.*\./, 'record.')),
          state: readFileSync(path.join(bundle, 'koci.json'), 'utf8').replaceAll(
            /sha256[:_][0-9a-f]{64}/g,
            'digest',
          ),
          tree: shapeOf(path.join(bundle, 'rootfs')),
          hooks: JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8')).hooks,
        })
      }
      t.strictSame(found[1], found[0], 'it makes no difference but in the annotations')
      t.equal(found[0]?.hooks, undefined)
    }),
)

await t.test(
  'CVE-2026-50163 (oras-go) the target of a hard link is looked for in the working directory',
  t =>
    withPlace(t, async place => {
      const { images, bundle, base, canary } = place
      const image = await makeImage(images, 'test', { layers: [[hard('h', 'file')]] })
      const former = process.cwd()
      try {
        for (const cwd of [canary, `${canary}/sub`, base, '/']) {
          process.chdir(cwd)
          await t.rejects(new Koci().unpack({ image, bundle, rootless }), {
            code: 'ERR_KOCI_INVALID_ENTRY',
            message: /^h: .*the target does not exist/,
          })
        }
      } finally {
        process.chdir(former)
      }
      const script = 'mkdir "$1/gone" && cd "$1/gone" && rmdir "$1/gone" && shift && exec "$@"'
      const command = [process.execPath, program, 'unpack', ...(rootless ? ['--rootless'] : [])]
      const args = ['-c', script, 'sh', base, ...command, '--image', image, bundle]
      const { status, stderr } = finish(...plainly('sh', args))
      t.equal(status, 1, 'in a directory that is gone')
      t.match(stderr, 'koci: working directory: it is gone - change to another')
      t.equal(stderr.trimEnd().split('\n').length, 1, stderr)
      t.strictSame(readdirSync(bundle), ['rootfs-evil'])
    }),
)

await t.test(
  'L12 frostyard/nbc #86 a hard link to another file system is refused, and nothing copied',
  { skip: needsRoot },
  t =>
    withPlace(t, async place => {
      const { images, bundle, rootfs } = place
      const layers = [[file('a', 'x'), dir('m')], [hard('m/h', 'a')]]
      const image = await makeImage(images, 'test', { layers })
      const mounted = path.join(rootfs, 'm')
      const app = new Koci().use(async (ctx, next) => {
        if (ctx.layer.index === 1) {
          execFileSync('mount', ['-t', 'tmpfs', 'none', mounted], { timeout: 20_000 })
          writeFileSync(path.join(mounted, 'kept'), 'not of the layer')
        }
        await next()
      })
      try {
        await t.rejects(app.unpack({ image, bundle }), {
          code: 'ERR_KOCI_IO',
          message: /^m\/h: /,
          cause: { code: 'EXDEV' },
        })
        t.strictSame(readdirSync(mounted), ['kept'], 'what is mounted is nothing to remove')
      } finally {
        execFileSync('umount', [mounted], { timeout: 20_000 })
      }
    }),
)

await t.test(
  'CVE-2025-9566, CVE-2023-0778, CVE-2019-10152 (podman) directories of a rootfs have become links meanwhile',
  t =>
    withPlace(t, async place => {
      const { images, bundle, rootfs, canary } = place
      const layers = [
        [
          dir('etc'),
          file('etc/file', 'of the image'),
          dir('etc/sub'),
          file('etc/sub/file', 'x'),
        ],
      ]
      const image = await makeImage(images, 'test', { layers })
      const app = new Koci().use(mtree())
      await app.unpack({ image, bundle, rootless })
      rmSync(path.join(rootfs, 'etc'), { recursive: true })
      symlinkSync(canary, path.join(rootfs, 'etc'))
      const next = `${images}:next`
      const { changes } = await app.repack({ image: next, bundle, refresh: true })
      t.strictSame(
        changes.map(({ kind, path }) => `${kind} ${path}`),
        ['M ', 'M etc'],
      )
      const again = `${bundle}-2`
      await new Koci().unpack({ image: next, bundle: again, rootless })
      t.strictSame(shapeOf(path.join(again, 'rootfs')), [`etc link -> ${canary}`])
    }),
)

await t.test(
  'go-containerregistry #2227 (crane) a layer that koci wrote climbs out of where another tar unpacks it',
  { skip: missing('tar') },
  t =>
    withPlace(t, async place => {
      const { images, bundle, rootfs, base } = place
      const image = await makeImage(images, 'test', {
        layers: [[link('out', '../canary'), file('a', 'x'), hard('b', 'a')]],
      })
      const app = new Koci().use(mtree())
      await app.unpack({ image, bundle, rootless })
      for (const name of ['new', '-C', '--help', '@', '..x', '...'])
        writeFileSync(path.join(rootfs, name), 'x')
      symlinkSync('../canary/file', path.join(rootfs, 'file'))
      rmSync(path.join(rootfs, 'out'))
      mkdirSync(path.join(rootfs, 'out'))
      writeFileSync(path.join(rootfs, 'out/file'), 'mine')
      const { image: made } = await app.repack({ image: `${images}:next`, bundle })
      const blob = blobOf(images, made.layers.at(-1)?.descriptor.digest ?? '')
      const target = path.join(base, 'elsewhere')
      mkdirSync(target)
      const listed = finish('tar', ['-tzf', blob])
      t.notMatch(listed.stdout, /^\/|(^|\/)\.\.(\/|$)/m, 'names are relative and do not climb')
      const { status, stderr } = finish('tar', ['-xzf', blob, '-C', target, '--no-same-owner'])
      t.equal(status, 0, stderr)
      t.equal(readFileSync(path.join(target, 'out/file'), 'utf8'), 'mine')
    }),
)

await t.test(
  'CVE-2024-23650, CVE-2024-23651, CVE-2024-23652, CVE-2024-23653 (buildkit) what was there before is cleaned up, too',
  t =>
    withPlace(t, async place => {
      const { images, bundle } = place
      const image = await makeImage(images, 'test', {
        layers: [
          [file('a', 'x'), link('notes', '../notes'), dir('d', { mode: 0 })],
          [hard('h', 'x')],
        ],
      })
      writeFileSync(path.join(bundle, 'notes'), 'mine')
      symlinkSync('notes', path.join(bundle, 'config'))
      chmodSync(bundle, 0o700)
      await t.rejects(new Koci().use(mtree()).unpack({ image, bundle, rootless }), {
        code: 'ERR_KOCI_INVALID_ENTRY',
      })
      t.strictSame(readdirSync(bundle), ['config', 'notes', 'rootfs-evil'])
      t.equal(readFileSync(path.join(bundle, 'notes'), 'utf8'), 'mine')
    }),
)

await t.test(
  'CVE-2024-21626 (runc) a descriptor is inherited, and a working directory is looked up through it',
  t =>
    withPlace(t, async place => {
      const { images, bundle } = place
      const image = await makeImage(images, 'test', {
        layers: [[file('a/b/c', 'x')], [file('a/b/d', 'x')]],
        config: { WorkingDir: '/proc/self/fd/7' },
      })
      const inherited: string[] = []
      // V8 opens these two without the flag for a moment when it starts a thread (to map its builtins once more)
      const node = realpathSync(process.execPath)
      const ofNode = (target: string) => target === node || /^\/proc\/\d+\/maps$/.test(target)
      const look = (): void => {
        for (const fd of readdirSync('/proc/self/fdinfo')) {
          if (Number(fd) <= 2) continue
          try {
            const target = readlinkSync(`/proc/self/fd/${fd}`)
            const info = readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')
            // another thread may have closed it meanwhile, and its number be another file's
            if (readlinkSync(`/proc/self/fd/${fd}`) !== target || ofNode(target)) continue
            const flags = /^flags:\s+(\d+)/m.exec(info)
            if ((Number.parseInt(flags?.[1] ?? '', 8) & 0o2000000) === 0)
              inherited.push(`${fd} -> ${target}`)
          } catch {
            // that of the directory itself, or closed meanwhile
          }
        }
      }
      look()
      const before = inherited.splice(0)
      const timer = setInterval(look, 1)
      const app = new Koci().use(async (_, next) => {
        look()
        await next()
        look()
      })
      await app.use(mtree()).unpack({ image, bundle, rootless })
      clearInterval(timer)
      t.strictSame([...new Set(inherited)], before, 'all are closed when a program is run')
      // only the runtime can say what it means: no link of the image is behind it here
      const config = JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8'))
      t.equal(config.process.cwd, '/proc/self/fd/7')
    }),
)

await t.test(
  'CVE-2026-41567, CVE-2019-14271, CVE-2014-9357, CVE-2020-15157, containerd ba50a5645: what the kernel is asked for',
  { skip: missing('strace') },
  t =>
    withPlace(t, async place => {
      const { images, bundle, base, rootfs } = place
      const names = ['gzip', 'unpigz', 'pigz', 'xz', 'zstd', 'tar', 'sh', 'node', 'mount']
      const libraries = ['libnss_files.so.2', 'libnss_compat.so.2', 'libc.so.6', 'koffi.node']
      const planted = [
        ...names.flatMap(name => [`bin/${name}`, `usr/bin/${name}`, name]),
        ...libraries.flatMap(name => [`lib/x86_64-linux-gnu/${name}`, `lib/${name}`]),
        'etc/nsswitch.conf',
        'node_modules/koffi/index.js',
        'package.json',
      ].map(name => file(name, '#!/bin/sh\necho pwned > "$KOCI_TEST"', { mode: 0o755 }))
      const layers = [
        [...planted, file('etc/passwd', passwd), file('f', 'x', { mode: 0o4755 }), fifo('p')],
        [file('f', 'y', { mode: 0o600 }), dir('d', { mode: 0o700 })],
      ]
      const config = { User: 'u', Env: ['PATH=/bin', 'LD_PRELOAD=/lib/libc.so.6'] }
      for (const compression of ['gzip', 'zstd'] as const)
        await makeImage(images, compression, { layers, compression, config })
      // whoever looks for a helper in the working directory or by PATH finds the image's
      const cwd = path.join(base, 'cwd')
      mkdirSync(cwd)
      for (const name of names)
        writeFileSync(path.join(cwd, name), '#!/bin/sh\necho pwned > "$KOCI_TEST"', {
          mode: 0o755,
        })
      const mark = path.join(base, 'pwned')
      const log = path.join(base, 'trace')
      const run = (args: readonly string[]): string[] => {
        const traced = 'trace=%network,execve,execveat,%file,fchmod'
        const flags = ['-f', '-y', '-s', '4096', '-e', traced, '-o', log]
        const PATH = `.:${cwd}:${rootfs}/bin:${process.env['PATH']}`
        const { status, stderr } = finish(
          'strace',
          [...flags, process.execPath, program, ...args],
          {
            cwd,
            env: { NODE_OPTIONS: '', HOME: base, KOCI_TEST: mark, PATH },
          },
        )
        t.equal(status, 0, stderr)
        return readFileSync(log, 'utf8').split('\n')
      }
      const owner = rootless ? ['--rootless'] : []
      const calls = [
        ...run(['unpack', ...owner, '--image', `${images}:gzip`, bundle]),
        ...run(['unpack', ...owner, '--image', `${images}:zstd`, `${bundle}-2`]),
      ]
      writeFileSync(path.join(rootfs, 'f'), 'changed')
      calls.push(...run(['repack', '--refresh-bundle', '--image', `${images}:next`, bundle]))
      // a fifo isn't opened; the bundle's own names are nobody else's
      const isOfFifoOrBundle = (call: string): boolean =>
        /chmod\("(\/proc\/self\/fd\/\d+|[^"]*\/bundle(-2)?(\/rootfs)?)", /.test(call)
      const of = (pattern: RegExp): string[] =>
        calls.filter(call => pattern.test(call) && !/ = -1 ENOENT/.test(call))
      t.notOk(existsSync(mark), 'no program of the image ran')
      t.equal(of(/ execve(at)?\(/).length, 3, 'no program but koci was started')
      const sockets = / (connect|bind|listen|accept4?|sendto|sendmsg)\(|socket\(AF_INET/
      t.strictSame(of(sockets), [], 'nobody was talked to')
      t.strictSame(
        of(/ (mount|umount2|pivot_root|chroot|move_mount|open_tree|fsopen)\(/),
        [],
        'nothing was mounted for a merged rootfs',
      )
      const loaded = of(/ open(at)?\(.*(libnss|koffi|nsswitch|libc\.so)/)
      t.strictSame(
        loaded.filter(call => call.includes(rootfs) && /O_RDONLY\|O_CLOEXEC\) = /.test(call)),
        [],
        'no library of the image was loaded',
      )
      t.strictSame(
        of(/ (chmod|fchmodat2?)\(/).filter(call => !isOfFifoOrBundle(call)),
        [],
        'modes of files and directories are set by descriptor',
      )
      t.ok(of(/ fchmod\(/).length > 0)
    }),
)

await t.test('those that other tests try', t =>
  expectElsewhere(t, [
    [
      'CVE-2018-15664 (docker cp): a path is resolved, then used',
      'hostile/attacker.test.ts',
      'while layers are applied',
    ],
    [
      'CVE-2018-15664 (docker cp): the same while packing',
      'hostile/repack-race.test.ts',
      'swapped with a link all the time',
    ],
    [
      'CVE-2021-20291 (containers/storage): a decompressor that dies or hangs',
      'lib/layer/pool.test.ts',
      'dies',
    ],
    [
      'ba50a5645, CVE-2024-45310 and others: one component per call',
      'hostile/system-calls.test.ts',
      'refresh',
    ],
    [
      'CVE-2014-9357 (docker): xz is nobody’s',
      'hostile/compression.test.ts',
      'it looks like xz',
    ],
    [
      'CVE-2024-40635 (containerd): the users of the config',
      'lib/bundle/users.test.ts',
      'CVE-2024-40635',
    ],
    [
      'CVE-2022-23648 (containerd): the volumes of the config',
      'lib/bundle/runtime-config.test.ts',
      'CVE-2022-23648',
    ],
    ['CVE-2021-41190 (OCI): every mixture', 'lib/layout/hostile-layout.test.ts', 'O14: '],
  ]),
)
