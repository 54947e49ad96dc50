import * as fc from 'fast-check'
import t from 'tap'
import { parseIdMap, toContainer, toHost } from '../../../lib/oci/idmap.ts'
import '../../support/seed.ts'

await t.test('Parses container:host[:size], the size being 1 by default', async t => {
  t.same(parseIdMap('0:1000'), { containerID: 0, hostID: 1000, size: 1 })
  t.same(parseIdMap('1:100000:65536'), { containerID: 1, hostID: 100000, size: 65536 })
  t.same(parseIdMap('0:0:4294967295').size, 4294967295)
})

for (const text of [
  '',
  '0',
  '0:0:0',
  '0:0:1:1',
  '-1:0',
  '0x1:0',
  ' 0:0',
  '0:0\n',
  '4294967295:0',
  '0:4294967295:1',
  '1:0:4294967295',
  '99999999999:0',
  'a'.repeat(1024 * 1024),
])
  await t.test(`Refuses the map ${JSON.stringify(text.slice(0, 20))}`, async t => {
    t.throws(() => parseIdMap(text), { code: 'ERR_KOCI_INVALID_OPTION' })
  })

await t.test('Without maps an id is itself', async t => {
  t.equal(toHost(undefined, 7), 7)
  t.equal(toContainer([], 7), 7)
})

await t.test('An id outside of all maps is an error, either way', async t => {
  const maps = [parseIdMap('0:1000:10')]
  t.throws(() => toHost(maps, 10), { code: 'ERR_KOCI_INVALID_ENTRY' })
  t.throws(() => toContainer(maps, 999), { code: 'ERR_KOCI_INVALID_ENTRY' })
  t.throws(() => toContainer(maps, 1010), { code: 'ERR_KOCI_INVALID_ENTRY' })
  t.equal(toHost(maps, 9), 1009)
})

await t.test('Mapping to the host and back gives the same id', async t => {
  const id = fc.integer({ min: 0, max: 0x7fff_ffff })
  fc.assert(
    fc.property(id, id, fc.integer({ min: 1, max: 0x7fff_ffff }), fc.nat(), (c, h, size, n) => {
      const maps = [{ containerID: c, hostID: h, size }]
      const inside = c + (n % size)
      return toContainer(maps, toHost(maps, inside)) === inside
    }),
  )
  t.pass()
})
