import t from 'tap'
import { parseDescriptor } from '../../../lib/oci/descriptor.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import {
  appendHistory,
  appendLayer,
  draftOf,
  encodeDraft,
  newImage,
  pointTo,
  toOciDraft,
  type ImageDraft,
  type NewLayer,
} from '../../../lib/oci/image-draft.ts'
import { parseImageConfig } from '../../../lib/oci/image-config.ts'
import { parseManifest } from '../../../lib/oci/manifest.ts'
import { dockerTypes, ociTypes } from '../../../lib/oci/media-type.ts'

const layer: NewLayer = {
  digest: digestOf(Buffer.from('gz')),
  size: 100,
  uncompressedSize: 300,
  diffID: digestOf(Buffer.from('tar')),
  compression: 'gzip',
}

const docker: ImageDraft = {
  mediaType: dockerTypes.manifest,
  manifest: {
    schemaVersion: 2,
    mediaType: dockerTypes.manifest,
    config: parseDescriptor(
      {
        mediaType: dockerTypes.config,
        digest: layer.digest,
        size: 2,
        annotations: { a: 'b' },
        data: 'Z3o=',
        x: 1,
      },
      'x',
    ),
    layers: [
      parseDescriptor(
        {
          mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
          digest: layer.digest,
          size: 2,
          annotations: { keep: 'me' },
        },
        'x',
      ),
    ],
    annotations: { manifest: 'annotation' },
    'x-unknown': true,
  },
  config: {
    architecture: 'arm64',
    variant: 'v8',
    os: 'linux',
    docker_version: '20',
    created: '2020-01-01T00:00:00Z',
    config: { Healthcheck: { Test: ['x'] } },
    rootfs: { type: 'layers', diff_ids: [layer.diffID], extra: 1 },
    history: [{ created_by: 'a' }],
  },
}

await t.test('A new image has the bytes that umoci would write', async t => {
  const draft = newImage({
    platform: { os: 'linux', architecture: 'amd64', variant: 'v1' },
    created: '2025-09-05T13:05:10.12345+10:00',
  })
  const { config, manifest } = encodeDraft(draft)
  t.equal(
    config.bytes.toString(),
    '{"created":"2025-09-05T13:05:10.12345+10:00","architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}\n',
  )
  t.equal(config.bytes.length, 135)
  t.equal(manifest.bytes.length, 249)
  t.match(JSON.parse(manifest.bytes.toString()), { config: config.descriptor, layers: [] })
})

await t.test('A new image notes the variant on ARM only', async t => {
  const created = '2020-01-01T00:00:00Z'
  const variantOf = (architecture: string): string | undefined =>
    newImage({ platform: { os: 'linux', architecture, variant: 'v7' }, created }).config.variant
  t.equal(variantOf('arm'), 'v7')
  t.equal(variantOf('arm64'), 'v7')
  t.equal(variantOf('amd64'), undefined)
})

await t.test('A layer is added in all three places; everything unknown stays', async t => {
  const before = structuredClone(docker)
  const after = appendLayer(docker, layer, { created_by: 'koci', empty_layer: true })
  t.same(docker, before, 'the draft it began with is unchanged')
  t.same(after.manifest.layers.at(-1), {
    mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
    digest: layer.digest,
    size: 100,
    annotations: { 'ci.umo.uncompressed_blob_size': '300' },
  })
  t.same(after.manifest.layers[0], docker.manifest.layers[0])
  t.same(after.config, {
    ...docker.config,
    rootfs: { type: 'layers', diff_ids: [layer.diffID, layer.diffID], extra: 1 },
    history: [{ created_by: 'a' }, { created_by: 'koci' }],
  })
  t.equal(after.manifest['x-unknown'], true)
})

await t.test('The annotation for the size is left out where both sizes are equal', async t => {
  const after = appendLayer(docker, { ...layer, compression: 'none', uncompressedSize: 100 })
  t.same(after.manifest.layers.at(-1), {
    mediaType: 'application/vnd.docker.image.rootfs.diff.tar',
    digest: layer.digest,
    size: 100,
  })
  t.same(after.config.history, docker.config.history, 'no history entry was asked for')
})

await t.test(
  'The config descriptor keeps media type and annotations, but no stale data',
  async t => {
    const { config, manifest } = encodeDraft(docker)
    t.same(config.descriptor, {
      mediaType: dockerTypes.config,
      digest: digestOf(config.bytes),
      size: config.bytes.length,
      annotations: { a: 'b' },
      x: 1,
    })
    t.equal(manifest.descriptor.mediaType, dockerTypes.manifest)
    const parsed = parseManifest(manifest.bytes, manifest.descriptor)
    const image = parseImageConfig(config.bytes, parsed.config, parsed)
    const again = encodeDraft(
      draftOf({ descriptor: manifest.descriptor, manifest: parsed, config: image }),
    )
    t.same(again, encodeDraft(docker), 'read and written again it is the same')
  },
)

await t.test('A zstd layer makes a Docker image an OCI image, whole', async t => {
  const after = appendLayer(docker, { ...layer, compression: 'zstd' })
  t.equal(after.mediaType, ociTypes.manifest)
  t.equal(after.manifest.mediaType, ociTypes.manifest)
  t.equal(after.manifest.config.mediaType, ociTypes.config)
  t.same(
    after.manifest.layers.map(({ mediaType }) => mediaType),
    [
      'application/vnd.oci.image.layer.v1.tar+gzip',
      'application/vnd.oci.image.layer.v1.tar+zstd',
    ],
  )
  t.same(after.manifest.layers[0]?.annotations, { keep: 'me' })
  t.equal(toOciDraft(after), after)
})

await t.test('History entries are added at the end, without undefined fields', async t => {
  const image = newImage({ platform: { os: 'linux', architecture: 'x' }, created: 'c' })
  const after = appendHistory(image, { created: 'c', author: undefined, empty_layer: true })
  t.same(after.config.history, [{ created: 'c', empty_layer: true }])
  t.equal(
    JSON.stringify(Object.keys(after.config)),
    '["created","architecture","os","config","rootfs","history"]',
  )
})

await t.test('A descriptor that is pointed elsewhere keeps its other fields', async t => {
  const [from, to] = [
    docker.manifest.config,
    docker.manifest.layers[0] ?? docker.manifest.config,
  ]
  t.same(pointTo(from, to), {
    mediaType: to.mediaType,
    digest: to.digest,
    size: to.size,
    annotations: { a: 'b' },
    x: 1,
  })
})
