import t from 'tap'
import { parseDescriptor, type Descriptor } from '../../../lib/oci/descriptor.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import { parseIndex, parseManifest } from '../../../lib/oci/manifest.ts'
import { dockerTypes, ociTypes } from '../../../lib/oci/media-type.ts'

const blob = { mediaType: 'a/b', digest: digestOf(Buffer.alloc(0)), size: 0 }
const manifest = {
  schemaVersion: 2,
  mediaType: ociTypes.manifest,
  config: blob,
  layers: [blob],
}
const index = { schemaVersion: 2, mediaType: ociTypes.index, manifests: [blob] }

const encode = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))
const at = (mediaType: string, bytes: Buffer): Descriptor =>
  parseDescriptor({ mediaType, digest: digestOf(bytes), size: bytes.length }, 'x')
const readManifest = (value: unknown, mediaType: string = ociTypes.manifest): unknown =>
  parseManifest(encode(value), at(mediaType, encode(value)))
const readIndex = (value: unknown, mediaType: string = ociTypes.index): unknown =>
  parseIndex(encode(value), at(mediaType, encode(value)))

await t.test('Manifests and indexes keep fields that nobody knows', async t => {
  const more = { ...manifest, subject: blob, annotations: { a: 'b' }, 'x-new': { deep: [1] } }
  t.same(readManifest(more), more)
  t.same(readManifest({ ...manifest, mediaType: undefined }), {
    schemaVersion: 2,
    config: blob,
    layers: [blob],
  })
  t.same(readManifest({ ...manifest, layers: null, annotations: null }), {
    ...manifest,
    layers: [],
  })
  const moreIndex = { ...index, subject: blob, 'x-new': 1 }
  t.same(readIndex(moreIndex), moreIndex)
  t.same(readIndex({ schemaVersion: 2 }), { schemaVersion: 2, manifests: [] })
})

await t.test('Docker schema 2 is read like OCI', async t => {
  t.same(readManifest({ ...manifest, mediaType: dockerTypes.manifest }, dockerTypes.manifest), {
    ...manifest,
    mediaType: dockerTypes.manifest,
  })
  t.same(readIndex({ ...index, mediaType: dockerTypes.index }, dockerTypes.index), {
    ...index,
    mediaType: dockerTypes.index,
  })
})

const badManifests: Array<[name: string, value: unknown, code: string]> = [
  ['O14: manifests beside layers', { ...manifest, manifests: [] }, 'INVALID_MANIFEST'],
  ['O14: another media type', { ...manifest, mediaType: ociTypes.index }, 'INVALID_MANIFEST'],
  [
    "O14: Docker's media type",
    { ...manifest, mediaType: dockerTypes.manifest },
    'INVALID_MANIFEST',
  ],
  ['O15: schemaVersion 1', { ...manifest, schemaVersion: 1 }, 'INVALID_MANIFEST'],
  ['O15: schemaVersion "2"', { ...manifest, schemaVersion: '2' }, 'INVALID_MANIFEST'],
  ['O15: no schemaVersion', { ...manifest, schemaVersion: undefined }, 'INVALID_MANIFEST'],
  ['no config', { ...manifest, config: undefined }, 'INVALID_MANIFEST'],
  ['config is a list', { ...manifest, config: [] }, 'INVALID_MANIFEST'],
  ['layers are an object', { ...manifest, layers: {} }, 'INVALID_MANIFEST'],
  ['a layer is null', { ...manifest, layers: [null] }, 'INVALID_MANIFEST'],
  [
    'a layer has no size',
    { ...manifest, layers: [{ ...blob, size: undefined }] },
    'INVALID_DESCRIPTOR',
  ],
  ['a bad digest', { ...manifest, config: { ...blob, digest: 'x' } }, 'INVALID_DIGEST'],
  ['O06: md5', { ...manifest, config: { ...blob, digest: 'md5:aa' } }, 'UNSUPPORTED_ALGORITHM'],
  ['O13: Layers', { ...manifest, Layers: [] }, 'INVALID_JSON'],
  ['O13: layerS alone', { ...manifest, layers: undefined, layerS: [] }, 'INVALID_JSON'],
  ['O13: laYerſ', { ...manifest, ['laYer\u017f']: [] }, 'INVALID_JSON'],
  ['a number', 5, 'INVALID_MANIFEST'],
  ['null', null, 'INVALID_MANIFEST'],
  ['a list', [manifest], 'INVALID_MANIFEST'],
]
for (const [name, value, code] of badManifests)
  await t.test(`Refuses a manifest: ${name}`, async t => {
    t.throws(() => readManifest(value), { code: `ERR_KOCI_${code}` })
  })

const badIndexes: Array<[name: string, value: unknown, code: string]> = [
  ['O14: layers beside manifests', { ...index, layers: [] }, 'INVALID_INDEX'],
  ['O14: config beside manifests', { ...index, config: blob }, 'INVALID_INDEX'],
  ['O14: another media type', { ...index, mediaType: ociTypes.manifest }, 'INVALID_INDEX'],
  ['O15: schemaVersion 3', { ...index, schemaVersion: 3 }, 'INVALID_INDEX'],
  ['manifests are a string', { ...index, manifests: 'x' }, 'INVALID_INDEX'],
  ['an entry is a string', { ...index, manifests: ['x'] }, 'INVALID_INDEX'],
  ['a negative size', { ...index, manifests: [{ ...blob, size: -1 }] }, 'INVALID_DESCRIPTOR'],
  ['O13: Manifests', { ...index, Manifests: [] }, 'INVALID_JSON'],
]
for (const [name, value, code] of badIndexes)
  await t.test(`Refuses an index: ${name}`, async t => {
    t.throws(() => readIndex(value), { code: `ERR_KOCI_${code}` })
  })

await t.test('O16: an entry of an unknown media type is no error', async t => {
  t.doesNotThrow(() =>
    readIndex({ ...index, manifests: [{ ...blob, mediaType: 'x/unknown' }] }),
  )
})
