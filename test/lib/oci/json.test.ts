import * as fc from 'fast-check'
import t from 'tap'
import { encodeJson, maxDepth, parseJson } from '../../../lib/oci/json.ts'
import { cpuTime } from '../../support/cpu-time.ts'
import '../../support/seed.ts'

const parse = (text: string | Buffer): unknown => parseJson(Buffer.from(text), 'x')

await t.test('What JSON.stringify writes comes back', async t => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), value => {
      const bytes = Buffer.from(JSON.stringify(value))
      return Buffer.compare(encodeJson(parseJson(bytes, 'x')), encodeJson(value)) === 0
    }),
  )
  t.pass()
})

const refused: Array<[name: string, text: string | Buffer]> = [
  ['nothing', ''],
  ['truncated', '{"a": [1, 2'],
  ['truncated string', '{"a": "b'],
  ['trailing garbage', '{"a": 1} x'],
  ['two documents', '{"a": 1}{"a": 2}'],
  ['byte order mark', '\ufeff{}'],
  ['UTF-16', Buffer.from('{}', 'utf16le')],
  ['invalid UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
  ['overlong UTF-8', Buffer.from([0x22, 0xc0, 0xaf, 0x22])],
  ['surrogates in UTF-8', Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])],
  ['duplicate key', '{"a": 1, "a": 1}'],
  ['duplicate key that is escaped', '{"a": 1, "\\u0061": 2}'],
  ['duplicate key deep inside', '[{"x": {"b": 1, "c": [{}], "b": 2}}]'],
  ['duplicate empty key', '{"": 1, "": 2}'],
  ['duplicate __proto__', '{"__proto__": 1, "__proto__": 2}'],
  ['comments', '{/* */}'],
  ['NaN', '{"a": NaN}'],
  ['single quotes', "{'a': 1}"],
  ['control character', '{"a": "\u0001"}'],
  ['NUL after the end', '{}\0'],
]
for (const [name, text] of refused)
  await t.test(`O13: refuses JSON: ${name}`, async t => {
    t.throws(() => parse(text), { code: 'ERR_KOCI_INVALID_JSON' })
  })

await t.test(
  'Equal keys of different objects, and equal strings that are no keys, are fine',
  async t => {
    const text = '[{"a":"a","b":{"a":["a","a"]}},{"a":"\\"a\\",\\"a\\""}]'
    t.equal(encodeJson(parse(text)).toString(), `${text}\n`)
  },
)

await t.test('O13: depth is limited, before parsing', async t => {
  t.doesNotThrow(() => parse('['.repeat(maxDepth) + ']'.repeat(maxDepth)))
  for (const open of ['[', '{"a":'])
    for (const depth of [maxDepth + 1, 100_000, 1_000_000 / open.length])
      t.throws(() => parse(open.repeat(depth)), { code: 'ERR_KOCI_LIMIT_EXCEEDED' })
  t.doesNotThrow(() => parse(JSON.stringify('['.repeat(1000))), 'brackets in strings')
})

await t.test('O13: size is limited, by default to 4 MiB', async t => {
  const fitting = Buffer.from(JSON.stringify('x'.repeat(4 * 1024 * 1024 - 2)))
  t.doesNotThrow(() => parse(fitting))
  t.throws(() => parse(Buffer.concat([fitting, Buffer.from(' ')])), {
    code: 'ERR_KOCI_LIMIT_EXCEEDED',
  })
  t.throws(() => parseJson(Buffer.alloc(11), 'x', { maxBytes: 10 }), {
    code: 'ERR_KOCI_LIMIT_EXCEEDED',
  })
})

await t.test('Large documents of any shape are parsed in reasonable time', async t => {
  const shapes = [
    JSON.stringify({ a: '\\"'.repeat(700_000) }),
    `[${'1.0,'.repeat(900_000)}1]`,
    `[${'{},'.repeat(1_000_000)}1]`,
    JSON.stringify(
      Object.fromEntries(Array.from({ length: 200_000 }, (_, at) => [`k${at}`, at])),
    ),
  ]
  for (const shape of shapes) {
    const ms = cpuTime(() => t.doesNotThrow(() => parse(shape)))
    t.ok(ms < 30_000, `${ms} ms`)
  }
})

await t.test('O13: __proto__ is an ordinary key, and survives', async t => {
  const value = parse('{"__proto__":{"polluted":true},"constructor":1}') as object
  t.equal(Object.getPrototypeOf(value), Object.prototype)
  t.equal((value as { polluted?: boolean }).polluted, undefined)
  t.equal(
    encodeJson({ ...value }).toString(),
    '{"__proto__":{"polluted":true},"constructor":1}\n',
  )
})

await t.test(
  'O13: numbers that JavaScript can not hold survive unchanged, and are no numbers',
  async t => {
    for (const source of [
      '1e400',
      '9007199254740993',
      '1.0',
      '-0',
      '1e2',
      '0.1000000000000000055',
    ]) {
      const value = parse(`{"n":${source},"m":[${source},5]}`) as { n: unknown }
      t.not(typeof value.n, 'number')
      t.equal(encodeJson(value).toString(), `{"n":${source},"m":[${source},5]}\n`)
    }
    t.same(parse('[0,-1,1.5,9007199254740991]'), [0, -1, 1.5, 9007199254740991])
  },
)

await t.test('O13: lone surrogates in escapes survive', async t => {
  t.equal(encodeJson(parse('"\\ud800"')).toString(), '"\\ud800"\n')
})

await t.test('Writes as Go does: compact, HTML escaped, a line feed at the end', async t => {
  t.equal(
    encodeJson({ b: '<a href="x">&\u2028\b\f\n\r\t\u0001\\b\u007f', a: [1, null] }).toString(),
    '{"b":"\\u003ca href=\\"x\\"\\u003e\\u0026\\u2028\\u0008\\u000c\\n\\r\\t\\u0001\\\\b\u007f","a":[1,null]}\n',
  )
})
