import * as fc from 'fast-check'
import t from 'tap'
import { decodeVis, encodeVis, maxVisExpansion } from '../../../lib/bundle/vis.ts'
import '../../support/seed.ts'

function encode(bytes: Uint8Array): string {
  const target = Buffer.alloc(bytes.length * maxVisExpansion)
  return target.toString('latin1', 0, encodeVis(bytes, 0, bytes.length, target, 0))
}

function decode(text: string): Buffer | undefined {
  const source = Buffer.from(text, 'latin1')
  const target = Buffer.alloc(source.length)
  const end = decodeVis(source, 0, source.length, target, 0)
  return end === -1 ? undefined : target.subarray(0, end)
}

await t.test('encodes as go-mtree does', async t => {
  const cases: Array<[raw: Buffer, encoded: string]> = [
    [Buffer.from('plain-Name_1.~!"$&\''), 'plain-Name_1.~!"$&\''],
    [Buffer.from('sp ace'), 'sp\\040ace'],
    [Buffer.from('t\ta\nb\u007f'), 't\\011a\\012b\\177'],
    [Buffer.from('h#*?[]\\'), 'h\\043\\052\\077\\133]\\\\'],
    [Buffer.from('é'), '\\303\\251'],
    [Buffer.from([0xff, 0xfe, 0x80]), '\\377\\376\\200'],
  ]
  for (const [raw, encoded] of cases) {
    t.equal(encode(raw), encoded)
    t.same(decode(encoded), raw)
  }
})

await t.test('every byte string comes back, and holds nothing that ends a word', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), bytes => {
      const text = encode(bytes)
      return /^[\x21-\x7e]*$/.test(text) && decode(text)?.equals(bytes) === true
    }),
    { numRuns: 2000 },
  )
})

await t.test('takes every form that unvis(3) takes', async t => {
  const cases: Array<[encoded: string, raw: string]> = [
    ['\\s\\t\\n\\r\\a\\b\\v\\f\\E', ' \t\n\r\u0007\b\v\f\u001b'],
    ['\\0', '\0'],
    ['\\12x', '\nx'],
    ['\\0407', ' 7'],
    ['\\x41\\xfF', 'A\u00ff'],
    ['\\^A\\^?', '\u0001\u007f'],
    ['\\M-a\\M^A\\M^?', '\u00e1\u0081\u00ff'],
    ['a\\$b', 'ab'],
    ['%41', '%41'],
  ]
  for (const [encoded, raw] of cases)
    t.same(decode(encoded), Buffer.from(raw, 'latin1'), encoded)
})

await t.test('a malformed escape is told', async t => {
  for (const text of [
    '\\',
    'a\\',
    '\\400',
    '\\777',
    '\\x',
    '\\x4',
    '\\xg0',
    '\\^',
    '\\M',
    '\\M-',
  ])
    t.equal(decode(text), undefined, text)
  for (const text of ['\\Mx1', '\\q', '\\8', '\\#']) t.equal(decode(text), undefined, text)
})

await t.test('decoding any bytes ends, within the space of its source', async () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat(), (bytes, seed) => {
      const source = bytes.map((byte, at) => ((byte + seed + at) % 3 === 0 ? 0x5c : byte))
      const end = decodeVis(source, 0, source.length, Buffer.alloc(source.length), 0)
      return end >= -1 && end <= source.length
    }),
    { numRuns: 2000 },
  )
})
