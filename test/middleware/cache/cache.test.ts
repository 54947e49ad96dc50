import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci, mountBundle, type Driver } from '../../../lib/index.ts'
import { cache } from '../../../middleware/cache/index.ts'
import { mtree } from '../../../middleware/mtree/index.ts'
import { readLeases } from '../../../middleware/cache/lease.ts'
import { makeMemoryDir } from '../../support/memory-dir.ts'
import type { TestLayer } from '../../support/image.ts'
import { stacker } from '../../support/stacker.ts'
import { Workshop, type Used } from '../../support/store.ts'
import { describeTree } from '../../support/tree.ts'

const all = [0, 1, 2]
const base = makeMemoryDir('koci-cache-')
t.teardown(() => rmSync(base, { recursive: true, force: true }))
let shops = 0

function openShop(layers?: readonly TestLayer[]): Promise<Workshop> {
  return Workshop.open(path.join(base, String(shops++)), layers)
}

await t.test('what was extracted once is found, and no blob is opened for it', async t => {
  const shop = await openShop()
  const first = await shop.unpack()
  t.same(first.extracted, all)
  t.equal(shop.names.length, 3)
  t.same(shop.staging, [], 'nothing is left of the work')
  const dirs = first.layers.map(({ placed }) => placed?.dir ?? '')
  t.ok(dirs.every(dir => dir.startsWith(shop.store.path)))
  t.ok(describeTree(dirs[1] ?? '').some(line => line.startsWith('d/x char')))

  await shop.loseBlobs()
  const again = await shop.unpack()
  t.same(again.extracted, [])
  t.match(again.layers, [
    { placed: { by: 'cache', verified: true, shared: true, report: { entries: 3 } } },
    { placed: { by: 'cache' } },
    { placed: { by: 'cache' } },
  ])
  t.same(
    again.layers.map(({ placed }) => placed?.dir),
    dirs,
  )
  for (const { placed } of again.layers) t.ok((await placed?.loadRecord?.())?.count)
})

/** Puts a layer where it wants. */
function finder(step: 'locate' | 'layer', index: number, dir: string): Driver {
  return {
    name: 'finder',
    async [step](ctx: Parameters<NonNullable<Driver['layer']>>[0], next: () => Promise<void>) {
      if (ctx.layer.index !== index) return next()
      mkdirSync(dir, { recursive: true })
      ctx.layer.place({ dir, by: 'finder', verified: true })
    },
  }
}

const drops: Used = {
  name: 'drops',
  async unpack(ctx, next) {
    ctx.extraction.addVariant('test', 'drops d')
    await next()
  },
}

function taints(when: 'before' | 'after'): Used {
  return async ({ layer }, next) => {
    if (layer.index !== 1) return next()
    if (when === 'before') layer.taint('a file was added')
    await next()
    if (when === 'after') layer.taint('a file was added')
    writeFileSync(path.join(layer.placed?.dir ?? '', 'mine'), 'x')
  }
}

for (const side of ['outside', 'inside'] as const) {
  for (const step of ['locate', 'layer'] as const)
    await t.test(`what a finder ${side} places in ${step} is not kept`, async t => {
      const shop = await openShop()
      const own = path.join(shop.base, 'found')
      const { layers, extracted } = await shop.unpack({ [side]: [finder(step, 1, own)] })
      t.match(layers[1]?.placed, { by: 'finder', dir: own })
      t.same(extracted, [0, 2])
      t.equal(shop.names.length, 2)
      t.same(shop.staging, [])
      t.same((await shop.unpack()).extracted, [1])
    })

  await t.test(`what a filter ${side} leaves is kept apart`, async t => {
    const shop = await openShop()
    t.same((await shop.unpack({ [side]: [drops] })).extracted, all)
    t.same((await shop.unpack()).extracted, all)
    t.equal(shop.names.length, 6)
    t.same((await shop.unpack({ [side]: [drops] })).extracted, [])
  })

  await t.test(`what is tainted in advance ${side} is not kept for others`, async t => {
    const shop = await openShop()
    const { layers } = await shop.unpack({ [side]: [taints('before')] })
    t.ok(existsSync(path.join(layers[1]?.placed?.dir ?? '', 'mine')))
    t.notOk(layers[1]?.placed?.shared)
    const next = await shop.unpack()
    t.same(next.extracted, [1])
    t.notOk(existsSync(path.join(next.layers[1]?.placed?.dir ?? '', 'mine')))
  })
}

await t.test('what is tainted further in is for its bundle alone', async t => {
  const shop = await openShop()
  const chain = { inside: [taints('after')] }
  const { layers, app, bundle } = await shop.unpack(chain)
  const own = layers[1]?.placed
  t.match(own, { by: 'cache', shared: false })
  t.ok(existsSync(path.join(own?.dir ?? '', 'mine')))
  t.same((await shop.unpack()).extracted, [1])
  await shop.loseBlobs()
  const found: unknown[] = []
  app.on('layer:found', ({ data }) => void found.push(data.layer.placed?.dir))
  await mountBundle(app, { bundle })
  t.equal(found[1], own?.dir, 'the bundle finds it again')
})

await t.test('what is kept already can not be changed from outside', async t => {
  const shop = await openShop()
  const failing = shop.unpack({ outside: [taints('after')] })
  await t.rejects(failing, { code: 'ERR_KOCI_LAYER_SHARED' })
  const { layers, extracted } = await shop.unpack()
  t.notOk(existsSync(path.join(layers[1]?.placed?.dir ?? '', 'mine')))
  t.ok(extracted.length <= 2)
})

await t.test('a layer that needs those below it is kept with them', async t => {
  const shop = await openShop([
    [{ name: 'lib', type: 'symlink', linkname: 'usr/lib' }],
    [{ name: 'lib/x', body: '1' }],
  ])
  const { layers } = await shop.unpack()
  t.match(layers[1]?.needsBelow, /lib is a symlink/)
  t.equal(shop.names.length, 3, 'alone, and on top of the other one')
  await shop.loseBlobs()
  const again = await shop.unpack()
  t.same(again.extracted, [])
  t.not(again.layers[1]?.placed?.dir, undefined)
  t.equal(again.layers[1]?.placed?.dir, layers[1]?.placed?.dir)
})

await t.test('the same layer twice, and the same image at the same time', async t => {
  const layer = [{ name: 'f', body: 'same' }]
  const shop = await openShop([layer, layer, [{ name: 'g' }]])
  const store = cache({ dir: shop.dir })
  const outcomes = await Promise.all([1, 2, 3].map(() => shop.unpack({ store })))
  t.equal(outcomes.flatMap(({ extracted }) => extracted).length, 2, 'once each')
  t.equal(shop.names.length, 2)
})

await t.test('an extraction that fails leaves nothing, and the next one does it', async t => {
  const shop = await openShop()
  let isBroken = true
  const breaks: Used = async (ctx, next) => {
    await next()
    if (isBroken && ctx.layer.index === 1) throw new RangeError('broken')
  }
  await t.rejects(shop.unpack({ inside: [breaks] }), { message: /broken/ })
  t.same(shop.staging, [])
  t.equal((await readLeases(shop.store)).size, 0)
  isBroken = false
  t.ok((await shop.unpack({ inside: [breaks] })).extracted.includes(1))
})

const damages: [name: string, damage: (shop: Workshop, name: string) => void][] = [
  ['its completion record is gone', (shop, name) => rmSync(shop.store.completion(name))],
  [
    'its completion record is damaged',
    (shop, name) => writeFileSync(shop.store.completion(name), '{'),
  ],
  [
    'its completion record is of another layer',
    (shop, name) => {
      const file = shop.store.completion(name)
      writeFileSync(
        file,
        readFileSync(file, 'utf8').replace('"keepDirlinks":false', '"keepDirlinks":true'),
      )
    },
  ],
  ['its tree is gone', (shop, name) => rmSync(shop.store.tree(name), { recursive: true })],
  [
    'it was stored without waiting for the disk, in another boot',
    (shop, name) => {
      const file = shop.store.completion(name)
      const text = readFileSync(file, 'utf8').replace(/"boot":"[^"]*"/, '"boot":"x"')
      writeFileSync(file, text.replace('"durable":true', '"durable":false'))
    },
  ],
]
for (const [name, damage] of damages)
  await t.test(`a layer does not count if ${name}`, async t => {
    const shop = await openShop()
    const { layers } = await shop.unpack()
    const stored = shop.store.nameOf(layers[1]?.placed?.dir) ?? ''
    damage(shop, stored)
    const again = await shop.unpack()
    t.same(again.extracted, [1])
    t.equal(again.layers[1]?.placed?.dir, shop.store.tree(stored))
    t.same((await shop.unpack()).extracted, [])
    t.same(shop.staging, [])
  })

await t.test('without waiting for the disk a layer counts until the next boot', async t => {
  const shop = await openShop()
  const store = cache({ dir: shop.dir, durable: false })
  await shop.unpack({ store })
  t.same((await shop.unpack()).extracted, [])
})

await t.test('options that change what is extracted find nothing of others', async t => {
  const shop = await openShop()
  await shop.unpack()
  t.same((await shop.unpack({}, { keepDirlinks: true })).extracted, all)
  t.same((await shop.unpack({}, { compat: 'clamp' })).extracted, all)
  t.same((await shop.unpack({}, { keepDirlinks: true })).extracted, [])
})

await t.test('a bundle has a lease, wherever it is moved', async t => {
  const shop = await openShop()
  const { bundle, layers } = await shop.unpack()
  const [[id, lease] = []] = [...(await readLeases(shop.store))]
  t.match(lease, { bundle, layers: { length: layers.length } })
  t.match(JSON.parse(readFileSync(path.join(bundle, 'koci.json'), 'utf8')).drivers, {
    cache: { lease: id },
  })
  const moved = `${bundle}-moved`
  renameSync(bundle, moved)
  await mountBundle(new Koci().use(cache({ dir: shop.dir })).use(stacker()), { bundle: moved })
  t.match([...(await readLeases(shop.store))], [[id, { bundle: moved }]])
})

await t.test('what is packed is kept, too, from the bytes that were packed', async t => {
  const shop = await openShop()
  const bundle = shop.nextBundle()
  const app = new Koci().use(mtree())
  const rootless = process.geteuid?.() !== 0
  await app.unpack({ image: shop.image, bundle, rootless })
  writeFileSync(path.join(bundle, 'rootfs/new'), 'new')
  const before = describeTree(path.join(bundle, 'rootfs'))
  const image = { path: path.join(shop.base, 'images'), refName: 'b' }
  const both = new Koci().use(cache({ dir: shop.dir })).use(mtree())
  await both.repack({ image, bundle })
  const [name = ''] = shop.names
  t.ok(describeTree(shop.store.tree(name)).some(line => line.startsWith('new file')))
  t.same(describeTree(path.join(bundle, 'rootfs')), before, 'the rootfs is left alone')
})

await t.test('options are checked at once', async t => {
  const wrong = [{ dir: '' }, { dir: 7 }, { dir: 'a\0b' }, { durable: 'no' }, { size: 1 }]
  for (const options of wrong)
    t.throws(() => cache(options as object), { code: 'ERR_KOCI_INVALID_OPTION' })
  const driver = cache({ dir: 'x', durable: false })
  t.match(driver.recipe, { options: { dir: path.resolve('x'), durable: false } })
  t.match(driver.explain?.({} as never), path.resolve('x'))
})
