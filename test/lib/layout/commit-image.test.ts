import t from 'tap'
import { commitImage } from '../../../lib/layout/commit-image.ts'
import { ImageLayout } from '../../../lib/layout/image-layout.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import { encodeDocument, encodeDraft, newImage } from '../../../lib/oci/image-draft.ts'
import { dockerTypes, ociTypes } from '../../../lib/oci/media-type.ts'
import type { Descriptor } from '../../../lib/oci/descriptor.ts'

const amd64 = { os: 'linux', architecture: 'amd64' }
const arm64 = { os: 'linux', architecture: 'arm64' }

/** Two platforms in an index in an index, under the tag `multi`. */
async function nested(path: string, indexType: string = ociTypes.index): Promise<ImageLayout> {
  const layout = await ImageLayout.create(path)
  const manifests: Descriptor[] = []
  for (const platform of [amd64, arm64]) {
    const draft = newImage({ platform, created: '2026-01-01T00:00:00Z' })
    const { config, manifest } = encodeDraft(draft)
    await layout.putBlob(config.bytes, config.descriptor.mediaType)
    await layout.putBlob(manifest.bytes, manifest.descriptor.mediaType)
    manifests.push({
      ...manifest.descriptor,
      platform,
      annotations: { keep: platform.architecture },
    })
  }
  let entry: Descriptor | undefined
  for (const list of [manifests, undefined]) {
    const document = {
      schemaVersion: 2,
      mediaType: indexType,
      manifests: list ?? [entry],
      'x-keep': true,
    }
    const index = encodeDocument(document, { mediaType: indexType })
    await layout.putBlob(index.bytes, indexType)
    entry = index.descriptor
  }
  await layout.setRef('multi', entry as Descriptor)
  return layout
}

const layer = {
  digest: digestOf(Buffer.from('l')),
  size: 1,
  compression: 'gzip',
  diffID: digestOf(Buffer.from('t')),
} as const

await t.test('every index above a changed image is rewritten, the rest of it kept', async t => {
  const layout = await nested(`${t.testdir()}/images`)
  t.teardown(() => layout.close())
  const image = { layout, ...(await layout.resolve('multi', { platform: arm64 })) }
  t.equal(image.walk.length, 3)
  const committed = await commitImage(image, 'changed', layer, { createdBy: 'test' })
  t.equal(committed.walk.length, 3)
  t.equal(committed.walk[0]?.annotations?.['org.opencontainers.image.ref.name'], 'changed')
  t.equal(committed.layers.length, 1)

  const changed = await layout.resolve('changed', { platform: arm64 })
  t.equal(changed.descriptor.digest, committed.descriptor.digest)
  t.match(changed.descriptor, { platform: arm64, annotations: { keep: 'arm64' } })
  const other = await layout.resolve('changed', { platform: amd64 })
  t.equal(
    other.descriptor.digest,
    (await layout.resolve('multi', { platform: amd64 })).descriptor.digest,
  )
  const top = JSON.parse(String(await layout.readBlob(changed.walk[0] as Descriptor)))
  t.equal(top['x-keep'], true)
})

await t.test('data embedded in descriptors is dropped with what it described', async t => {
  const layout = await nested(`${t.testdir()}/images`)
  t.teardown(() => layout.close())
  const resolved = await layout.resolve('multi', { platform: arm64 })
  const data = (await layout.readBlob(resolved.descriptor)).toString('base64')
  const embedded = { ...resolved.descriptor, data }
  await layout.setRef('embedded', embedded)
  const image = { layout, ...(await layout.resolve('embedded')) }
  t.equal(image.descriptor.data, data)
  const committed = await commitImage(image, 'embedded', layer, false)
  t.notOk(committed.descriptor.data)
  t.equal((await layout.resolve('embedded')).layers.length, 1)
})

await t.test("a Docker list around an image that became OCI's becomes OCI's, too", async t => {
  const layout = await nested(`${t.testdir()}/images`, dockerTypes.index)
  t.teardown(() => layout.close())
  const image = { layout, ...(await layout.resolve('multi', { platform: amd64 })) }
  const committed = await commitImage(
    image,
    'changed',
    { ...layer, compression: 'zstd' },
    undefined,
  )
  t.same(
    committed.walk.map(({ mediaType }) => mediaType),
    [ociTypes.index, ociTypes.index, ociTypes.manifest],
  )
  await layout.resolve('changed', { platform: arm64 })
})

await t.test('nothing changed and no history: the image is what it was', async t => {
  const layout = await nested(`${t.testdir()}/images`)
  t.teardown(() => layout.close())
  const image = { layout, ...(await layout.resolve('multi', { platform: amd64 })) }
  const committed = await commitImage(image, 'same', undefined, false)
  t.equal(committed.descriptor.digest, image.descriptor.digest)
})
