import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { inspect } from 'node:util'
import t from 'tap'
import { Koci, type Driver } from '../../lib/index.ts'
import { limits } from '../../middleware/limits/index.ts'
import { makeImage } from '../support/image.ts'

const rootless = process.geteuid?.() !== 0
const layers = [
  [
    { name: 'etc/', type: 'directory' },
    { name: 'etc/motd', body: 'hello\n' },
  ],
  [{ name: 'etc/issue', body: 'koci\n' }],
] as const

async function setUp(t: { testdir(): string }) {
  const base = t.testdir()
  const image = await makeImage(path.join(base, 'images'), 'test', { layers })
  return { base, options: { image, bundle: path.join(base, 'bundle'), rootless } }
}

const reports: [what: string, report: { entries: number; bytes: number }, code?: string][] = [
  ['as large as allowed', { entries: 10, bytes: 1000 }],
  ['of too many entries', { entries: 11, bytes: 1000 }, 'ERR_KOCI_LIMIT_EXCEEDED'],
  ['of too many bytes', { entries: 10, bytes: 1001 }, 'ERR_KOCI_LIMIT_EXCEEDED'],
]
for (const [what, report, code] of reports)
  await t.test(`a layer that was found and is ${what}`, async t => {
    const { base, options } = await setUp(t)
    const finder: Driver = {
      name: 'finder',
      locate: ctx => ctx.layer.place({ by: 'finder', verified: true, report }),
    }
    const run = new Koci()
      .use(limits({ maxEntries: 10, maxBytes: 1000 }))
      .use(finder)
      .unpack(options)
    if (!code) return t.resolves(run)
    await t.rejects(run, { code })
    return t.same(readdirSync(base), ['images'])
  })

const moments: [step: string, driver: (abort: () => void) => Driver][] = [
  [
    'locate, although every layer is found',
    abort => ({
      name: 'finder',
      locate: ctx => {
        ctx.layer.place({ by: 'finder', verified: true })
        if (ctx.layer.index === 1) abort()
      },
    }),
  ],
  [
    'layer, by whom places it without koci',
    abort => ({
      name: 'placer',
      layer: ctx => {
        abort()
        ctx.layer.place({ by: 'placer', verified: true })
      },
    }),
  ],
  [
    'mount',
    abort => ({
      name: 'mounter',
      mount: async (_, next) => {
        abort()
        await next()
      },
    }),
  ],
  [
    'config',
    abort => ({
      name: 'configurer',
      config: async (_, next) => {
        await next()
        abort()
      },
    }),
  ],
  [
    'unpack, after next()',
    abort => ({
      name: 'last',
      unpack: async (_, next) => {
        await next()
        abort()
      },
    }),
  ],
]
for (const [step, driver] of moments)
  await t.test(`aborted in ${step}`, async t => {
    const { base, options } = await setUp(t)
    const { signal, abort } = controller()
    await t.rejects(new Koci().use(driver(abort)).unpack({ ...options, signal }), {
      code: 'ERR_KOCI_ABORTED',
    })
    t.same(readdirSync(base), ['images'])
  })

await t.test('after an abort no further layer is looked up', async t => {
  const { options } = await setUp(t)
  const { signal, abort } = controller()
  const seen: number[] = []
  const app = new Koci().use({
    name: 'watcher',
    locate: ctx => {
      seen.push(ctx.layer.index)
      abort()
    },
  })
  await t.rejects(app.unpack({ ...options, signal }), { code: 'ERR_KOCI_ABORTED' })
  t.same(seen, [0])
})

for (const thrown of [undefined, null, 'text', 7, Symbol('s'), Object.create(null)])
  await t.test(`a middleware that throws ${inspect(thrown)}`, async t => {
    const { base, options } = await setUp(t)
    const driver: Driver = {
      name: 'thrower',
      mount: () => {
        throw thrown
      },
    }
    const code =
      typeof thrown === 'object' && thrown !== null
        ? 'ERR_KOCI_MIDDLEWARE_FAILED'
        : 'ERR_KOCI_IO'
    await t.rejects(new Koci().use(driver).unpack(options), { code })
    t.same(readdirSync(base), ['images'])
  })

await t.test('a chain that lacks a required driver is refused every time', async t => {
  const { base, options } = await setUp(t)
  const app = new Koci().use({ name: 'needy', requires: ['other'] })
  for (const _ of [1, 2])
    await t.rejects(app.unpack(options), { code: 'ERR_KOCI_DRIVER_REQUIRED' })
  t.same(readdirSync(base), ['images'])
  app.use({ name: 'other' })
  await app.unpack(options)
})

await t.test('a directory that holds a layout of koci can become a bundle', async t => {
  const { base, options } = await setUp(t)
  const writing = path.join(base, 'images/.koci-0123456789abcdef')
  mkdirSync(writing)
  writeFileSync(path.join(writing, 'lock'), '')
  await new Koci().unpack({ ...options, bundle: path.join(base, 'images') })
  t.ok(existsSync(path.join(writing, 'lock')), 'a writer of the layout lost nothing')
})

function controller(): { signal: AbortSignal; abort: () => void } {
  const own = new AbortController()
  return { signal: own.signal, abort: () => own.abort() }
}

const maps: [what: string, map: unknown][] = [
  ['a negative id', { containerID: 0, hostID: -5, size: 10 }],
  ['ids up to the one that means unchanged', { containerID: 0, hostID: 4294967290, size: 6 }],
  ['no ids', {}],
  ['nothing', null],
  ['half an id', { containerID: 0, hostID: 0.5, size: 1 }],
  ['a size of 0', { containerID: 0, hostID: 0, size: 0 }],
]
for (const [what, map] of maps)
  await t.test(`an id map with ${what} is refused`, async t => {
    const { base, options } = await setUp(t)
    for (const key of ['uidMap', 'gidMap'])
      await t.rejects(new Koci().unpack({ ...options, [key]: [map] }), {
        code: 'ERR_KOCI_INVALID_OPTION',
        message: /^id map /,
      })
    t.same(readdirSync(base), ['images'])
  })
