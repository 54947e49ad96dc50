import t from 'tap'
import {
  dockerTypes,
  isConfigType,
  isIndexType,
  isManifestType,
  layerFormat,
  layerMediaType,
  ociTypes,
  toOciType,
} from '../../../lib/oci/media-type.ts'

const oci = 'application/vnd.oci.image.layer'
const docker = 'application/vnd.docker.image.rootfs'

const layers: Array<[mediaType: string, compression: string, ociType: string]> = [
  [`${oci}.v1.tar`, 'none', `${oci}.v1.tar`],
  [`${oci}.v1.tar+gzip`, 'gzip', `${oci}.v1.tar+gzip`],
  [`${oci}.v1.tar+zstd`, 'zstd', `${oci}.v1.tar+zstd`],
  [`${oci}.nondistributable.v1.tar`, 'none', `${oci}.nondistributable.v1.tar`],
  [`${oci}.nondistributable.v1.tar+gzip`, 'gzip', `${oci}.nondistributable.v1.tar+gzip`],
  [`${oci}.nondistributable.v1.tar+zstd`, 'zstd', `${oci}.nondistributable.v1.tar+zstd`],
  [`${docker}.diff.tar`, 'none', `${oci}.v1.tar`],
  [`${docker}.diff.tar.gzip`, 'gzip', `${oci}.v1.tar+gzip`],
  [`${docker}.diff.tar.zstd`, 'zstd', `${oci}.v1.tar+zstd`],
  [`${docker}.foreign.diff.tar`, 'none', `${oci}.nondistributable.v1.tar`],
  [`${docker}.foreign.diff.tar.gzip`, 'gzip', `${oci}.nondistributable.v1.tar+gzip`],
]
for (const [mediaType, compression, ociType] of layers)
  await t.test(`Z12: ${mediaType} is a layer, compression ${compression}`, async t => {
    t.same(layerFormat(mediaType), { compression })
    t.equal(toOciType(mediaType), ociType)
  })

for (const mediaType of [
  `${oci}.v1.tar+xz`,
  `${oci}.v1.tar+bzip2`,
  `${oci}.v1.tar.gzip`,
  `${oci}.v1.tar+gzip+encrypted`,
  `${docker}.diff.tar+gzip`,
  `${docker}.diff.tar.xz`,
  `${oci}.v1.tar+`,
  'application/x-tar',
  '',
  'constructor',
])
  await t.test(`Z11: ${mediaType || '(empty)'} is no layer that can be read`, async t => {
    t.throws(() => layerFormat(mediaType), { code: 'ERR_KOCI_UNSUPPORTED_MEDIA_TYPE' })
    t.equal(toOciType(mediaType), mediaType)
  })

await t.test('New layers get media types that are read back', async t => {
  for (const family of ['oci', 'docker'] as const)
    for (const compression of ['none', 'gzip', 'zstd'] as const)
      t.same(layerFormat(layerMediaType(compression, family)), { compression })
  t.equal(layerMediaType('gzip', 'docker'), `${docker}.diff.tar.gzip`)
})

await t.test('Documents of both families are told apart by kind', async t => {
  for (const types of [ociTypes, dockerTypes]) {
    t.same([types.index, types.manifest, types.config].map(isIndexType), [true, false, false])
    t.same([types.index, types.manifest, types.config].map(isManifestType), [
      false,
      true,
      false,
    ])
    t.same([types.index, types.manifest, types.config].map(isConfigType), [false, false, true])
    t.equal(toOciType(types.config), ociTypes.config)
  }
  t.notOk(isConfigType(ociTypes.empty))
})
