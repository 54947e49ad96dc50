import t from 'tap'
import { parseDescriptor } from '../../../lib/oci/descriptor.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import { parseImageConfig, type ImageConfig } from '../../../lib/oci/image-config.ts'
import { ociTypes } from '../../../lib/oci/media-type.ts'

const diffID = digestOf(Buffer.from('layer'))
const layer = parseDescriptor({ mediaType: 'a/b', digest: diffID, size: 1 }, 'x')
const rootfs = { type: 'layers', diff_ids: [diffID] }
const minimal = { architecture: 'amd64', os: 'linux', rootfs }

function read(value: unknown, layers = 1): ImageConfig {
  const bytes = Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
  const descriptor = { mediaType: ociTypes.config, digest: digestOf(bytes), size: bytes.length }
  return parseImageConfig(bytes, parseDescriptor(descriptor, 'x'), {
    layers: Array.from({ length: layers }, () => layer),
  })
}

await t.test('What Docker adds is kept at every level', async t => {
  const docker = {
    ...minimal,
    variant: 'v8',
    container: 'abc',
    docker_version: '20.10',
    config: {
      Env: ['A=b'],
      Healthcheck: { Test: ['CMD', 'x'], Interval: 30_000_000_000 },
      OnBuild: ['RUN x'],
      Shell: ['/bin/sh'],
      Labels: { Layers: 'a', layers: 'b' },
    },
    rootfs: { ...rootfs, base_layer: 'x' },
    history: [{ created: '2020-01-01T00:00:00Z', unknown: 1 }, { empty_layer: true }],
  }
  t.same(read(docker), docker)
})

await t.test(
  'Known fields that are null are absent, and an absent os or architecture is empty',
  async t => {
    const config = read({
      ...minimal,
      os: null,
      author: null,
      history: null,
      config: { Cmd: null },
    })
    t.same(config, { architecture: 'amd64', rootfs, config: {}, os: '' })
    t.equal(read({ rootfs }).architecture, '')
    t.same(
      read({ ...minimal, rootfs: { type: 'layers', diff_ids: null } }, 0).rootfs.diff_ids,
      [],
    )
  },
)

const malformed: Array<[name: string, value: unknown, code: string]> = [
  [
    'O03: a DiffID in upper case',
    { ...minimal, rootfs: { ...rootfs, diff_ids: [`sha256:${'A'.repeat(64)}`] } },
    'INVALID_DIGEST',
  ],
  [
    'O04: fewer DiffIDs than layers',
    { ...minimal, rootfs: { ...rootfs, diff_ids: [] } },
    'INVALID_CONFIG',
  ],
  [
    'O04: more DiffIDs than layers',
    { ...minimal, rootfs: { ...rootfs, diff_ids: [diffID, diffID] } },
    'INVALID_CONFIG',
  ],
  ['O04: no DiffIDs', { ...minimal, rootfs: { type: 'layers' } }, 'INVALID_CONFIG'],
  [
    'O05: rootfs.type is not layers',
    { ...minimal, rootfs: { ...rootfs, type: 'layers+base' } },
    'INVALID_CONFIG',
  ],
  ['O05: no rootfs.type', { ...minimal, rootfs: { diff_ids: [diffID] } }, 'INVALID_CONFIG'],
  ['no rootfs', { architecture: 'amd64', os: 'linux' }, 'INVALID_CONFIG'],
  ['rootfs is a list', { ...minimal, rootfs: [] }, 'INVALID_CONFIG'],
  [
    'config is a number that is kept as text',
    JSON.stringify({ ...minimal, config: 0 }).replace('"config":0', '"config":1e400'),
    'INVALID_CONFIG',
  ],
  ['os is a number', { ...minimal, os: 1 }, 'INVALID_CONFIG'],
  ['config is a list', { ...minimal, config: [] }, 'INVALID_CONFIG'],
  ['O21: Env is a string', { ...minimal, config: { Env: 'A=b' } }, 'INVALID_CONFIG'],
  ['O21: Env holds a number', { ...minimal, config: { Env: [1] } }, 'INVALID_CONFIG'],
  [
    'O21: Entrypoint is a string',
    { ...minimal, config: { Entrypoint: '/bin/sh' } },
    'INVALID_CONFIG',
  ],
  ['O21: Labels hold a list', { ...minimal, config: { Labels: { a: [] } } }, 'INVALID_CONFIG'],
  ['O21: Volumes are a list', { ...minimal, config: { Volumes: ['/x'] } }, 'INVALID_CONFIG'],
  ['O21: User is a number', { ...minimal, config: { User: 0 } }, 'INVALID_CONFIG'],
  ['history is an object', { ...minimal, history: {} }, 'INVALID_CONFIG'],
  [
    'empty_layer is a string',
    { ...minimal, history: [{ empty_layer: 'true' }] },
    'INVALID_CONFIG',
  ],
  ['O13: RootFS', { ...minimal, RootFS: rootfs }, 'INVALID_JSON'],
  ['O13: Diff_ids', { ...minimal, rootfs: { ...rootfs, Diff_ids: [] } }, 'INVALID_JSON'],
  ['O13: env', { ...minimal, config: { env: [] } }, 'INVALID_JSON'],
  ['O13: Empty_Layer', { ...minimal, history: [{ Empty_Layer: true }] }, 'INVALID_JSON'],
  ['O13: duplicate rootfs', '{"rootfs":{},"rootfs":{}}', 'INVALID_JSON'],
  ['a string', '"x"', 'INVALID_CONFIG'],
]
for (const [name, value, code] of malformed)
  await t.test(`Refuses an image config: ${name}`, async t => {
    t.throws(() => read(value), { code: `ERR_KOCI_${code}` })
  })

await t.test('O21: 100,000 labels and an Env of 1 MiB are read', async t => {
  const Labels = Object.fromEntries(Array.from({ length: 100_000 }, (_, at) => [`l${at}`, 'x']))
  const config = read({ ...minimal, config: { Labels, Env: [`A=${'x'.repeat(1024 * 1024)}`] } })
  t.equal(Object.keys(config.config?.Labels ?? {}).length, 100_000)
})
