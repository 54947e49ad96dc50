import { existsSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import type { Limits } from '../../lib/index.ts'
import { defaultLimits, limits } from '../../middleware/limits/index.ts'
import { makeImage, type TestLayer } from '../support/image.ts'

const rootless = process.geteuid?.() !== 0

const cases: [name: string, limit: Limits, layer: TestLayer][] = [
  ['entries', { maxEntries: 2 }, [{ name: 'a' }, { name: 'b' }, { name: 'c' }]],
  ['bytes', { maxBytes: 4096 }, [{ name: 'a', body: 'x'.repeat(10_000) }]],
  ['depth', { maxDepth: 3 }, [{ name: 'a/b/c/d/e' }]],
  [
    'ratio, which counts from 64 MiB on',
    { maxRatio: 10 },
    [{ name: 'a', body: Buffer.alloc(70 << 20) }],
  ],
]

for (const [name, limit, layer] of cases)
  await t.test(`a layer beyond a limit is refused: ${name}`, async t => {
    const base = t.testdir()
    const image = await makeImage(path.join(base, 'images'), 'a', { layers: [layer] })
    const bundle = path.join(base, 'bundle')
    const app = new Koci().use(limits(limit))
    await t.rejects(app.unpack({ image, bundle, rootless }), {
      name: 'LimitError',
      code: 'ERR_KOCI_LIMIT_EXCEEDED',
      message: / exceeded: .*, the limit is \d+$/,
      details: { maximum: Object.values(limit)[0] },
    })
    t.notOk(existsSync(bundle), 'nothing of the bundle remains')
    const lifted = Object.fromEntries(Object.keys(limit).map(key => [key, Infinity]))
    await t.resolves(new Koci().use(limits(lifted)).unpack({ image, bundle, rootless }))
  })

await t.test('an option left out has its default', async t => {
  const base = t.testdir()
  const image = await makeImage(path.join(base, 'images'), 'a', { layers: [] })
  let seen: Limits | undefined
  const app = new Koci().use(limits({ maxDepth: 7 })).use({
    name: 'look',
    unpack: async (ctx, next) => {
      seen = { ...ctx.limits }
      await next()
    },
  })
  await app.unpack({ image, bundle: path.join(base, 'bundle'), rootless })
  t.same(seen, { ...defaultLimits, maxDepth: 7 })
})

for (const [what, value] of [
  ['zero', 0],
  ['a negative number', -1],
  ['not a number', Number.NaN],
  ['text', '5'],
] as const)
  await t.test(`a limit that is ${what} is refused at once`, async t => {
    t.throws(() => limits({ maxBytes: value as number }), {
      code: 'ERR_KOCI_INVALID_OPTION',
      message: /^limits option maxBytes: /,
    })
  })

await t.test('a bound that there is not is an error, not a bound that never holds', async t => {
  t.throws(() => limits({ maxByte: 1 } as Limits), {
    code: 'ERR_KOCI_INVALID_OPTION',
    message: /limits option maxByte: there are maxBytes/,
  })
})
