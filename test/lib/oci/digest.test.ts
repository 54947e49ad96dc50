import * as fc from 'fast-check'
import t from 'tap'
import { algorithmOf, digestOf, encodedOf, parseDigest } from '../../../lib/oci/digest.ts'
import { cpuTime } from '../../support/cpu-time.ts'
import '../../support/seed.ts'

const hex = 'a'.repeat(64)

await t.test('What was hashed parses, and its parts put it together', async t => {
  fc.assert(
    fc.property(fc.uint8Array(), fc.constantFrom('sha256', 'sha512'), (bytes, algorithm) => {
      const digest = digestOf(bytes, algorithm)
      return (
        parseDigest(digest) === digest &&
        `${algorithmOf(digest)}:${encodedOf(digest)}` === digest &&
        algorithmOf(digest) === algorithm
      )
    }),
  )
  t.equal(
    digestOf(Buffer.from('')),
    'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  )
})

const malformed: Array<[name: string, text: unknown]> = [
  ['traversal', `sha256:../../../etc/passwd`],
  ['percent-encoded dots', `sha256:%2e%2e${hex.slice(6)}`],
  ['upper-case hex', `sha256:${hex.toUpperCase()}`],
  ['one digit too few', `sha256:${hex.slice(1)}`],
  ['one digit too many', `sha256:${hex}a`],
  ['a slash among 64 characters', `sha256:${hex.slice(2)}/a`],
  ['NUL', `sha256:${hex.slice(1)}\0`],
  ['line feed at the end', `sha256:${hex}\n`],
  ['line feed inside', `sha256:${hex.slice(1)}\n`],
  ['1 MiB', `sha256:${'a'.repeat(1024 * 1024)}`],
  ['1 MiB of separators', `${'a+'.repeat(512 * 1024)}:x`],
  ['sha512 of the length of sha256', `sha512:${hex}`],
  ['no colon', hex],
  ['empty', ''],
  ['upper-case algorithm', `SHA256:${hex}`],
  ['not a string', 5],
  ['null', null],
  ['an object', { digest: hex }],
]
for (const [name, text] of malformed)
  await t.test(`O07: refuses a digest that is malformed: ${name}`, async t => {
    const ms = cpuTime(() => {
      t.throws(() => parseDigest(text, 'x'), { code: 'ERR_KOCI_INVALID_DIGEST' })
      t.throws(() => parseDigest(text), { code: 'ERR_KOCI_INVALID_DIGEST' })
    })
    t.ok(ms < 200, `${ms} ms`)
  })

for (const text of [
  'md5:d41d8cd98f00b204e9800998ecf8427e',
  `sha3:${hex}`,
  `blake3:${hex}`,
  `sha256+b64:abc`,
  `constructor:${hex}`,
])
  await t.test(`O06: an unknown algorithm is its own error: ${text.slice(0, 12)}`, async t => {
    t.throws(() => parseDigest(text), { code: 'ERR_KOCI_UNSUPPORTED_ALGORITHM' })
  })
