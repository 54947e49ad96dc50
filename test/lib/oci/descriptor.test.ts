import t from 'tap'
import {
  assertSize,
  describe,
  embeddedData,
  parseDescriptor,
  verifyBlob,
} from '../../../lib/oci/descriptor.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import { parseJson } from '../../../lib/oci/json.ts'

const bytes = Buffer.from('hello')
const good = { mediaType: 'text/plain', digest: digestOf(bytes), size: 5 }

await t.test('Known fields are checked, unknown ones kept, null ones left out', async t => {
  const full = {
    ...good,
    urls: ['http://127.0.0.1:1/never-fetched'],
    annotations: { a: 'b' },
    platform: { os: 'linux', architecture: 'arm', variant: 'v7', 'os.features': ['x'], new: 1 },
    artifactType: 'a/b',
    future: { field: [1] },
  }
  t.same(parseDescriptor(full, 'x'), full)
  t.same(parseDescriptor({ ...good, annotations: null, platform: null, data: null }, 'x'), good)
  t.same(parseDescriptor({ ...good, platform: {} }, 'x').platform, { os: '', architecture: '' })
  t.equal(describe(parseDescriptor(good, 'x')), `${good.digest} (text/plain)`)
})

const malformed: Array<[name: string, value: unknown]> = [
  ['not an object', 'sha256:x'],
  ['a list', [good]],
  ['null', null],
  ['no media type', { ...good, mediaType: undefined }],
  ['empty media type', { ...good, mediaType: '' }],
  ['media type is a number', { ...good, mediaType: 1 }],
  ['no digest', { ...good, digest: undefined }],
  ['digest is a list', { ...good, digest: [good.digest] }],
  ['no size', { ...good, size: undefined }],
  ['size is negative', { ...good, size: -1 }],
  ['size is 2^53', { ...good, size: 2 ** 53 }],
  ['size is a fraction', { ...good, size: 5.5 }],
  ['size is a string', { ...good, size: '5' }],
  ['annotation is a number', { ...good, annotations: { a: 1 } }],
  ['annotations are a list', { ...good, annotations: [] }],
  ['urls are a string', { ...good, urls: 'x' }],
  ['platform is a string', { ...good, platform: 'linux/amd64' }],
  ['platform.os is a number', { ...good, platform: { os: 1 } }],
  ['data is a list', { ...good, data: [] }],
]
for (const [name, value] of malformed)
  await t.test(`Refuses a descriptor: ${name}`, async t => {
    t.throws(() => parseDescriptor(value, 'x'), { code: 'ERR_KOCI_INVALID_DESCRIPTOR' })
  })

for (const size of ['5.0', '5e0', '1e400', '9007199254740993', '-0'])
  await t.test(`O02: a size written as ${size} is refused, as by Go`, async t => {
    const text = JSON.stringify(good).replace('"size":5', `"size":${size}`)
    t.throws(() => parseDescriptor(parseJson(Buffer.from(text), 'x'), 'x'), {
      code: 'ERR_KOCI_INVALID_DESCRIPTOR',
    })
  })

for (const key of ['Size', 'DIGEST', 'mediatype', '\u017fize', 'platForm'])
  await t.test(`O13: a key that Go would read as a known one is refused: ${key}`, async t => {
    t.throws(() => parseDescriptor({ ...good, [key]: 1 }, 'x'), {
      code: 'ERR_KOCI_INVALID_JSON',
    })
  })

await t.test('Size counts before the digest', async t => {
  const descriptor = parseDescriptor(good, 'x')
  t.doesNotThrow(() => verifyBlob(descriptor, bytes))
  t.throws(() => verifyBlob(descriptor, Buffer.from('hell')), {
    code: 'ERR_KOCI_SIZE_MISMATCH',
  })
  t.throws(() => verifyBlob(descriptor, Buffer.from('hellO')), {
    code: 'ERR_KOCI_DIGEST_MISMATCH',
    details: { expected: good.digest },
  })
  t.throws(() => assertSize(descriptor, 6), { code: 'ERR_KOCI_SIZE_MISMATCH' })
})

await t.test('O18: embedded data is strict base64, verified', async t => {
  const embed = (data: string): Buffer | undefined =>
    embeddedData(parseDescriptor({ ...good, data }, 'x'))
  t.equal(embeddedData(parseDescriptor(good, 'x')), undefined)
  t.same(embed('aGVsbG8='), bytes)
  for (const bad of [
    'aGVsbG8',
    'aGVsbG8=\n',
    'aGVs bG8=',
    '!aGVsbG8=',
    'aGVsbG9=',
    'aGVsbG8==',
  ])
    t.throws(() => embed(bad), { code: 'ERR_KOCI_INVALID_DESCRIPTOR' }, bad)
  t.throws(() => embed('aGVsbG8h'), { code: 'ERR_KOCI_SIZE_MISMATCH' })
  t.throws(() => embed(''), { code: 'ERR_KOCI_SIZE_MISMATCH' })
  t.throws(() => embed(Buffer.from('hellO').toString('base64')), {
    code: 'ERR_KOCI_DIGEST_MISMATCH',
  })
})
