import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ImageLayout } from '../../../lib/layout/image-layout.ts'
import type { Descriptor, Platform } from '../../../lib/oci/descriptor.ts'
import { chainIDs } from '../../../lib/oci/chain-id.ts'
import { dockerTypes, ociTypes } from '../../../lib/oci/media-type.ts'
import { hostPlatform, parsePlatform } from '../../../lib/oci/platform.ts'
import { ownTmpdir } from '../../support/own-tmpdir.ts'
import {
  addBlob,
  addImage,
  digestText,
  fileOf,
  layerTar,
  makeImage,
  makeLayout,
  snapshot,
  tagged,
  writeIndex,
} from './fixture.ts'

for (const docker of [false, true])
  for (const algorithm of ['sha256', 'sha512'] as const)
    await t.test(
      `Resolves a tag to its image: ${docker ? 'Docker' : 'OCI'}, ${algorithm}`,
      async t => {
        const dir = t.testdir()
        const descriptor = makeImage(dir, { layers: ['one', 'two'], docker, algorithm })
        const before = snapshot(dir)
        await using layout = await ImageLayout.open(dir)
        t.same(await layout.refs(), [
          { refName: 'latest', descriptor: tagged(descriptor, 'latest') },
        ])
        const image = await layout.resolve('latest')
        t.equal(image.descriptor.digest, descriptor.digest)
        t.equal(image.walk.length, 1)
        t.same(image.config.config, { Cmd: ['sh'] })
        t.same(
          image.layers.map(layer => layer.diffID),
          ['one', 'two'].map(content => digestText(layerTar(content), algorithm)),
          'base first',
        )
        t.same(
          image.layers.map(layer => layer.chainID),
          chainIDs(image.layers.map(layer => layer.diffID)),
        )
        t.same(new Set(image.layers.map(layer => layer.compression)), new Set(['gzip']))
        for (const { descriptor: layer } of image.layers) {
          const { path, offset, size } = await layout.locateBlob(layer)
          t.same(
            readFileSync(path).subarray(offset, offset + size),
            await layout.readBlob(layer),
          )
        }
        t.notOk(layout.readOnly)
        t.same(snapshot(dir), before, 'nothing was written')
      },
    )

await t.test(
  'An image without layers, and one with the same layer twice, are images',
  async t => {
    const dir = makeLayout(t.testdir())
    writeIndex(dir, [
      tagged(addImage(dir, { layers: [] }), 'none'),
      tagged(addImage(dir, { layers: ['a', 'a'] }), 'twice'),
    ])
    await using layout = await ImageLayout.open(dir)
    t.same((await layout.resolve('none')).layers, [])
    const { layers } = await layout.resolve('twice')
    t.equal(layers[0]?.diffID, layers[1]?.diffID)
    t.not(layers[0]?.chainID, layers[1]?.chainID)
  },
)

await t.test('Every media type of a layer tells its compression', async t => {
  const dir = makeLayout(t.testdir())
  const types = {
    'application/vnd.oci.image.layer.v1.tar': 'none',
    'application/vnd.oci.image.layer.nondistributable.v1.tar+zstd': 'zstd',
    'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip': 'gzip',
  }
  // the bytes are gzip in all of them: they don't count
  const layers = Object.keys(types).map(type => ({
    ...addBlob(dir, type, Buffer.from('1f8b08', 'hex')),
    urls: ['http://192.0.2.1/never-fetched'],
  }))
  const diff_ids = layers.map(({ digest }) => digest)
  writeIndex(dir, [
    tagged(
      addImage(dir, { manifest: { layers }, config: { rootfs: { type: 'layers', diff_ids } } }),
      'latest',
    ),
  ])
  await using layout = await ImageLayout.open(dir)
  const image = await layout.resolve('latest')
  t.same(
    image.layers.map(({ compression }) => compression),
    Object.values(types),
  )
})

await t.test('O20: a missing blob is missing, whatever its urls say', async t => {
  const dir = makeLayout(t.testdir())
  const layer = { ...addBlob(dir, 'a/b', 'x'), urls: [`file://${dir}/elsewhere`] }
  renameSync(fileOf(dir, layer), join(dir, 'elsewhere'))
  await using layout = await ImageLayout.open(dir)
  await t.rejects(layout.readBlob(layer), { code: 'ERR_KOCI_BLOB_NOT_FOUND' })
  await t.rejects(layout.locateBlob(layer), { code: 'ERR_KOCI_BLOB_NOT_FOUND' })
})

await t.test('Embedded data serves in place of the file', async t => {
  const dir = makeLayout(t.testdir())
  const temporary = ownTmpdir(t)
  const embed = (descriptor: Descriptor): Descriptor => {
    const data = readFileSync(fileOf(dir, descriptor)).toString('base64')
    renameSync(fileOf(dir, descriptor), join(dir, `gone-${descriptor.digest.slice(7, 20)}`))
    return { ...descriptor, data }
  }
  const config = embed(
    addBlob(dir, ociTypes.config, {
      architecture: 'amd64',
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: [digestText(layerTar('x'))] },
    }),
  )
  const layer = embed(addBlob(dir, 'application/vnd.oci.image.layer.v1.tar', layerTar('x')))
  const manifest = embed(
    addBlob(dir, ociTypes.manifest, { schemaVersion: 2, config, layers: [layer] }),
  )
  writeIndex(dir, [tagged(manifest, 'latest')])
  const layout = await ImageLayout.open(dir)
  const image = await layout.resolve('latest')
  const blob = image.layers[0]?.descriptor ?? layer
  t.same(await layout.readBlob(blob), layerTar('x'))
  const location = await layout.locateBlob(blob)
  t.same(location, await layout.locateBlob(blob), 'one file for all readers')
  t.same(readFileSync(location.path), layerTar('x'))
  t.same(readdirSync(temporary), [], 'it has no name')
  await layout.close()
  t.notOk(existsSync(location.path))
})

await t.test(
  'A symbolic link to a regular file is a blob: it is verified all the same',
  async t => {
    const dir = t.testdir()
    const { digest } = makeImage(join(dir, 'image'))
    renameSync(join(dir, 'image/blobs'), join(dir, 'shared'))
    symlinkSync('../shared', join(dir, 'image/blobs'))
    const file = fileOf(join(dir, 'image'), { digest })
    renameSync(file, join(dir, 'store'))
    symlinkSync('../../store', file)
    await using layout = await ImageLayout.open(join(dir, 'image'))
    t.equal((await layout.resolve('latest')).descriptor.digest, digest)
    writeFileSync(join(dir, 'store'), readFileSync(join(dir, 'store')).reverse())
    await t.rejects(layout.resolve('latest'), { code: 'ERR_KOCI_DIGEST_MISMATCH' })
  },
)

await t.test(
  'A relative path stays the same layout when the working directory changes',
  async t => {
    const dir = t.testdir({ other: {} })
    makeImage(join(dir, 'image'))
    const before = process.cwd()
    t.teardown(() => process.chdir(before))
    process.chdir(dir)
    await using layout = await ImageLayout.open('image')
    t.equal(layout.path, 'image')
    process.chdir('other')
    t.ok(await layout.resolve('latest'))
  },
)

await t.test(
  'A missing tag is an error that lists those there are, at most twenty',
  async t => {
    const dir = makeLayout(t.testdir())
    const image = addImage(dir)
    await using layout = await ImageLayout.open(dir)
    await t.rejects(layout.resolve('x'), {
      code: 'ERR_KOCI_REF_NOT_FOUND',
      message: /it is empty/,
    })
    writeIndex(dir, [image])
    await t.rejects(layout.resolve('x'), { message: `it has no tags, only ${image.digest}` })
    t.equal((await layout.resolve(image.digest)).descriptor.digest, image.digest, 'by digest')
    writeIndex(dir, [tagged(image, 'a'), tagged(image, 'b\u001b[31m')])
    await t.rejects(layout.resolve('x'), { message: /it has a, b\\x1b\[31m$/ })
    writeIndex(
      dir,
      Array.from({ length: 50_000 }, (_, at) => tagged(image, `t${at}`)),
    )
    await t.rejects(layout.resolve('x'), { message: /it has t0, t1, .*, t19 and 49980 more$/ })
    await t.rejects(layout.resolve('x'.repeat(1024 * 1024)), {
      code: 'ERR_KOCI_REF_NOT_FOUND',
      message: /^tag x{200}….{0,500}$/,
    })
  },
)

await t.test('O09: a tag of several entries is an error that lists their digests', async t => {
  const dir = makeLayout(t.testdir())
  const images = [addImage(dir, { layers: ['a'] }), addImage(dir, { layers: ['b'] })]
  writeIndex(
    dir,
    images.map(image => tagged(image, 'twice')),
  )
  await using layout = await ImageLayout.open(dir)
  t.equal((await layout.refs()).length, 2)
  await t.rejects(layout.resolve('twice'), {
    code: 'ERR_KOCI_AMBIGUOUS',
    message: new RegExp(images.map(({ digest }) => digest).join('.*')),
  })
})

await t.test("containerd's full name serves where there is no such tag", async t => {
  const dir = makeLayout(t.testdir())
  const named = (layer: string, name: string): Descriptor => {
    const image = tagged(addImage(dir, { layers: [layer] }), 'latest')
    return { ...image, annotations: { ...image.annotations, 'io.containerd.image.name': name } }
  }
  writeIndex(dir, [
    named('a', 'docker.io/library/a:latest'),
    named('b', 'docker.io/library/b:latest'),
  ])
  await using layout = await ImageLayout.open(dir)
  await t.rejects(layout.resolve('latest'), { message: /\(docker.io\/library\/a:latest\)/ })
  const { config } = await layout.resolve('docker.io/library/b:latest')
  t.same(config.rootfs.diff_ids, [digestText(layerTar('b'))])
})

// --- platforms

interface Offer {
  readonly platform?: Platform
  readonly layer: string
}

function makeIndex(dir: string, offers: readonly Offer[], docker = false): Descriptor {
  const manifests = offers.map(({ platform, layer }) => ({
    ...addImage(dir, { layers: [layer], docker, ...(platform ? { platform } : {}) }),
    ...(platform ? { platform } : {}),
  }))
  const mediaType = docker ? dockerTypes.index : ociTypes.index
  return addBlob(dir, mediaType, { schemaVersion: 2, mediaType, manifests })
}

const offer = (platform: string, layer = platform): Offer => ({
  platform: parsePlatform(platform),
  layer,
})
const host = hostPlatform()
const foreign = host.architecture === 's390x' ? 'linux/ppc64le' : 'linux/s390x'

const selections: Array<{
  name: string
  offers: readonly Offer[]
  platform?: string
  taken?: string
  code?: string
  message?: RegExp
}> = [
  {
    name: "the host's by default",
    offers: [offer(foreign), { platform: host, layer: 'host' }],
    taken: 'host',
  },
  {
    name: 'the one that is asked for',
    offers: [offer('linux/amd64'), offer('linux/arm64/v8')],
    platform: 'linux/arm64',
    taken: 'linux/arm64/v8',
  },
  {
    name: 'the nearest variant',
    offers: [offer('linux/arm/v5'), offer('linux/arm/v7'), offer('linux/arm/v6')],
    platform: 'linux/arm/v6',
    taken: 'linux/arm/v6',
  },
  {
    name: 'none fits',
    offers: [offer('linux/amd64'), offer('linux/arm/v7'), offer('windows/amd64')],
    platform: 'linux/riscv64',
    code: 'ERR_KOCI_PLATFORM_NOT_FOUND',
    message: /platform linux\/riscv64 - it holds linux\/amd64, linux\/arm\/v7, windows\/amd64$/,
  },
  {
    name: 'none fits the host',
    offers: [offer(foreign)],
    code: 'ERR_KOCI_PLATFORM_NOT_FOUND',
  },
  {
    name: 'nothing in it',
    offers: [],
    code: 'ERR_KOCI_PLATFORM_NOT_FOUND',
    message: /it holds no image for any$/,
  },
  {
    name: 'several fit',
    offers: [offer('linux/amd64', 'a'), offer('linux/amd64', 'b')],
    platform: 'linux/amd64',
    code: 'ERR_KOCI_AMBIGUOUS',
    message: /sha256:[0-9a-f]{64} \(linux\/amd64\), sha256:[0-9a-f]{64} \(linux\/amd64\)$/,
  },
  {
    name: 'the same one twice',
    offers: [offer('linux/amd64', 'a'), offer('linux/amd64', 'a')],
    platform: 'linux/amd64',
    taken: 'a',
  },
  { name: 'a single one that names no platform', offers: [{ layer: 'only' }], taken: 'only' },
  {
    name: 'a single one that names no platform, asked for the one of its config',
    offers: [{ layer: 'only' }],
    platform: 'linux/amd64',
    taken: 'only',
  },
  {
    name: 'a single one that names no platform, asked for another',
    offers: [{ layer: 'only' }],
    platform: 'linux/s390x',
    code: 'ERR_KOCI_PLATFORM_NOT_FOUND',
    message: /the image is for linux\/amd64$/,
  },
  {
    name: 'one that names no platform beside another, its config being for the right one',
    offers: [offer('linux/s390x'), { layer: 'unnamed' }],
    platform: 'linux/amd64',
    taken: 'unnamed',
  },
  {
    name: 'one that names no platform beside another, its config being for the wrong one',
    offers: [offer('linux/s390x'), { layer: 'unnamed' }],
    platform: 'linux/riscv64',
    code: 'ERR_KOCI_PLATFORM_NOT_FOUND',
    message: /the image is for linux\/amd64$/,
  },
  {
    name: 'several that name none',
    offers: [{ layer: 'a' }, { layer: 'b' }],
    code: 'ERR_KOCI_AMBIGUOUS',
  },
  {
    name: 'an attestation beside the image',
    offers: [offer('unknown/unknown'), offer('linux/amd64')],
    platform: 'linux/amd64',
    taken: 'linux/amd64',
  },
]
for (const docker of [false, true])
  for (const { name, offers, platform, taken, code, message } of selections)
    await t.test(`O17: ${docker ? 'Docker list' : 'index'}: ${name}`, async t => {
      const dir = makeLayout(t.testdir())
      writeIndex(dir, [tagged(makeIndex(dir, offers, docker), 'latest')])
      await using layout = await ImageLayout.open(dir)
      const resolving = layout.resolve(
        'latest',
        platform === undefined ? {} : { platform: parsePlatform(platform) },
      )
      if (taken === undefined)
        return t.rejects(resolving, { code, ...(message ? { message } : {}) })
      const image = await resolving
      t.same(image.config.rootfs.diff_ids, [digestText(layerTar(taken))])
      t.equal(image.walk.length, 2)
      return t.equal(image.walk.at(-1), image.descriptor)
    })

await t.test(
  'O17: a platform that is asked for is compared with the config of a plain manifest',
  async t => {
    const dir = t.testdir()
    makeImage(dir, { platform: { os: 'linux', architecture: 'arm', variant: 'v7' } })
    await using layout = await ImageLayout.open(dir)
    t.ok(await layout.resolve('latest'), 'not asked for, it does not matter')
    t.ok(await layout.resolve('latest', { platform: parsePlatform('linux/arm/v7') }))
    await t.rejects(layout.resolve('latest', { platform: parsePlatform('linux/arm/v6') }), {
      code: 'ERR_KOCI_PLATFORM_NOT_FOUND',
      message: /no image for platform linux\/arm\/v6 - the image is for linux\/arm\/v7$/,
    })
  },
)

await t.test(
  'O10: indexes in indexes are followed, by what they are said to be for, too',
  async t => {
    const dir = makeLayout(t.testdir())
    const wrap = (manifests: object[]): Descriptor =>
      addBlob(dir, ociTypes.index, { schemaVersion: 2, manifests })
    const inner = makeIndex(dir, [offer('linux/amd64'), offer('linux/arm64')])
    const missing: object = {
      ...inner,
      digest: `sha256:${'0'.repeat(64)}`,
      platform: parsePlatform('windows/amd64'),
    }
    const unknown = addBlob(dir, 'application/x-unknown', 'x')
    writeIndex(dir, [tagged(wrap([missing, unknown, wrap([inner, inner]), inner]), 'latest')])
    await using layout = await ImageLayout.open(dir)
    const image = await layout.resolve('latest', { platform: parsePlatform('linux/arm64') })
    t.equal(image.walk.length, 4)
    t.same(image.config.rootfs.diff_ids, [digestText(layerTar('linux/arm64'))])
  },
)

await t.test('O10: 100 levels of indexes are too many', async t => {
  const dir = makeLayout(t.testdir())
  let entry: Descriptor = addImage(dir)
  for (let depth = 0; depth < 100; depth++)
    entry = addBlob(dir, ociTypes.index, { schemaVersion: 2, manifests: [entry] })
  writeIndex(dir, [tagged(entry, 'latest')])
  await using layout = await ImageLayout.open(dir)
  await t.rejects(layout.resolve('latest'), { code: 'ERR_KOCI_LIMIT_EXCEEDED' })
})

await t.test('O10: a fan of indexes that all refer to the next is read once each', async t => {
  const dir = makeLayout(t.testdir())
  let entry = makeIndex(dir, [{ platform: host, layer: 'x' }])
  for (let level = 0; level < 20; level++)
    entry = addBlob(dir, ociTypes.index, {
      schemaVersion: 2,
      manifests: Array.from({ length: 1000 }, () => entry),
    })
  writeIndex(dir, [tagged(entry, 'latest')])
  await using layout = await ImageLayout.open(dir)
  t.equal((await layout.resolve('latest')).walk.length, 22)
})

await t.test('O10: more indexes than anybody needs are too many', async t => {
  const dir = makeLayout(t.testdir())
  const manifests = Array.from({ length: 300 }, (_, at) =>
    addBlob(dir, ociTypes.index, {
      schemaVersion: 2,
      manifests: [],
      annotations: { at: `${at}` },
    }),
  )
  writeIndex(dir, [
    tagged(addBlob(dir, ociTypes.index, { schemaVersion: 2, manifests }), 'latest'),
  ])
  await using layout = await ImageLayout.open(dir)
  await t.rejects(layout.resolve('latest'), { code: 'ERR_KOCI_LIMIT_EXCEEDED' })
})

await t.test('O16, O24: what is no image is an error only when it is selected', async t => {
  const dir = makeLayout(t.testdir())
  const artifact = addImage(dir, {
    layers: [],
    manifest: { config: { ...addBlob(dir, ociTypes.empty, '{}') }, artifactType: 'a/chart' },
  })
  const foreignLayer = addImage(dir, {
    manifest: { layers: [addBlob(dir, 'application/wasm', 'x')] },
  })
  writeIndex(dir, [
    tagged(addImage(dir), 'good'),
    tagged(
      addBlob(dir, 'application/vnd.docker.distribution.manifest.v1+prettyjws', '{}'),
      'v1',
    ),
    tagged(artifact, 'artifact'),
    tagged(foreignLayer, 'wasm'),
  ])
  await using layout = await ImageLayout.open(dir)
  t.ok(await layout.resolve('good'))
  for (const [name, message] of [
    ['v1', /^sha256:\S+: not an image: media type .*prettyjws is not supported$/],
    [
      'artifact',
      /not an image but an artifact: .*empty.v1\+json of a\/chart is not supported$/,
    ],
    ['wasm', /layer 0: media type application\/wasm is not supported$/],
  ] as const)
    await t.rejects(layout.resolve(name), { code: 'ERR_KOCI_UNSUPPORTED_MEDIA_TYPE', message })
  t.equal((await layout.resolveManifest('artifact')).manifest.artifactType, 'a/chart')
})

await t.test('A walk that was noted leads to its image, whatever the tag is now', async t => {
  const dir = makeLayout(t.testdir())
  writeIndex(dir, [tagged(makeIndex(dir, [{ platform: host, layer: 'x' }]), 'latest')])
  await using layout = await ImageLayout.open(dir)
  const { walk, layers } = await layout.resolve('latest')
  writeIndex(dir, [])
  const again = await layout.resolveWalk('other', walk)
  t.same([again.refName, again.walk, again.layers], ['other', walk, layers])
  await t.rejects(layout.resolveWalk('x', []), { code: 'ERR_KOCI_INVALID_OPTION' })
})
