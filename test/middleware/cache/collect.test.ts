import {
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import type { Driver } from '../../../lib/driver.ts'
import { tryLock } from '../../../lib/fs/lock.ts'
import { layersCalled, measureLayers, type CollectOptions } from '../../../lib/stored-layers.ts'
import { collect } from '../../../middleware/cache/collect.ts'
import { readLeases } from '../../../middleware/cache/lease.ts'
import { listLayers, removeLayer } from '../../../middleware/cache/list.ts'
import { amend, Workshop } from '../../support/store.ts'
import { makeMemoryDir } from '../../support/memory-dir.ts'

const base = makeMemoryDir('koci-collect-')
t.teardown(() => rmSync(base, { recursive: true, force: true }))
let shops = 0
const day = 24 * 3_600_000

/** A store of three layers that nobody needs, unless it is told that somebody does. */
async function open({ leased = false } = {}) {
  const shop = await Workshop.open(path.join(base, String(shops++)))
  const { bundle, layers, app } = await shop.unpack()
  const names = layers.map(({ placed }) => shop.store.nameOf(placed?.dir) ?? '')
  if (!leased) {
    rmSync(bundle, { recursive: true })
    await collect(shop.store, { dropMissing: true })
  }
  const gc = (options: CollectOptions = {}) => collect(shop.store, options)
  return { shop, names, bundle, app, gc }
}

await t.test('without options nothing is taken that is of use', async t => {
  const { shop, names, gc } = await open()
  t.match(await gc(), { removed: [], layers: 3, busy: [], leasesRemoved: 0 })
  t.same(shop.names, names.toSorted())
})

await t.test('what was not used for longest goes first, until it fits', async t => {
  const { shop, names, gc } = await open()
  for (const [at, name] of names.entries())
    utimesSync(shop.store.completion(name), 1000 - at, 1000 - at)
  const { bytes } = measureLayers(await listLayers(shop.store))
  const report = await gc({ keepBytes: bytes - 1 })
  t.match(report.removed, [{ name: names[2], reason: 'size' }])
  t.equal(report.bytes + report.bytesRemoved, bytes)
  t.match(await gc({ keepBytes: 0 }), { layers: 0, bytes: 0, removed: { length: 2 } })
  t.same(readdirSync(path.join(shop.store.path, 'layers')), [])
  t.same(readdirSync(path.join(shop.store.path, 'locks')), [])
  t.same(shop.staging, [])
  t.same((await shop.unpack()).extracted, [0, 1, 2], 'all can be had again')
})

await t.test('what was not used for so long goes, by a clock that may jump', async t => {
  const { shop, names, gc } = await open()
  const [old = '', future = ''] = names
  const past = Date.now() / 1000 - 40 * 86400
  const soon = { olderThanMs: 30 * day, now: Date.now() + 3650 * day }
  t.match((await gc(soon)).removed, [], 'no older than the boot, by the other clock')
  for (const name of names) amend(shop.store, name, { boot: 'another' })
  utimesSync(shop.store.completion(old), past, past)
  utimesSync(shop.store.completion(future), past + 4e8, past + 4e8)
  t.match((await gc({ olderThanMs: 30 * day })).removed, [{ name: old, reason: 'age' }])
  t.match((await gc({ olderThanMs: 30 * day, now: 0 })).removed, [], 'ten years back')
})

await t.test(
  'what a bundle needs stays, whatever is asked and whatever the time is',
  async t => {
    const { shop, names, gc, bundle, app } = await open({ leased: true })
    for (const now of [0, Date.now(), Date.now() + 3650 * day])
      t.match(await gc({ keepBytes: 0, olderThanMs: 0, now }), { removed: [], layers: 3 })
    const moved = `${bundle}-moved`
    renameSync(bundle, moved)
    for (const now of [0, Date.now() + 3650 * day, Date.now() + 3651 * day, 1])
      t.match(await gc({ keepBytes: 0, now }), { removed: [], leasesRemoved: 0 })
    const { mountBundle } = await import('../../../lib/index.ts')
    await mountBundle(app, { bundle: moved })
    const [lease] = [...(await readLeases(shop.store)).values()]
    t.match(lease, { bundle: moved })
    t.equal(lease?.missed, undefined, 'found again')
    t.match(await gc({ keepBytes: 0, dropMissing: true }), { removed: [] })
    t.same(shop.names, names.toSorted())
  },
)

await t.test(
  'a bundle is gone after it was missed often enough, and for long enough',
  async t => {
    const { shop, gc, bundle } = await open({ leased: true })
    rmSync(bundle, { recursive: true })
    const now = Date.now()
    for (const later of [0, 1, 8 * day])
      t.equal((await gc({ now: now + later })).leasesRemoved, 0, 'the other clock disagrees')
    const [[id, lease] = []] = [...(await readLeases(shop.store))]
    const missed = { ...lease?.missed, boot: 'another' }
    writeFileSync(shop.store.lease(id ?? ''), JSON.stringify({ ...lease, missed }))
    t.equal((await gc({ now: now + day })).leasesRemoved, 0, 'not long enough')
    t.equal((await gc({ now: now + 8 * day })).leasesRemoved, 1)
    t.match(await gc({ keepBytes: 0 }), { layers: 0 })
  },
)

await t.test('who waits for the lock of its lease can be stopped', async t => {
  const { shop, bundle, app } = await open({ leased: true })
  const [id = ''] = (await readLeases(shop.store)).keys()
  using lock = shop.store.tryLock(id, { shared: false })
  t.ok(lock)
  const { mountBundle } = await import('../../../lib/index.ts')
  const signal = AbortSignal.timeout(100)
  await t.rejects(mountBundle(app, { bundle, signal }), { code: 'ERR_KOCI_ABORTED' })
})

await t.test('a lease that is damaged may be of any layer', async t => {
  const { shop, names, gc, bundle, app } = await open({ leased: true })
  const [id = ''] = (await readLeases(shop.store)).keys()
  const file = shop.store.lease(id)
  writeFileSync(file, readFileSync(file).subarray(0, 20))
  t.match(await gc({ keepBytes: 0 }), { removed: [], layers: 3, damagedLeases: [file] })
  const [layer] = await listLayers(shop.store)
  if (layer)
    await t.rejects(removeLayer(shop.store, layer), {
      code: 'ERR_KOCI_LAYER_IN_USE',
      message: /a bundle perhaps, since the lease .*json is damaged/,
    })
  const { mountBundle } = await import('../../../lib/index.ts')
  await mountBundle(app, { bundle })
  t.same((await readLeases(shop.store)).get(id)?.layers, names, 'written anew')
  writeFileSync(file, '')
  const report = await gc({ keepBytes: 0, dropMissing: true })
  t.match(report, { leasesRemoved: 1, layers: 0, damagedLeases: [] })
})

await t.test('a bundle that is being made is not gone', async t => {
  const shop = await Workshop.open(path.join(base, String(shops++)))
  const during: unknown[] = []
  const gc: Driver = {
    name: 'gc',
    async mount(_ctx, next) {
      for (let times = 0; times < 2; times += 1)
        during.push(await collect(shop.store, { keepBytes: 0, dropMissing: true }))
      await next()
    },
  }
  const { bundle } = await shop.unpack({ inside: [gc] })
  const nothing = { leasesRemoved: 0, removed: [], layers: 3 }
  t.match(during, [nothing, nothing])
  t.match(await collect(shop.store, { keepBytes: 0, dropMissing: true }), nothing, 'nor after')
  rmSync(bundle, { recursive: true })
  const all = { leasesRemoved: 1, layers: 0 }
  t.match(await collect(shop.store, { keepBytes: 0, dropMissing: true }), all)
  t.same(readdirSync(path.join(shop.store.path, 'locks')), [])
})

await t.test('what a run wrote just before gc got the lock counts', async t => {
  const { shop, bundle } = await open({ leased: true })
  const { store } = shop
  const leases = await readLeases(store)
  const id = [...leases.keys()].join()
  const moved = `${bundle}-moved`
  renameSync(bundle, moved)
  const tryStoreLock = store.tryLock.bind(store)
  store.tryLock = (name, options) => {
    if (name === id)
      writeFileSync(store.lease(id), JSON.stringify({ ...leases.get(id), bundle: moved }))
    return tryStoreLock(name, options)
  }
  t.match(await collect(store, { keepBytes: 0, dropMissing: true }), {
    leasesRemoved: 0,
    removed: [],
  })
  t.match((await readLeases(store)).get(id), { bundle: moved })
})

await t.test('somebody else at the place of a bundle is not that bundle', async t => {
  const { shop, gc, bundle } = await open({ leased: true })
  writeFileSync(path.join(bundle, 'koci.json'), '{"drivers":{"cache":{"lease":"00"}}}')
  t.equal((await gc({ dropMissing: true })).leasesRemoved, 1)
  t.equal((await readLeases(shop.store)).size, 0)
})

await t.test('what a process uses stays', async t => {
  const { shop, names, gc } = await open()
  const [used = ''] = names
  using _ = shop.store.tryLock(used, { shared: true })
  t.match(await gc({ keepBytes: 0 }), { layers: 1, busy: [used] })
  t.same(shop.names, [used])
  const [layer] = await listLayers(shop.store)
  t.equal(layer?.name, used)
  if (layer) await t.rejects(removeLayer(shop.store, layer), { code: 'ERR_KOCI_LAYER_IN_USE' })
})

await t.test('what is not complete goes, and what dead processes left', async t => {
  const { shop, names, gc } = await open()
  const [first = '', second = ''] = names
  rmSync(shop.store.completion(first))
  rmSync(path.dirname(shop.store.tree(second)), { recursive: true })
  const staging = path.join(shop.store.path, 'staging')
  mkdirSync(path.join(staging, 'dead/tree'), { recursive: true })
  mkdirSync(path.join(staging, 'alive'))
  using _ = tryLock(path.join(staging, 'alive'), { create: false })
  const { removed, layers, stagingRemoved } = await gc()
  t.equal(stagingRemoved, 1)
  t.same(new Set(removed.map(({ name }) => name)), new Set([first, second]))
  t.equal(layers, 1)
  t.same(shop.staging, ['alive'])
})

await t.test('layers of one bundle go with it', async t => {
  const shop = await Workshop.open(path.join(base, String(shops++)))
  const { bundle } = await shop.unpack({
    inside: [
      async ({ layer }, next) => {
        await next()
        layer.taint('changed')
      },
    ],
  })
  t.match(await collect(shop.store), { removed: [], layers: 3 })
  rmSync(bundle, { recursive: true })
  const { removed } = await collect(shop.store, { dropMissing: true })
  t.same(new Set(removed.map(({ reason }) => reason)), new Set(['bundle gone']))
  t.same(shop.names, [])
})

await t.test('layers are listed, found by part of a name, and removed one by one', async t => {
  const { shop, names, bundle } = await open({ leased: true })
  const listed = await listLayers(shop.store)
  t.match(listed, [
    { name: shop.names[0], bundles: [bundle], trusted: true, chainID: null },
    { entries: Number, bytes: Number },
    { dialect: /^overlay/ },
  ])
  t.match(measureLayers(await listLayers(shop.store)), { layers: 3, leased: { layers: 3 } })
  const [first] = listed
  for (const text of [first?.name, first?.diffID, first?.diffID.slice(7, 19)])
    t.match(layersCalled(listed, String(text)), [first])
  for (const text of ['', 'a', 'sha256', 'sha256:', '0000000', 'nothing-like-it'])
    t.strictSame(layersCalled(listed, text), [])
  if (!first) return
  const refused = { code: 'ERR_KOCI_LAYER_IN_USE', message: new RegExp(bundle) }
  await t.rejects(removeLayer(shop.store, first), refused)
  rmSync(bundle, { recursive: true })
  await collect(shop.store, { dropMissing: true })
  await removeLayer(shop.store, first)
  t.same(shop.names, names.filter(name => name !== first.name).toSorted())
})

await t.test('a damaged lease is none', async t => {
  const { shop } = await open({ leased: true })
  const id = [...(await readLeases(shop.store)).keys()].join()
  const good = readFileSync(shop.store.lease(id), 'utf8')
  for (const text of [
    '{',
    '{}',
    good.replace('"format":1', '"format":2'),
    good.replace(/"layers":\[[^\]]*/, '"layers":["../x"'),
  ]) {
    writeFileSync(shop.store.lease(id), text)
    t.equal((await readLeases(shop.store)).size, 0)
  }
})
