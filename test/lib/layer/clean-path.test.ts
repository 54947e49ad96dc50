import * as fc from 'fast-check'
import { posix } from 'node:path'
import t from 'tap'
import { cleanPath } from '../../../lib/layer/clean-path.ts'
import '../../support/seed.ts'

const clean = (name: string): string =>
  cleanPath(Buffer.from(name, 'latin1')).toString('latin1')

await t.test('names are made relative to the root', async t => {
  const cases: Array<[raw: string, clean: string]> = [
    ['', ''],
    ['.', ''],
    ['./', ''],
    ['/', ''],
    ['//', ''],
    ['/.', ''],
    ['/./.', ''],
    ['a/..', ''],
    ['a', 'a'],
    ['a/', 'a'],
    ['a//', 'a'],
    ['a/b', 'a/b'],
    ['./a', 'a'],
    ['./././a', 'a'],
    ['a//b', 'a/b'],
    ['a/./b/', 'a/b'],
    ['/abs/x', 'abs/x'],
    ['//////tmp/pwn', 'tmp/pwn'],
    ['a/../b', 'b'],
    ['a/b/../../c', 'c'],
    ['a/b/..', 'a'],
    ['..a', '..a'],
    ['a..', 'a..'],
    ['...', '...'],
    ['.a', '.a'],
    ['.wh..', '.wh..'],
    ['C:../x', 'C:../x'],
    ['a\\..\\b', 'a\\..\\b'],
    ['\xff\xfe/\x80', '\xff\xfe/\x80'],
    ['a\nb', 'a\nb'],
  ]
  for (const [raw, expected] of cases) t.equal(clean(raw), expected, JSON.stringify(raw))
})

await t.test('a name that climbs above the root is refused', async t => {
  for (const raw of ['..', '../x', '/..', '/../x', 'a/../../x', './..', '/./..//x', 'a/../..'])
    t.throws(() => clean(raw), { code: 'ERR_KOCI_PATH_ESCAPE' }, raw)
})

await t.test('a name that climbs above the root stops there, if that is asked for', async t => {
  const cases = [
    ['..', ''],
    ['../x', 'x'],
    ['/../../x', 'x'],
    ['a/../../x', 'x'],
    ['a/../../b/../../c/d', 'c/d'],
    ['../.wh.x', '.wh.x'],
  ] as const
  for (const [raw, expected] of cases)
    t.equal(cleanPath(Buffer.from(raw), true).toString(), expected, raw)
})

await t.test('a name with a NUL byte is refused', async t => {
  for (const raw of ['\0', 'a\0b', 'a/../b\0', '../\0'])
    t.throws(() => clean(raw), { code: 'ERR_KOCI_INVALID_ENTRY' }, JSON.stringify(raw))
})

await t.test('a clean name is not copied', async t => {
  const raw = Buffer.from('usr/lib/x')
  t.equal(cleanPath(raw), raw)
})

const piece = fc.constantFrom('', '.', '..', '...', 'a', 'b', '.wh.a', 'é', 'a b')

await t.test('it agrees with path.posix.normalize, and is a fixed point', async t => {
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), pieces => {
      const raw = pieces.join('/')
      const expected = posix.normalize(raw.replace(/^\/+/, '')).replace(/\/$/, '')
      if (expected === '..' || expected.startsWith('../')) {
        t.throws(() => cleanPath(Buffer.from(raw)), { code: 'ERR_KOCI_PATH_ESCAPE' })
        return
      }
      const result = cleanPath(Buffer.from(raw))
      t.equal(result.toString(), expected === '.' ? '' : expected)
      t.equal(cleanPath(result), result)
    }),
  )
})
