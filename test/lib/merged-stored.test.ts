// Merged layers that somebody keeps in directories of their own: a rootfs made of them is the one that extraction makes.
import { mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { writeLayerRecord, readLayerRecord } from '../../lib/bundle/layer-record.ts'
import { Koci, listDelta, type Driver, type Placement } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { makeImage } from '../support/image.ts'
import { file, hard, link } from '../support/members.ts'
import { peerImage } from '../support/peer-image.ts'
import { asLines } from '../support/rootfs.ts'
import { describeTree } from '../support/tree.ts'

const rootless = process.geteuid?.() !== 0

/** Keeps layers in a directory, as a cache does; says who was extracted. */
function shelf(home: string, extracted: number[]): Driver {
  const kept = new Map<string, Placement>()
  return {
    name: 'shelf',
    locate(ctx, next) {
      const placement = kept.get(ctx.layer.diffID)
      if (!placement) return next()
      ctx.layer.place(placement)
      return undefined
    },
    async layer(ctx, next) {
      const { layer } = ctx
      extracted.push(layer.index)
      layer.target = path.join(home, `${layer.index}-${extracted.length}`)
      mkdirSync(layer.target)
      await next()
      const { placed, diffID } = layer
      if (placed?.dir === undefined) return
      const { dir } = placed
      const summary = await writeLayerRecord(dir, `${dir}.record`, diffID)
      const loadRecord = () => readLayerRecord(`${dir}.record`, diffID, summary)
      kept.set(diffID, { ...placed, by: 'shelf', loadRecord })
      layer.move(dir, 'shelf', { loadRecord, shared: true })
    },
  }
}

async function setUp(t: Test, image: Parameters<typeof makeImage>[2]) {
  const base = t.testdir({ store: {} })
  const name = await makeImage(path.join(base, 'images'), 'a', image)
  const plain = path.join(base, 'plain')
  await new Koci().use(mtree()).unpack({ image: name, bundle: plain, rootless })
  return { base, image: name, plain, store: path.join(base, 'store') }
}

function mtreeOf(bundle: string): string[] {
  return readdirSync(bundle).filter(name => name.endsWith('.mtree'))
}

await t.test('layers are kept, found, and merged', async t => {
  const { base, image, plain, store } = await setUp(t, peerImage)
  const extracted: number[] = []
  const app = new Koci().use(shelf(store, extracted)).use(mtree())
  const expected = describeTree(path.join(plain, 'rootfs'))
  for (const name of ['cold', 'warm']) {
    const bundle = path.join(base, name)
    const before = extracted.length
    const { layers } = await app.unpack({ image, bundle, rootless })
    t.strictSame(describeTree(path.join(bundle, 'rootfs')), expected, name)
    t.same(asLines(await listDelta(app, { bundle })), [])
    t.same(asLines(await listDelta(app, { bundle, verifyContent: true })), [])
    t.same(mtreeOf(bundle), mtreeOf(plain))
    // some of them depend on others, and are extracted each time
    const again = layers.filter(({ needsBelow }) => needsBelow !== undefined).length
    if (name === 'warm') t.equal(new Set(extracted.slice(before)).size, again)
    t.ok(layers.some(({ placed }) => placed?.by === 'shelf'))
  }
  writeFileSync(path.join(base, 'warm/rootfs/added'), '')
  const changes = await listDelta(app, { bundle: path.join(base, 'warm') })
  t.same(asLines(changes), ['M ', 'A added'])
})

await t.test('a layer that needs those below it is extracted on top of them', async t => {
  const layers = [
    [file('real/x', 'x'), link('way', 'real'), file('y', 'y')],
    [file('way/z', 'z')],
    [hard('also', 'y')],
    [file('last', 'last')],
  ]
  const { base, image, plain, store } = await setUp(t, { layers })
  const extracted: number[] = []
  const app = new Koci().use(shelf(store, extracted)).use(mtree())
  for (const bundle of ['cold', 'warm'].map(name => path.join(base, name))) {
    extracted.length = 0
    const { layers } = await app.unpack({ image, bundle, rootless })
    t.strictSame(
      describeTree(path.join(bundle, 'rootfs')),
      describeTree(path.join(plain, 'rootfs')),
    )
    t.same(
      layers.map(({ placed }) => placed?.by),
      ['shelf', 'koci', 'koci', 'shelf'],
    )
    t.match(layers[1]?.needsBelow, /way is a symlink/)
    t.match(layers[2]?.needsBelow, /hard link leads to y/)
    t.same(asLines(await listDelta(app, { bundle })), [])
    t.same(extracted, bundle.endsWith('cold') ? [0, 1, 1, 2, 2, 3] : [1, 2, 2])
  }
})

await t.test('a place that is none fails the run, which leaves nothing', async t => {
  const { base, image } = await setUp(t, { layers: [[file('x')]] })
  const driver: Driver = {
    name: 'store',
    layer: ctx => ctx.layer.place({ dir: '/nowhere/at/all', by: 'store', verified: true }),
  }
  const bundle = path.join(base, 'bundle')
  await t.rejects(new Koci().use(driver).unpack({ image, bundle, rootless }), {
    code: 'ERR_KOCI_IO',
    message: /\/nowhere\/at\/all/,
  })
  t.throws(() => statSync(bundle), { code: 'ENOENT' })
  rmSync(path.join(base, 'plain'), { recursive: true })
})
