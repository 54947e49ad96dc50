import * as fc from 'fast-check'
import t from 'tap'
import { Extraction } from '../../../lib/layer/extraction.ts'
import { Layer } from '../../../lib/layer/layer.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import { toHost, type IdMap } from '../../../lib/oci/idmap.ts'
import {
  compose,
  degradedKey,
  keysOf,
  keyToKeep,
  nameOfKey,
  parseRanges,
  type Range,
} from '../../../middleware/cache/key.ts'
import '../../support/seed.ts'

const [diffID, chainID] = ['d', 'c'].map(text => digestOf(Buffer.from(text))) as [
  ReturnType<typeof digestOf>,
  ReturnType<typeof digestOf>,
]

function layerAt(index: number): Layer {
  const descriptor = { mediaType: 'x', digest: diffID, size: 1 }
  const description = { descriptor, diffID, chainID, compression: 'none' as const }
  return new Layer(index, description, () => Promise.reject(new RangeError('not to be opened')))
}

await t.test('the base is looked up alone, others on top of what is below, too', async t => {
  const extraction = new Extraction()
  const ids = (layer: Layer) => keysOf(layer, extraction).map(({ of, id }) => `${of} ${id}`)
  t.same(ids(layerAt(0)), [`diff ${diffID}`])
  t.same(ids(layerAt(1)), [`chain ${chainID}`, `diff ${diffID}`])
  const layer = layerAt(1)
  layer.reopen('a link')
  t.same(ids(layer), [`chain ${chainID}`])
  t.match(keyToKeep(layer, extraction), { of: 'chain', id: chainID })
  t.match(keyToKeep(layerAt(1), extraction), { of: 'diff', id: diffID })
})

await t.test('everything that changes the result changes the name', async t => {
  const map = [{ containerID: 0, hostID: 1000, size: 10 }]
  const variant = (name: string) => {
    const extraction = new Extraction()
    extraction.addVariant('test', name)
    return extraction
  }
  const stacked = (dialect: 'overlay-trusted' | 'overlay-user') => {
    const extraction = new Extraction()
    extraction.choose('x', 'stacked', dialect)
    return extraction
  }
  const extractions = [
    new Extraction({ uidMap: map }),
    new Extraction({ gidMap: map }),
    new Extraction({ uidMap: map, gidMap: map }),
    new Extraction({ rootless: true, uidMap: map, gidMap: map }),
    new Extraction({ keepDirlinks: true }),
    new Extraction({ compat: 'clamp' }),
    variant('a'),
    variant('b'),
    stacked('overlay-trusted'),
    stacked('overlay-user'),
  ]
  const keys = extractions.map(extraction => keyToKeep(layerAt(0), extraction))
  const names = [...keys, ...keys.map(degradedKey)].map(nameOfKey)
  t.equal(new Set(names).size, names.length)
  for (const name of names) t.match(name, /^[0-9a-f]{32}$/)
  t.equal(nameOfKey(keyToKeep(layerAt(3), new Extraction({ keepDirlinks: true }))), names[4])
})

await t.test('the name is that of the documented JSON', async t => {
  const extraction = new Extraction({
    uidMap: [{ containerID: 0, hostID: 0, size: 5 }],
    gidMap: [{ containerID: 0, hostID: 0, size: 5 }],
  })
  extraction.choose('x', 'stacked', 'overlay-user')
  const key = { ...keyToKeep(layerAt(0), extraction), uids: [[0, 0, 5]], gids: [[0, 0, 5]] }
  const text = `{"format":1,"of":"diff","id":"${diffID}","dialect":"overlay-user","uids":[[0,0,5]],"gids":[[0,0,5]],"rootless":false,"keepDirlinks":false,"compat":null,"variants":[]}`
  t.equal(JSON.stringify(key), text)
})

const ranges = (limit: number) =>
  fc.array(
    fc.record({
      containerID: fc.integer({ min: 0, max: limit }),
      hostID: fc.integer({ min: 0, max: limit }),
      size: fc.integer({ min: 1, max: 8 }),
    }),
    { minLength: 1, maxLength: 4 },
  )

await t.test('composed maps say what one after the other does', async t => {
  const own = (maps: readonly IdMap[]): Range[] =>
    maps
      .map(({ containerID, hostID, size }): Range => [containerID, hostID, size])
      .sort(([a], [b]) => a - b)
      .filter(([from], at, all) => all.slice(0, at).every(([f, , s]) => f + s <= from))
  const mapped = (maps: readonly IdMap[], id: number): number | undefined => {
    try {
      return toHost(maps, id)
    } catch {
      return undefined
    }
  }
  const asMaps = (all: readonly Range[]): IdMap[] =>
    all.map(([containerID, hostID, size]) => ({ containerID, hostID, size }))
  fc.assert(
    fc.property(ranges(20), ranges(20), (maps, outer) => {
      const outside = own(outer)
      const composed = compose(maps, outside)
      for (let id = 0; id < 40; id++) {
        const between = mapped(maps, id)
        const wanted = between === undefined ? undefined : mapped(asMaps(outside), between)
        // where the first of two maps leads nowhere extraction fails, and nothing is kept
        if (wanted !== undefined) t.equal(mapped(asMaps(composed), id), wanted)
      }
    }),
    { numRuns: 200 },
  )
  t.pass()
})

await t.test("the kernel's maps are read", async t => {
  t.same(parseRanges('         0          0 4294967295\n'), [[0, 0, 4294967295]])
  t.same(parseRanges(' 1 100000 65536\n 0 1000 1\n'), [
    [0, 1000, 1],
    [1, 100000, 65536],
  ])
  t.same(parseRanges(''), [[0, 0, 0xffff_ffff]])
  t.same(
    compose(undefined, [
      [0, 1000, 1],
      [1, 1001, 5],
    ]),
    [[0, 1000, 6]],
  )
})
