import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import t from 'tap'
import { collectGarbage } from '../../../lib/layout/gc.ts'
import { ImageLayout } from '../../../lib/layout/image-layout.ts'
import { tarBytes, type TarMember } from '../../support/tar-builder.ts'
import { digestText, fileOf, layerTar, makeImage, snapshot } from './fixture.ts'

type Members = TarMember[]

/** The members of an OCI archive, as they lie in a layout directory. */
function layoutMembers(dir: string): Members {
  makeImage(dir, { layers: ['one', 'two'] })
  const names = execFileSync('find', ['.', '-type', 'f'], { cwd: dir, encoding: 'utf8' })
  return names
    .trim()
    .split('\n')
    .map(name => ({ name, body: readFileSync(join(dir, name)) }))
}

function write(dir: string, members: Members | Buffer): string {
  const path = join(dir, 'image.tar')
  writeFileSync(path, Buffer.isBuffer(members) ? members : tarBytes(members))
  return path
}

/** Reads one image through; gives the content of its layers. */
async function readThrough(path: string, name = 'latest'): Promise<Buffer[]> {
  await using layout = await ImageLayout.open(path)
  t.ok(layout.readOnly)
  const { layers } = await layout.resolve(name)
  return Promise.all(
    layers.map(async ({ descriptor }) => {
      const { path, offset, size } = await layout.locateBlob(descriptor)
      const bytes = await layout.readBlob(descriptor)
      t.same(readFileSync(path).subarray(offset, offset + size), bytes)
      return bytes
    }),
  )
}

const styles: Array<[name: string, change: (member: TarMember) => TarMember[]]> = [
  ['plain', member => [member]],
  ['without ./', member => [{ ...member, name: String(member.name).slice(2) }]],
  ['pax names', member => [{ ...member, name: 'x', pax: [['path', member.name ?? '']] }]],
  [
    'pax sizes',
    member => [{ ...member, size: 0, pax: [['size', String(member.body?.length)]] }],
  ],
  [
    'base-256 sizes',
    member => [{ ...member, raw: [[124, base256(member.body?.length ?? 0)]] }],
  ],
  [
    'GNU long names',
    member => [
      {
        name: '././@LongLink',
        type: 'gnuLongName',
        body: `${String(member.name)}\0`,
        magic: 'ustar  \0',
      },
      { ...member, name: 'cut', magic: 'ustar  \0' },
    ],
  ],
  [
    'a pax header and GNU long names together',
    member => [
      {
        name: '././@LongLink',
        type: 'gnuLongName',
        body: `${String(member.name)}\0`,
        magic: 'ustar  \0',
        pax: [
          ['path', 'other'],
          ['size', String(member.body?.length)],
        ],
      },
      { ...member, size: 0, name: 'cut' },
    ],
  ],
  [
    'directories and global headers between',
    member => [
      { name: 'blobs/', type: 'directory' },
      { name: 'g', type: 'paxGlobal', body: '11 path=no\n' },
      member,
    ],
  ],
]
for (const [name, change] of styles)
  await t.test(`Reads an OCI archive where it lies: ${name}`, async t => {
    const dir = t.testdir()
    const path = write(dir, layoutMembers(join(dir, 'layout')).flatMap(change))
    const before = snapshot(dir)
    t.same(
      await readThrough(path),
      ['one', 'two'].map(content => gzipSync(layerTar(content))),
    )
    t.same(snapshot(dir), before)
  })

await t.test('Reads what tar makes of a layout', async t => {
  const dir = t.testdir()
  makeImage(join(dir, 'layout'))
  for (const format of ['gnu', 'ustar', 'pax', 'v7']) {
    execFileSync('tar', [
      '-C',
      join(dir, 'layout'),
      `--format=${format}`,
      '-cf',
      join(dir, 'image.tar'),
      '.',
    ])
    t.same(await readThrough(join(dir, 'image.tar')), [gzipSync(layerTar('one'))], format)
  }
})

await t.test('The last member of a name counts, as after extraction', async t => {
  const dir = t.testdir()
  const members = layoutMembers(join(dir, 'layout'))
  const stale = { name: 'index.json', body: '{"schemaVersion":2,"manifests":[]}' }
  t.equal((await readThrough(write(dir, [stale, ...members]))).length, 2)
  await t.rejects(readThrough(write(dir, [...members, stale])), {
    code: 'ERR_KOCI_REF_NOT_FOUND',
  })
})

await t.test('Every change of an archive is refused', async t => {
  const dir = t.testdir()
  const path = write(dir, layoutMembers(join(dir, 'layout')))
  await using layout = await ImageLayout.open(path)
  const { descriptor } = await layout.resolve('latest')
  const before = snapshot(dir)
  const changes: Array<() => Promise<unknown>> = [
    () => layout.putBlob(Buffer.from('x'), 'a/b'),
    () => layout.createBlob(),
    async () => layout.setRef('x', descriptor),
    () => layout.removeRef('latest'),
    () => collectGarbage(layout),
  ]
  for (const change of changes)
    await t.rejects(change(), { code: 'ERR_KOCI_READ_ONLY', message: /archive/ })
  t.same(snapshot(dir), before)
})

await t.test('A compressed archive is refused with the remedy', async t => {
  const dir = t.testdir()
  const tar = tarBytes(layoutMembers(join(dir, 'layout')))
  for (const [bytes, message] of [
    [gzipSync(tar), /compressed with gzip - decompress it first, with gunzip$/],
    [zstdCompressSync(tar), /compressed with zstd - .* unzstd$/],
    [Buffer.from('BZh91AY&SY'), /compressed with bzip2/],
    [Buffer.from('fd377a585a000004', 'hex'), /compressed with xz/],
  ] as const)
    await t.rejects(ImageLayout.open(write(dir, bytes)), {
      code: 'ERR_KOCI_INVALID_LAYOUT',
      message,
    })
})

const garbage: Array<
  [name: string, bytes: (tar: Buffer, members: Members) => Buffer | Members, code: string]
> = [
  ['empty file', () => Buffer.alloc(0), 'INVALID_LAYOUT'],
  ['nothing but zeros', () => Buffer.alloc(10_240), 'INVALID_LAYOUT'],
  ['text', () => Buffer.alloc(5000, 'some text '), 'BAD_ARCHIVE'],
  ['less than a header', () => Buffer.from('x'), 'BAD_ARCHIVE'],
  [
    'wrong checksum',
    tar => {
      tar[10] = 0x41
      return tar
    },
    'BAD_ARCHIVE',
  ],
  ['cut in a body', tar => tar.subarray(0, 512 + 10), 'BAD_ARCHIVE'],
  [
    'cut in a header',
    (tar, [first]) =>
      tar.subarray(0, 512 + Math.ceil((first?.body?.length ?? 0) / 512) * 512 + 100),
    'BAD_ARCHIVE',
  ],
  [
    'one zero block in the middle',
    (_, members) => Buffer.concat([Buffer.alloc(512), tarBytes(members)]),
    'BAD_ARCHIVE',
  ],
  [
    'a size of 2^60',
    (_, [first, ...rest]) => [{ ...first, raw: [[124, base256(2 ** 60)]] }, ...rest],
    'BAD_ARCHIVE',
  ],
  [
    'a size that is no number',
    (_, [first, ...rest]) => [{ ...first, raw: [[124, 'zzzzzzzzzzz ']] }, ...rest],
    'BAD_ARCHIVE',
  ],
  [
    'a pax size that is no number',
    (_, [first, ...rest]) => [{ ...first, pax: [['size', '-1']] }, ...rest],
    'BAD_ARCHIVE',
  ],
  [
    'a malformed pax record',
    (_, [first, ...rest]) => [{ ...first, rawPax: '99 path=x\n' }, ...rest],
    'BAD_ARCHIVE',
  ],
  [
    'a pax header of 2 MiB',
    (_, [first, ...rest]) => [{ ...first, pax: [['comment', 'x'.repeat(2 ** 21)]] }, ...rest],
    'BAD_ARCHIVE',
  ],
  ['no layout in it', () => [{ name: 'file', body: 'x' }], 'INVALID_LAYOUT'],
  [
    'no index.json',
    (_, members) => members.filter(({ name }) => name !== './index.json'),
    'INVALID_LAYOUT',
  ],
  [
    'a directory as index.json',
    (_, members) => [...members, { name: 'index.json/', type: 'directory' }],
    'INVALID_LAYOUT',
  ],
  [
    'a device as index.json',
    (_, members) => [...members, { name: 'index.json', type: 'char' }],
    'INVALID_LAYOUT',
  ],
  [
    'a sparse index.json',
    (_, members) => [
      ...members,
      { name: 'index.json', body: 'x', pax: [['GNU.sparse.major', '1']] },
    ],
    'INVALID_LAYOUT',
  ],
  [
    'a link to itself as index.json',
    (_, members) => [
      ...members,
      { name: 'index.json', type: 'symlink', linkname: 'index.json' },
    ],
    'INVALID_LAYOUT',
  ],
  [
    'a link out of the archive',
    (_, members) => [
      ...members,
      { name: 'index.json', type: 'symlink', linkname: '/etc/passwd' },
    ],
    'INVALID_LAYOUT',
  ],
  [
    'an oci-layout of 1 MiB',
    (_, members) => [...members, { name: 'oci-layout', body: Buffer.alloc(2 ** 20, ' ') }],
    'LIMIT_EXCEEDED',
  ],
  [
    'version 2.0.0',
    (_, members) => [
      ...members,
      { name: 'oci-layout', body: '{"imageLayoutVersion":"2.0.0"}' },
    ],
    'UNSUPPORTED_VERSION',
  ],
  [
    'a missing layer',
    (_, members) =>
      members.filter(({ body }) => !gzipSync(layerTar('one')).equals(body as Buffer)),
    'BLOB_NOT_FOUND',
  ],
  [
    'a damaged layer',
    (_, members) =>
      members.map(member =>
        gzipSync(layerTar('one')).equals(member.body as Buffer)
          ? { ...member, body: gzipSync(layerTar('two')) }
          : member,
      ),
    'DIGEST_MISMATCH',
  ],
]
for (const [name, damage, code] of garbage)
  await t.test(`Refuses an archive: ${name}`, async t => {
    const dir = t.testdir()
    const members = layoutMembers(join(dir, 'layout'))
    const path = write(dir, damage(tarBytes(members), members))
    const before = snapshot(dir)
    await t.rejects(readThrough(path), { code: `ERR_KOCI_${code}` })
    t.same(snapshot(dir), before)
  })

await t.test('An archive may end without zero blocks, as for Go', async t => {
  const dir = t.testdir()
  const members = layoutMembers(join(dir, 'layout'))
  for (const tail of [Buffer.alloc(0), Buffer.alloc(512), Buffer.alloc(1024 + 5, 0)]) {
    const path = write(dir, Buffer.concat([tarBytes(members, { end: false }), tail]))
    t.equal((await readThrough(path)).length, 2)
  }
})

// --- docker save

interface SavedSpec {
  readonly id: string
  readonly tags?: string[] | null
  readonly layers: ReadonlyArray<readonly [name: string, body: Buffer]>
  readonly diffIDs?: string[]
}

function saved(specs: readonly SavedSpec[]): Members {
  const members: Members = []
  const images = specs.map(({ id, tags, layers, diffIDs }) => {
    const diff_ids = diffIDs ?? layers.map(([, body]) => digestText(body))
    const body = JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      id,
      rootfs: { type: 'layers', diff_ids },
    })
    members.push(
      { name: `${id}.json`, body },
      ...layers.map(([name, body]) => ({ name, body })),
    )
    return { Config: `${id}.json`, RepoTags: tags, Layers: layers.map(([name]) => name) }
  })
  return [
    ...members,
    { name: 'manifest.json', body: JSON.stringify(images) },
    { name: 'repositories', body: '{}' },
  ]
}

const [one, two] = [layerTar('one'), layerTar('two')]

await t.test(
  'docker save: full names are tags, and short ones where they are unique',
  async t => {
    const dir = t.testdir()
    const path = write(
      dir,
      saved([
        {
          id: 'a',
          tags: ['alpine:3.20', 'localhost:5000/alpine:latest'],
          layers: [['a/layer.tar', one]],
        },
        {
          id: 'b',
          tags: ['busybox:latest', 'busybox:1.36'],
          layers: [
            ['b/layer.tar', one],
            ['c/layer.tar', two],
          ],
        },
        { id: 'c', tags: null, layers: [] },
      ]),
    )
    await using layout = await ImageLayout.open(path)
    t.ok(layout.readOnly)
    const refs = await layout.refs()
    const config = (id: string): string => saved([{ id, layers: [] }])[0]?.body as string
    t.same(
      refs.map(({ refName }) => refName),
      [
        'alpine:3.20',
        'localhost:5000/alpine:latest',
        '3.20',
        'busybox:latest',
        'busybox:1.36',
        '1.36',
        createHash('sha256').update(config('c')).digest('hex'),
      ],
    )
    for (const [name, expected] of [
      ['3.20', [one]],
      ['busybox:latest', [one, two]],
      ['localhost:5000/alpine:latest', [one]],
    ] as const)
      t.same(await readThrough(path, name), expected)
    await t.rejects(layout.resolve('latest'), {
      code: 'ERR_KOCI_REF_NOT_FOUND',
      message: /it has alpine:3.20, /,
    })
  },
)

await t.test(
  'docker save: links between layers are resolved inside of the archive',
  async t => {
    const dir = t.testdir()
    const members = saved([
      {
        id: 'a',
        tags: ['x:1'],
        layers: [
          ['a/layer.tar', one],
          ['b/layer.tar', one],
          ['c/layer.tar', one],
        ],
      },
    ]).filter(({ name }) => name !== 'b/layer.tar' && name !== 'c/layer.tar')
    members.push(
      { name: 'b/layer.tar', type: 'symlink', linkname: '../a/layer.tar' },
      { name: 'c/layer.tar', type: 'hardlink', linkname: './b/layer.tar' },
    )
    t.same(await readThrough(write(dir, members), '1'), [one, one, one])
  },
)

await t.test(
  'docker save: compressed layers, which other tools put there, are recognised',
  async t => {
    const dir = t.testdir()
    const path = write(
      dir,
      saved([
        {
          id: 'a',
          tags: ['x:1'],
          layers: [
            ['a.tar.gz', gzipSync(one)],
            ['b.tar.zst', zstdCompressSync(two)],
          ],
          diffIDs: [digestText(one), digestText(two)],
        },
      ]),
    )
    t.same(await readThrough(path, '1'), [gzipSync(one), zstdCompressSync(two)])
    await using layout = await ImageLayout.open(path)
    const { layers } = await layout.resolve('1')
    t.same(
      layers.map(({ compression, diffID }) => [compression, diffID]),
      [
        ['gzip', digestText(one)],
        ['zstd', digestText(two)],
      ],
    )
  },
)

const badSaves: Array<[name: string, members: Members, code: string]> = [
  [
    'a layer is not what the config says',
    saved([{ id: 'a', tags: ['x:1'], layers: [['a.tar', one]], diffIDs: [digestText(two)] }]),
    'DIGEST_MISMATCH',
  ],
  [
    'fewer DiffIDs than layers',
    saved([{ id: 'a', tags: ['x:1'], layers: [['a.tar', one]], diffIDs: [] }]),
    'INVALID_CONFIG',
  ],
  [
    'a DiffID is malformed',
    saved([{ id: 'a', tags: ['x:1'], layers: [['a.tar', one]], diffIDs: ['sha256:x'] }]),
    'INVALID_DIGEST',
  ],
  [
    'a layer is missing',
    saved([{ id: 'a', tags: ['x:1'], layers: [['a.tar', one]] }]).filter(
      ({ name }) => name !== 'a.tar',
    ),
    'INVALID_LAYOUT',
  ],
  [
    'the config is missing',
    saved([{ id: 'a', tags: ['x:1'], layers: [] }]).filter(({ name }) => name !== 'a.json'),
    'INVALID_LAYOUT',
  ],
  ['manifest.json is an object', [{ name: 'manifest.json', body: '{}' }], 'INVALID_LAYOUT'],
  ['manifest.json is no JSON', [{ name: 'manifest.json', body: 'x' }], 'INVALID_JSON'],
  [
    'an image lacks Layers',
    [{ name: 'manifest.json', body: '[{"Config":"a"}]' }],
    'INVALID_LAYOUT',
  ],
  [
    'an image has layers',
    [{ name: 'manifest.json', body: '[{"Config":"a","layers":[]}]' }],
    'INVALID_JSON',
  ],
  [
    'a layer is a link in a circle',
    [
      ...saved([{ id: 'a', tags: ['x:1'], layers: [['a.tar', one]] }]),
      { name: 'a.tar', type: 'symlink', linkname: 'b' },
      { name: 'b', type: 'hardlink', linkname: 'a.tar' },
    ],
    'INVALID_LAYOUT',
  ],
  [
    'a layer is outside',
    [
      {
        name: 'manifest.json',
        body: '[{"Config":"/etc/passwd","Layers":["../../etc/passwd"]}]',
      },
    ],
    'INVALID_LAYOUT',
  ],
]
for (const [name, members, code] of badSaves)
  await t.test(`docker save: refuses: ${name}`, async t => {
    const dir = t.testdir()
    await t.rejects(readThrough(write(dir, members), '1'), { code: `ERR_KOCI_${code}` })
  })

await t.test(
  'An archive of both kinds, as Docker 25 writes it, is read by its index',
  async t => {
    const dir = t.testdir()
    const members = [
      ...layoutMembers(join(dir, 'layout')),
      { name: 'manifest.json', body: 'not looked at' },
    ]
    t.equal((await readThrough(write(dir, members))).length, 2)
  },
)

await t.test(
  'What is neither a file nor a directory is no layout, and nothing hangs',
  async t => {
    const dir = t.testdir()
    execFileSync('mkfifo', [join(dir, 'fifo')])
    for (const path of [
      join(dir, 'fifo'),
      '/dev/null',
      join(dir, 'missing'),
      join(dir, 'fifo/below'),
    ])
      await t.rejects(ImageLayout.open(path), { code: /ERR_KOCI_(INVALID_LAYOUT|IO)/ }, path)
  },
)

await t.test('An archive that is changed after it was opened fails at the digests', async t => {
  const dir = t.testdir()
  const path = write(dir, layoutMembers(join(dir, 'layout')))
  await using layout = await ImageLayout.open(path)
  const { layers, descriptor } = await layout.resolve('latest')
  const layer = layers[0]?.descriptor ?? descriptor
  writeFileSync(path, Buffer.alloc(readFileSync(path).length))
  await t.rejects(layout.readBlob(layer), { code: 'ERR_KOCI_DIGEST_MISMATCH' })
  writeFileSync(path, '')
  await t.rejects(layout.readBlob(layer), { code: 'ERR_KOCI_SIZE_MISMATCH' })
  mkdirSync(join(dir, 'x'))
  t.ok(fileOf(dir, layer))
})

function base256(value: number): Buffer {
  const field = Buffer.alloc(12)
  field.writeBigUInt64BE(BigInt(value), 4)
  field[0] = 0x80
  return field
}
