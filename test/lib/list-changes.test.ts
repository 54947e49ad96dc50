// From whoever lists changes to the list that is packed: supersets, fallback, and bundles that aren't mounted.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { change, type Change } from '../../lib/change.ts'
import { createError } from '../../lib/errors.ts'
import type { DeltaContext } from '../../lib/context.ts'
import { Koci, listDelta, type Driver } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { makeImage } from '../support/image.ts'
import { asLines } from '../support/rootfs.ts'

const rootless = process.geteuid?.() !== 0
const raw = (text: string): Buffer => Buffer.from(text)

/** Calls every path of these modified, and says that it may be too much. */
function superset(...paths: (string | Change)[]): Driver {
  return {
    name: 'superset',
    delta: ctx => {
      ctx.quality = 'superset'
      ctx.changes = paths.map(each =>
        typeof each === 'string' ? change('M', raw(each)) : each,
      )
    },
  }
}

async function setUp(t: Test, app: Koci) {
  const base = t.testdir()
  const layers = [
    [
      { name: 'd', type: 'directory' as const },
      { name: 'd/x', body: 'x' },
      { name: 'd/sub/y', body: 'y' },
      { name: 'one', body: 'one' },
      { name: 'two', body: 'two' },
    ],
  ]
  const image = await makeImage(path.join(base, 'images'), 'a', { layers })
  const bundle = path.join(base, 'bundle')
  const { rootfs } = await app.unpack({ image, bundle, rootless })
  const warnings: string[] = []
  app.on('warning', ({ data }) => void warnings.push(data.code))
  return { base, image, bundle, rootfs, warnings }
}

function changeTree(rootfs: string): void {
  writeFileSync(path.join(rootfs, 'one'), 'ONE')
  rmSync(path.join(rootfs, 'd/sub'), { recursive: true })
  mkdirSync(path.join(rootfs, 'new/deep'), { recursive: true })
  writeFileSync(path.join(rootfs, 'new/deep/file'), '')
}

await t.test('a superset is compared with the record', async t => {
  const app = new Koci()
    .use(superset('one', 'two', 'd/x', 'd/sub/y', 'new/deep/file', 'none/x'))
    .use(mtree())
  const { bundle, rootfs, warnings } = await setUp(t, app)
  changeTree(rootfs)
  const lines = ['D d/sub', 'A new', 'A new/deep', 'A new/deep/file', 'M one']
  t.same(asLines(await listDelta(app, { bundle })), lines)
  t.same(warnings, [])
})

await t.test('an opaque directory lists what is gone from it', async t => {
  const opaque = { ...change('M', raw('d')), opaque: true }
  const app = new Koci().use(superset(opaque, 'd/x')).use(mtree())
  const { bundle, rootfs } = await setUp(t, app)
  changeTree(rootfs)
  t.same(asLines(await listDelta(app, { bundle })), ['M d', 'D d/sub'])
})

await t.test('without a record a superset is taken as listed, with a warning', async t => {
  const opaque = { ...change('A', raw('d')), opaque: true }
  const app = new Koci().use(superset('one', 'two', opaque, 'd/x', 'd/sub', 'd/sub/y'))
  const { base, image, bundle, rootfs, warnings } = await setUp(t, app)
  changeTree(rootfs)
  const lines = ['A d', 'D d/sub', 'M d/x', 'M one', 'M two']
  t.same(asLines(await listDelta(app, { bundle })), lines)
  t.same(warnings, ['DELTA_UNVERIFIED'])

  await t.test('and an opaque directory stays one in the layer', async t => {
    await app.repack({ image, bundle })
    const again = path.join(base, 'again')
    const { rootfs: fresh } = await new Koci().unpack({ image, bundle: again, rootless })
    t.equal(readFileSync(path.join(fresh, 'one'), 'utf8'), 'ONE')
    t.equal(readFileSync(path.join(fresh, 'd/x'), 'utf8'), 'x')
    t.throws(() => readFileSync(path.join(fresh, 'd/sub/y')), { code: 'ENOENT' })
  })
})

await t.test('a path that is none is refused', async t => {
  for (const bad of ['../x', 'd/./x', 'd//x', '/d', 'd/', 'd/\0']) {
    const withRecord = new Koci().use(superset(bad)).use(mtree())
    const { bundle } = await setUp(t, withRecord)
    const refusal = { code: 'ERR_KOCI_PATH_ESCAPE' }
    await t.rejects(listDelta(withRecord, { bundle }), refusal, JSON.stringify(bad))
    await t.rejects(listDelta(new Koci().use(superset(bad)), { bundle }), refusal)
  }
})

type Failure = [name: string, delta: (ctx: DeltaContext) => void]
const failures: readonly Failure[] = [
  [
    'at once',
    () => {
      throw new Error('no luck')
    },
  ],
  [
    'while its list is read',
    ctx => {
      ctx.quality = 'superset'
      ctx.changes = (async function* () {
        yield change('A', raw('never'))
        throw createError('IO', { subject: 'lister', reason: 'no luck' })
      })()
    },
  ],
]
for (const [name, delta] of failures)
  await t.test(`a lister that fails ${name}`, async t => {
    const seen: string[] = []
    const filter: Driver = {
      name: 'filter',
      async delta(_, next) {
        seen.push('>')
        await next()
        seen.push('<')
      },
    }
    const app = new Koci().use(filter).use({ name: 'weak', delta }).use(mtree())
    const { bundle, image, rootfs, warnings } = await setUp(t, app)
    changeTree(rootfs)
    await t.rejects(app.repack({ image, bundle }), { message: /no luck/ })
    t.same(warnings, [])
    seen.length = 0
    const changes = await listDelta(app, { bundle, fallback: true })
    t.same(asLines(changes), [
      'M ',
      'M d',
      'D d/sub',
      'A new',
      'A new/deep',
      'A new/deep/file',
      'M one',
    ])
    t.same(warnings, ['DELTA_FALLBACK'])
    t.same(seen, ['>', '<'])

    const alone = new Koci().use({ name: 'weak', delta })
    await t.rejects(listDelta(alone, { bundle, fallback: true }), {
      code: 'ERR_KOCI_NO_DELTA_LISTER',
      cause: { message: /no luck/ },
    })
    const strict = new Koci({ strict: true }).use({ name: 'weak', delta }).use(mtree())
    await t.rejects(listDelta(strict, { bundle, fallback: true }), { code: 'ERR_KOCI_STRICT' })
  })

await t.test('a decorator that fails is no lister', async t => {
  const decorator: Driver = {
    name: 'decorator',
    async delta(_, next) {
      await next()
      throw new Error('no luck')
    },
  }
  const app = new Koci().use(decorator).use(mtree())
  const { bundle } = await setUp(t, app)
  await t.rejects(listDelta(app, { bundle, fallback: true }), { message: /no luck/ })
})

await t.test(
  'a stacked bundle that is not mounted is not compared: all would be gone',
  async t => {
    const shelf: Driver = {
      name: 'shelf',
      async unpack(ctx, next) {
        ctx.extraction.choose('shelf', 'stacked', 'plain')
        await next()
      },
      async layer(ctx, next) {
        ctx.layer.target = await ctx.bundle.claim(`layer-${ctx.run}`)
        mkdirSync(ctx.layer.target)
        await next()
      },
      mount() {},
      unmount() {},
    }
    const app = new Koci().use(shelf).use(superset('one'))
    const { image, bundle } = await setUp(t, app)
    const unmounted = { code: 'ERR_KOCI_ROOTFS_NOT_MOUNTED', message: /run koci mount first/ }
    await t.rejects(listDelta(app, { bundle }), unmounted)
    await t.rejects(app.repack({ image, bundle }), unmounted)
  },
)
