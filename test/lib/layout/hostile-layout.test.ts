// Every row of the catalogue of hostile inputs that is about layouts and their documents: what it does, and that
// nothing was written.
import { execFileSync, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { ImageLayout } from '../../../lib/layout/image-layout.ts'
import type { Descriptor } from '../../../lib/oci/descriptor.ts'
import { ociTypes } from '../../../lib/oci/media-type.ts'
import {
  addBlob,
  addImage,
  blobJson,
  fileOf,
  makeImage,
  readJson,
  snapshot,
  tagged,
  writeIndex,
} from './fixture.ts'

type Json = Record<string, unknown>

interface Row {
  readonly name: string
  /** Changes a good layout whose tag `latest` leads to the manifest. */
  readonly damage: (dir: string, manifest: Descriptor) => unknown
  readonly code: string | undefined
  readonly skip?: false | string
}

const isRoot = process.getuid?.() === 0
const canUnshare = isRoot && spawnSync('unshare', ['-m', 'true']).status === 0

/** Replaces the manifest by a changed one. */
function editManifest(change: (manifest: Json) => object | string): Row['damage'] {
  return (dir, manifest) =>
    writeIndex(dir, [
      tagged(addBlob(dir, ociTypes.manifest, change(blobJson(dir, manifest))), 'latest'),
    ])
}

/** Replaces the config by a changed one. */
function editConfig(change: (config: Json) => object | string): Row['damage'] {
  return (dir, manifest) => {
    const config = blobJson(dir, configOf(dir, manifest))
    return editManifest(old => ({
      ...old,
      config: addBlob(dir, ociTypes.config, change(config)),
    }))(dir, manifest)
  }
}

/** Changes the only entry of index.json. */
function editEntry(change: (entry: Json) => unknown): Row['damage'] {
  return dir => {
    const { manifests } = readJson(join(dir, 'index.json')) as { manifests: Json[] }
    writeIndex(dir, manifests.map(change))
  }
}

/** Replaces a file by text. */
function put(name: string, content: string | Buffer): Row['damage'] {
  return dir => writeFileSync(join(dir, name), content)
}

/** Replaces a file or directory by something else. */
function replace(name: string, by: (path: string) => unknown): Row['damage'] {
  return dir => {
    rmSync(join(dir, name), { recursive: true })
    return by(join(dir, name))
  }
}

function replaceBlob(
  of: (dir: string, manifest: Descriptor) => Descriptor,
  by: (path: string) => unknown,
): Row['damage'] {
  return (dir, manifest) => {
    const path = fileOf(dir, of(dir, manifest))
    rmSync(path)
    return by(path)
  }
}

const configOf = (dir: string, manifest: Descriptor): Descriptor =>
  blobJson(dir, manifest)['config'] as Descriptor
const layerOf = (dir: string, manifest: Descriptor): Descriptor =>
  (blobJson(dir, manifest)['layers'] as Descriptor[])[0] as Descriptor
const itself = (_dir: string, manifest: Descriptor): Descriptor => manifest

function flipBit(path: string): void {
  const bytes = readFileSync(path)
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1
  writeFileSync(path, bytes)
}

const kinds: ReadonlyArray<
  readonly [what: string, make: (path: string) => unknown, skip?: string | false]
> = [
  ['a fifo', path => execFileSync('mkfifo', [path])],
  ['a directory', path => mkdirSync(path)],
  [
    'a link to a fifo',
    path => {
      execFileSync('mkfifo', [`${path}.fifo`])
      symlinkSync(`${path}.fifo`, path)
    },
  ],
  ['a link to /dev/zero', path => symlinkSync('/dev/zero', path)],
  [
    'a device',
    path => execFileSync('mknod', [path, 'c', '1', '5']),
    !isRoot && 'needs root: mknod',
  ],
  ['a socket', listen],
]

function listen(path: string): Promise<void> {
  // too long a path for a socket: bind it by a relative one
  const before = process.cwd()
  process.chdir(join(path, '..'))
  return new Promise(done => {
    const server = createServer()
    server.listen(path.slice(path.lastIndexOf('/') + 1), () => {
      process.chdir(before)
      sockets.push(server)
      done()
    })
  })
}
const sockets: Array<ReturnType<typeof createServer>> = []
t.teardown(() => {
  for (const server of sockets) server.close()
})

const blobs = [
  ['manifest', itself],
  ['config', configOf],
  ['layer', layerOf],
] as const

const rows: Row[] = [
  // O01, O11, O19: blobs
  ...blobs.flatMap(([what, of]): Row[] => [
    {
      name: `O01: one bit of the ${what} is wrong`,
      damage: (d, m) => flipBit(fileOf(d, of(d, m))),
      code: 'DIGEST_MISMATCH',
    },
    {
      name: `O02: the ${what} is one byte longer`,
      damage: (d, m) => appendFileSync(fileOf(d, of(d, m)), 'x'),
      code: 'SIZE_MISMATCH',
    },
    {
      name: `O02: the ${what} is one byte shorter`,
      damage: (d, m) => truncateSync(fileOf(d, of(d, m)), of(d, m).size - 1),
      code: 'SIZE_MISMATCH',
    },
    {
      name: `O02: the ${what} is empty`,
      damage: (d, m) => truncateSync(fileOf(d, of(d, m))),
      code: 'SIZE_MISMATCH',
    },
    {
      name: `O11: the ${what} is missing`,
      damage: (d, m) => rmSync(fileOf(d, of(d, m))),
      code: 'BLOB_NOT_FOUND',
    },
    {
      name: `O19: the ${what} is a dangling link`,
      damage: replaceBlob(of, path => symlinkSync('nowhere', path)),
      code: 'BLOB_NOT_FOUND',
    },
    {
      name: `O19: the ${what} is a link to itself`,
      damage: replaceBlob(of, path => symlinkSync(path, path)),
      code: 'IO',
    },
    ...kinds.map(([kind, make, skip = false]): Row => ({
      name: `O19: the ${what} is ${kind}`,
      damage: replaceBlob(of, make),
      code: 'INVALID_LAYOUT',
      skip,
    })),
  ]),

  // O02, O06, O07: descriptors
  {
    name: 'O02: size + 1',
    damage: editEntry(e => ({ ...e, size: (e['size'] as number) + 1 })),
    code: 'SIZE_MISMATCH',
  },
  { name: 'O02: size 0', damage: editEntry(e => ({ ...e, size: 0 })), code: 'SIZE_MISMATCH' },
  {
    name: 'O02: negative size',
    damage: editEntry(e => ({ ...e, size: -5 })),
    code: 'INVALID_DESCRIPTOR',
  },
  {
    name: 'O02: size 2^53 + 2',
    damage: editEntry(e => ({ ...e, size: 2 ** 53 + 2 })),
    code: 'INVALID_DESCRIPTOR',
  },
  {
    name: 'O02: a fraction as size',
    damage: editEntry(e => ({ ...e, size: 1.5 })),
    code: 'INVALID_DESCRIPTOR',
  },
  {
    name: 'O02: a string as size',
    damage: editEntry(e => ({ ...e, size: '5' })),
    code: 'INVALID_DESCRIPTOR',
  },
  {
    name: 'O02: a manifest over 4 MiB',
    damage: editManifest(m => `${JSON.stringify(m)}${' '.repeat(4 * 1024 * 1024)}`),
    code: 'LIMIT_EXCEEDED',
  },
  {
    name: 'O02: a manifest of 2^50 bytes',
    damage: editEntry(e => ({ ...e, size: 2 ** 50 })),
    code: 'LIMIT_EXCEEDED',
  },
  {
    name: 'O06: sha3',
    damage: editEntry(e => ({ ...e, digest: `sha3:${'a'.repeat(64)}` })),
    code: 'UNSUPPORTED_ALGORITHM',
  },
  {
    name: 'O06: md5 for a layer',
    damage: editManifest(m => ({
      ...m,
      layers: [{ mediaType: 'a/b', size: 1, digest: 'md5:aa' }],
    })),
    code: 'UNSUPPORTED_ALGORITHM',
  },
  {
    name: 'O07: a digest that climbs',
    damage: editEntry(e => ({ ...e, digest: 'sha256:../../oci-layout' })),
    code: 'INVALID_DIGEST',
  },
  {
    name: 'O07: a digest of 1 MiB',
    damage: editEntry(e => ({ ...e, digest: `sha256:${'a'.repeat(1024 * 1024)}` })),
    code: 'INVALID_DIGEST',
  },
  {
    name: 'O07: a digest with NUL',
    damage: editEntry(e => ({ ...e, digest: `sha256:${'a'.repeat(63)}\0` })),
    code: 'INVALID_DIGEST',
  },

  // O03 to O05: the config belongs to the manifest
  {
    name: 'O03: an upper-case DiffID',
    damage: editConfig(c => ({
      ...c,
      rootfs: { type: 'layers', diff_ids: [`sha256:${'A'.repeat(64)}`] },
    })),
    code: 'INVALID_DIGEST',
  },
  {
    name: 'O04: more DiffIDs than layers',
    damage: editManifest(m => ({ ...m, layers: [] })),
    code: 'INVALID_CONFIG',
  },
  {
    name: 'O04: more layers than DiffIDs',
    damage: editConfig(c => ({ ...c, rootfs: { type: 'layers', diff_ids: [] } })),
    code: 'INVALID_CONFIG',
  },
  {
    name: 'O05: rootfs.type is another',
    damage: editConfig(c => ({ ...c, rootfs: { ...(c['rootfs'] as Json), type: 'x' } })),
    code: 'INVALID_CONFIG',
  },
  {
    name: 'O22: the config is its own layer',
    damage: (d, m) => editManifest(old => ({ ...old, layers: [configOf(d, m)] }))(d, m),
    code: 'UNSUPPORTED_MEDIA_TYPE',
  },

  // O12: oci-layout
  {
    name: 'O12: no oci-layout',
    damage: dir => rmSync(join(dir, 'oci-layout')),
    code: 'INVALID_LAYOUT',
  },
  { name: 'O12: garbage in oci-layout', damage: put('oci-layout', 'x'), code: 'INVALID_JSON' },
  {
    name: 'O12: a list in oci-layout',
    damage: put('oci-layout', '[]'),
    code: 'INVALID_LAYOUT',
  },
  {
    name: 'O12: version 2.0.0',
    damage: put('oci-layout', '{"imageLayoutVersion":"2.0.0"}'),
    code: 'UNSUPPORTED_VERSION',
  },
  {
    name: 'O12: a number as version',
    damage: put('oci-layout', '{"imageLayoutVersion":1}'),
    code: 'INVALID_LAYOUT',
  },
  {
    name: 'O12: an oci-layout of 64 MiB',
    damage: put('oci-layout', Buffer.alloc(64 * 1024 * 1024, ' ')),
    code: 'LIMIT_EXCEEDED',
  },
  {
    name: 'O12: no blobs',
    damage: dir => rmSync(join(dir, 'blobs'), { recursive: true }),
    code: 'INVALID_LAYOUT',
  },
  {
    name: 'O12: no index.json',
    damage: dir => rmSync(join(dir, 'index.json')),
    code: 'INVALID_LAYOUT',
  },
  {
    name: 'O12: an empty directory',
    damage: dir => {
      rmSync(dir, { recursive: true })
      mkdirSync(dir)
    },
    code: 'INVALID_LAYOUT',
  },
  {
    name: 'O12: nothing at all',
    damage: dir => rmSync(dir, { recursive: true }),
    code: 'INVALID_LAYOUT',
  },

  // O13: JSON
  {
    name: 'O13: index.json is truncated',
    damage: dir => truncateSync(join(dir, 'index.json'), 50),
    code: 'INVALID_JSON',
  },
  { name: 'O13: index.json is empty', damage: put('index.json', ''), code: 'INVALID_JSON' },
  {
    name: 'O13: index.json has trailing garbage',
    damage: dir => appendFileSync(join(dir, 'index.json'), '}'),
    code: 'INVALID_JSON',
  },
  {
    name: 'O13: index.json has a byte order mark',
    damage: dir =>
      put('index.json', `\ufeff${readFileSync(join(dir, 'index.json'), 'utf8')}`)(
        dir,
        {} as Descriptor,
      ),
    code: 'INVALID_JSON',
  },
  {
    name: 'O13: index.json is not UTF-8',
    damage: put('index.json', Buffer.from('{"schemaVersion":2,"x":"\xff"}', 'latin1')),
    code: 'INVALID_JSON',
  },
  {
    name: 'O13: index.json has manifests twice',
    damage: put('index.json', '{"schemaVersion":2,"manifests":[],"manifests":[]}'),
    code: 'INVALID_JSON',
  },
  {
    name: 'O13: index.json has Manifests',
    damage: put('index.json', '{"schemaVersion":2,"Manifests":[]}'),
    code: 'INVALID_JSON',
  },
  {
    name: 'O13: index.json is 10^5 deep',
    damage: put('index.json', '['.repeat(100_000)),
    code: 'LIMIT_EXCEEDED',
  },
  {
    name: 'O13: index.json has 64 MiB',
    damage: put('index.json', Buffer.alloc(64 * 1024 * 1024, ' ')),
    code: 'LIMIT_EXCEEDED',
  },
  {
    name: 'O13: the manifest has Layers beside layers',
    damage: editManifest(m => ({ ...m, Layers: [] })),
    code: 'INVALID_JSON',
  },
  {
    name: 'O13: the manifest has layers twice',
    damage: editManifest(m => JSON.stringify(m).replace('"layers":', '"layers":[],"layers":')),
    code: 'INVALID_JSON',
  },
  {
    name: 'O13: the config has Rootfs',
    damage: editConfig(c => ({ ...c, Rootfs: {} })),
    code: 'INVALID_JSON',
  },
  {
    name: 'O13: the config is deep',
    damage: editConfig(c =>
      JSON.stringify({ ...c, deep: 0 }).replace(
        '"deep":0',
        `"deep":${'['.repeat(101)}${']'.repeat(101)}`,
      ),
    ),
    code: 'LIMIT_EXCEEDED',
  },
  {
    name: 'O13: the config is over 4 MiB',
    damage: editConfig(c => ({ ...c, x: 'x'.repeat(4 * 1024 * 1024) })),
    code: 'LIMIT_EXCEEDED',
  },
  {
    name: 'O13: __proto__ in the config is harmless',
    damage: editConfig(c => JSON.stringify(c).replace('{', '{"__proto__":{"os":"evil"},')),
    code: undefined,
  },
  {
    name: 'O13: 1e400 and a lone surrogate in the config are harmless',
    damage: editConfig(c => JSON.stringify(c).replace('{', '{"big":1e400,"odd":"\\ud800",')),
    code: undefined,
  },

  // O14, O15: what kind of document
  {
    name: 'O14: the manifest has manifests, too',
    damage: editManifest(m => ({ ...m, manifests: [] })),
    code: 'INVALID_MANIFEST',
  },
  {
    name: 'O14: index.json has layers, too',
    damage: dir => writeIndex(dir, [], { layers: [] }),
    code: 'INVALID_INDEX',
  },
  {
    name: 'O14: index.json has config, too',
    damage: dir => writeIndex(dir, [], { config: {} }),
    code: 'INVALID_INDEX',
  },
  {
    name: 'O14: index.json says it is a manifest',
    damage: dir => writeIndex(dir, [], { mediaType: ociTypes.manifest }),
    code: 'INVALID_INDEX',
  },
  {
    name: 'O14: a manifest is called an index',
    damage: editEntry(e => ({ ...e, mediaType: ociTypes.index })),
    code: 'INVALID_INDEX',
  },
  {
    name: 'O14: the manifest says it is an index',
    damage: editManifest(m => ({ ...m, mediaType: ociTypes.index })),
    code: 'INVALID_MANIFEST',
  },
  {
    name: 'O14: an index is called a manifest',
    damage: (d, m) =>
      writeIndex(d, [
        tagged(addBlob(d, ociTypes.manifest, { schemaVersion: 2, manifests: [m] }), 'latest'),
      ]),
    code: 'INVALID_MANIFEST',
  },
  {
    name: 'O15: index.json of schemaVersion 1',
    damage: dir => writeIndex(dir, [], { schemaVersion: 1 }),
    code: 'INVALID_INDEX',
  },
  {
    name: 'O15: a manifest of schemaVersion 1',
    damage: editManifest(m => ({ ...m, schemaVersion: 1 })),
    code: 'INVALID_MANIFEST',
  },
  {
    name: 'O15: a manifest without schemaVersion',
    damage: editManifest(m => ({ ...m, schemaVersion: undefined })),
    code: 'INVALID_MANIFEST',
  },

  // O18: embedded data
  {
    name: 'O18: data that is not base64',
    damage: editEntry(e => ({ ...e, data: '?' })),
    code: 'INVALID_DESCRIPTOR',
  },
  {
    name: 'O18: data of another size',
    damage: editEntry(e => ({ ...e, data: 'aGVsbG8=' })),
    code: 'SIZE_MISMATCH',
  },
  {
    name: 'O18: data of the right size and another digest',
    damage: editEntry(e => ({
      ...e,
      data: Buffer.alloc(e['size'] as number).toString('base64'),
    })),
    code: 'DIGEST_MISMATCH',
  },

  // O19: other files
  ...['index.json', 'oci-layout'].flatMap(name => [
    ...kinds.map(([kind, make, skip = false]): Row => ({
      name: `O19: ${name} is ${kind}`,
      damage: replace(name, make),
      code: 'INVALID_LAYOUT',
      skip,
    })),
    {
      name: `O19: ${name} is a dangling link`,
      damage: replace(name, path => symlinkSync('nowhere', path)),
      code: 'INVALID_LAYOUT',
    },
  ]),
  ...kinds
    .filter(([kind]) => kind !== 'a directory')
    .map(([kind, make, skip = false]): Row => ({
      name: `O19: blobs is ${kind}`,
      damage: replace('blobs', make),
      code: 'INVALID_LAYOUT',
      skip,
    })),
  {
    name: 'O19: blobs is a dangling link',
    damage: replace('blobs', path => symlinkSync('nowhere', path)),
    code: 'INVALID_LAYOUT',
  },
  {
    name: 'O19: blobs/sha256 is a file',
    damage: replace('blobs/sha256', path => writeFileSync(path, '')),
    code: 'BLOB_NOT_FOUND',
  },
  {
    name: 'O19: index.json is a link to a regular file',
    damage: dir => {
      const { index, text } = {
        index: join(dir, 'index.json'),
        text: readFileSync(join(dir, 'index.json')),
      }
      writeFileSync(join(dir, 'real'), text)
      rmSync(index)
      symlinkSync('real', index)
    },
    code: undefined,
  },

  // O23, O24 and the rest
  {
    name: 'O23: annotations with terminal escapes are only data',
    damage: editEntry(e => ({
      ...e,
      annotations: { ...(e['annotations'] as Json), 'x\u001b]0;pwned\u0007': '\u001b[2J' },
    })),
    code: undefined,
  },
  {
    name: 'O24: an artifact',
    damage: editManifest(m => ({
      ...m,
      config: {
        mediaType: ociTypes.empty,
        digest: `sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a`,
        size: 2,
        data: 'e30=',
      },
    })),
    code: 'UNSUPPORTED_MEDIA_TYPE',
  },
  {
    name: 'O16: an unknown media type',
    damage: editEntry(e => ({ ...e, mediaType: 'application/x' })),
    code: 'UNSUPPORTED_MEDIA_TYPE',
  },
]

for (const { name, damage, code, skip = false } of rows)
  await t.test(name, { skip, timeout: 20_000 }, async t => {
    const dir = join(t.testdir(), 'image')
    const manifest = makeImage(dir)
    await damage(dir, manifest)
    const before = snapshot(dir)
    const reading = readAll(dir)
    if (code === undefined) await t.resolves(reading)
    else await t.rejects(reading, { code: `ERR_KOCI_${code}`, message: /^[^\p{Cc}]{1,2000}$/u })
    t.same(snapshot(dir), before, 'nothing was written')
  })

await t.test('The undamaged layout of these rows is readable', async t => {
  const dir = join(t.testdir(), 'image')
  makeImage(dir)
  await t.resolves(readAll(dir))
})

await t.test(
  'O08: a hostile tag is only text: found, listed with escapes, never set',
  async t => {
    const dir = t.testdir()
    const image = makeImage(dir)
    const names = [
      '../../x',
      '/etc/passwd',
      'a\u001b[31m',
      'x'.repeat(1024 * 1024),
      '__proto__',
      '',
    ]
    writeIndex(
      dir,
      names.map(name => tagged(image, name)),
    )
    await using layout = await ImageLayout.open(dir)
    for (const name of names) {
      t.equal((await layout.resolve(name)).descriptor.digest, image.digest)
      if (name === '__proto__') continue
      const before = snapshot(dir)
      await t.rejects(layout.setRef(name === '' ? '.' : name.slice(0, 99) + '!', image), {
        code: 'ERR_KOCI_INVALID_REFERENCE',
      })
      t.same(snapshot(dir), before)
    }
  },
)

await t.test('O19: index.json may be replaced while it is read', async t => {
  const dir = t.testdir()
  const image = addImage((makeImage(dir), dir), { layers: ['other'] })
  await using layout = await ImageLayout.open(dir)
  const names = new Set<string>()
  for (let round = 0; round < 200; round++) {
    const reading = layout.refs()
    await layout.setRef(`t${round % 2}`, image)
    for (const { refName } of await reading) names.add(refName)
  }
  t.ok(names.has('latest'))
})

await t.test(
  'O25: a layout that cannot be written can be read',
  { skip: !canUnshare && 'needs root and a root directory that is a mount: unshare -m' },
  async t => {
    const dir = t.testdir()
    makeImage(dir)
    const script = `
    import { ImageLayout } from ${JSON.stringify(new URL('../../../lib/layout/image-layout.ts', import.meta.url))}
    const layout = await ImageLayout.open(${JSON.stringify(dir)})
    const image = await layout.resolve('latest')
    await layout.locateBlob(image.layers[0].descriptor)
    await layout.setRef('x', image.descriptor).catch(error => console.log(error.code, error.cause.code))
    await layout.close()`
    const output = execFileSync(
      'unshare',
      [
        '-m',
        'sh',
        '-c',
        `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$1" --input-type=module-typescript -e "$2"`,
        dir,
        process.execPath,
        script,
      ],
      { encoding: 'utf8', timeout: 30_000 },
    )
    t.equal(output, 'ERR_KOCI_IO EROFS\n')
  },
)

async function readAll(dir: string): Promise<void> {
  await using layout = await ImageLayout.open(dir)
  const { layers } = await layout.resolve('latest')
  for (const { descriptor } of layers) {
    await layout.locateBlob(descriptor)
    await layout.readBlob(descriptor)
  }
}
