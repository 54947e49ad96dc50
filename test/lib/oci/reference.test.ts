import * as fc from 'fast-check'
import t from 'tap'
import { assertRefName, isRefName, parseImageReference } from '../../../lib/oci/reference.ts'
import { cpuTime } from '../../support/cpu-time.ts'
import '../../support/seed.ts'

await t.test('Splits at the first colon; the tag is latest by default', async t => {
  t.same(parseImageReference('images'), { path: 'images', refName: 'latest' })
  t.same(parseImageReference('./a b/images:v1'), { path: './a b/images', refName: 'v1' })
  t.same(parseImageReference('i:docker.io/library/alpine:3.20'), {
    path: 'i',
    refName: 'docker.io/library/alpine:3.20',
  })
})

for (const text of [
  '',
  ':',
  ':tag',
  'path:',
  'path:.x',
  'path:a::b',
  'path:../x',
  'a\0b:c',
  'path:x\n',
])
  await t.test(`Refuses the reference ${JSON.stringify(text)}`, async t => {
    t.throws(() => parseImageReference(text), { code: 'ERR_KOCI_INVALID_REFERENCE' })
  })

const good = [
  'a',
  'A9',
  'a-b',
  'a--b',
  'a.b_c:d@e+f',
  'a/b',
  'sha256:abc',
  '1.0-rc.1',
  'a--b--c/d--e',
]
const bad = [
  '.AZ94n18s',
  '-a',
  'a-',
  'a---b',
  'a..b',
  'a//b',
  '/a',
  'a/',
  'a b',
  'ä',
  'a\u0000',
  'a\u001b[31m',
  '../x',
  'a/../b',
  'a-.b',
  'a--',
  '--a',
  'a__b',
  'a\n',
]
await t.test('O08: tags follow the grammar', async t => {
  for (const name of good) t.ok(isRefName(name), name)
  for (const name of bad) {
    t.notOk(isRefName(name), JSON.stringify(name))
    t.throws(() => assertRefName(name), { code: 'ERR_KOCI_INVALID_REFERENCE' })
  }
  t.throws(() => assertRefName(''), { code: 'ERR_KOCI_INVALID_REFERENCE' })
})

await t.test('O08: the scanner agrees with the grammar as a regular expression', async t => {
  const component = '[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*'
  const grammar = new RegExp(`^${component}(?:/${component})*$`)
  const text = fc.string({
    unit: fc.constantFrom(...Array.from('aZ9-._:@+/ é\n')),
    maxLength: 12,
  })
  fc.assert(
    fc.property(text, name => isRefName(name) === (grammar.test(name) && !name.includes('\n'))),
    { numRuns: 5000 },
  )
  t.pass()
})

await t.test('O08: 1 MiB of anything is answered within milliseconds', async t => {
  for (const unit of ['a', 'a-', 'a--', '-', 'a/', 'aa:@'])
    for (const end of ['', '!', 'a']) {
      const name = unit.repeat(1024 * 1024).slice(0, 1024 * 1024) + end
      const ms = cpuTime(() => isRefName(name))
      t.ok(ms < 300, `${unit} ${end}: ${ms} ms`)
    }
  const error = t.throws(() => parseImageReference(`x:${'-'.repeat(1024 * 1024)}`)) as unknown
  t.ok(error instanceof Error && error.message.length < 1000, 'and not echoed')
})
