// Stacked layers without any real driver: a bare middleware gives each a directory.
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { createError } from '../../lib/errors.ts'
import { Koci, listDelta, mountBundle, unmountBundle, type Driver } from '../../lib/index.ts'
import { makeImage } from '../support/image.ts'

const rootless = process.geteuid?.() !== 0

/** Gives every layer a directory in the bundle; `seen` tells what its `layer` step met. */
function shelf(seen: string[], needy: readonly number[] = []): Driver {
  return {
    name: 'shelf',
    async unpack(ctx, next) {
      ctx.extraction.choose('shelf', 'stacked', 'plain')
      await next()
    },
    async layer(ctx, next) {
      const { layer } = ctx
      const { index, needsBelow } = layer
      seen.push(`${index}${needsBelow === undefined ? '' : ` ${needsBelow}`}`)
      if (needsBelow === undefined && needy.includes(index))
        throw createError('NEEDS_BELOW', { subject: layer.digest, reason: 'a link' })
      layer.target = path.join(ctx.bundle.path, `layer-${index}-${seen.length}`)
      await ctx.bundle.claim(path.basename(layer.target))
      mkdirSync(layer.target)
      await next()
    },
    async mount() {
      seen.push('mount')
    },
    async unmount() {
      seen.push('unmount')
    },
    async delta(ctx) {
      ctx.changes = []
    },
  }
}

async function setUp(t: { testdir(): string }) {
  const base = t.testdir()
  const layers = [[{ name: 'x' }], [{ name: 'y' }], [{ name: 'z' }]]
  const image = await makeImage(path.join(base, 'images'), 'a', { layers })
  return { image, bundle: path.join(base, 'bundle') }
}

await t.test('layers that need those below them are extracted again, in order', async t => {
  const { image, bundle } = await setUp(t)
  const seen: string[] = []
  const app = new Koci().use(shelf(seen, [1, 2]))
  const { layers } = await app.unpack({ image, bundle, rootless })
  t.same(seen.slice(0, 3).sort(), ['0', '1', '2'])
  t.same(seen.slice(3), ['1 a link', '2 a link', 'mount'])
  t.same(
    layers.map(({ needsBelow }) => needsBelow),
    [undefined, 'a link', 'a link'],
  )
  t.ok(layers.every(({ placed }) => placed?.dir))
})

await t.test(
  'a stacked bundle is taken down, put together again, and asked for changes',
  async t => {
    const { image, bundle } = await setUp(t)
    const seen: string[] = []
    const app = new Koci().use(shelf(seen))
    await app.unpack({ image, bundle, rootless })
    seen.length = 0
    await unmountBundle(app, { bundle })
    t.same(seen, ['unmount'])
    await mountBundle(app, { bundle })
    t.equal(seen.at(-1), 'mount')
    t.same([...(await listDelta(app, { bundle }))], [])
    await t.rejects(listDelta(new Koci(), { bundle }), { code: 'ERR_KOCI_CHAIN_MISMATCH' })
  },
)

await t.test('only a stacked bundle is mounted, and only with its layout at hand', async t => {
  const { image, bundle } = await setUp(t)
  const app = new Koci()
  await app.unpack({ image, bundle, rootless })
  for (const run of [mountBundle, unmountBundle])
    await t.rejects(run(app, { bundle }), { code: 'ERR_KOCI_INVALID_BUNDLE' })
  const layout = path.join(bundle, 'elsewhere')
  await t.rejects(mountBundle(app, { bundle, layout }), { code: 'ERR_KOCI_INVALID_LAYOUT' })
})

await t.test('what is shared is not to be changed any more', async t => {
  const { image, bundle } = await setUp(t)
  const seen: string[] = []
  const keeper: Driver = {
    name: 'keeper',
    async layer(ctx, next) {
      t.notOk(ctx.layer.extracted)
      ctx.layer.taint('early, and noted')
      await next()
      t.ok(ctx.layer.extracted)
      const dir = ctx.layer.placed?.dir ?? ''
      ctx.layer.move(dir, 'keeper', { shared: true })
      ctx.layer.taint('late')
    },
  }
  const app = new Koci().use(keeper).use(shelf(seen))
  await t.rejects(app.unpack({ image, bundle, rootless }), {
    code: 'ERR_KOCI_LAYER_SHARED',
    message: /keeper keeps the layer.*late/,
  })
})

await t.test(
  'what is to be closed is closed at the end, last first, whatever came of it',
  async t => {
    const { image, bundle } = await setUp(t)
    const closed: number[] = []
    const app = new Koci().use({
      name: 'closing',
      async unpack(ctx, next) {
        ctx.closing(() => closed.push(1))
        ctx.closing(() => closed.push(2))
        await next()
        t.same(closed, [])
        throw createError('ABORTED', { subject: 'test' })
      },
    })
    await t.rejects(app.unpack({ image, bundle, rootless }))
    t.same(closed, [2, 1])
  },
)
