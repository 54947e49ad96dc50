import t from 'tap'
import * as fc from 'fast-check'
import { printable, toText } from '../../lib/text.ts'
import '../support/seed.ts'

const cases: [name: string, bytes: number[] | string, text: string, printed: string][] = [
  ['plain text', 'usr/bin/env', 'usr/bin/env', 'usr/bin/env'],
  ['umlauts and other scripts', 'Grüße/日本', 'Grüße/日本', 'Grüße/日本'],
  ['a byte that is no UTF-8', [0x61, 0xff, 0x62], 'a\\xffb', 'a\\xffb'],
  ['a sequence cut short', [0xe6, 0x97], '\\xe6\\x97', '\\xe6\\x97'],
  ['an overlong slash', [0xc0, 0xaf], '\\xc0\\xaf', '\\xc0\\xaf'],
  ['a line feed', 'a\nb', 'a\nb', 'a\\nb'],
  ['a terminal escape', '\x1b[31mred', '\x1b[31mred', '\\x1b[31mred'],
  ['a byte order mark', '\ufeffa', '\ufeffa', '\\ufeffa'],
  ['a mark that turns the line around', 'a\u202eb', 'a\u202eb', 'a\\u202eb'],
  ['a NUL', 'a\0b', 'a\0b', 'a\\x00b'],
]
for (const [name, bytes, text, printed] of cases)
  await t.test(name, async t => {
    const buffer = Buffer.from(bytes as string)
    t.equal(toText(buffer), text)
    t.equal(printable(buffer), printed)
    t.equal(printable(text), printed)
  })

await t.test('any bytes become one line without control characters', async t => {
  fc.assert(
    fc.property(fc.uint8Array(), bytes => {
      return !/\p{Cc}/u.test(printable(bytes))
    }),
  )
  t.pass()
})

await t.test('valid text is its own text', async t => {
  fc.assert(fc.property(fc.string({ unit: 'binary' }), s => toText(Buffer.from(s)) === s))
  t.pass()
})
