import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import t from 'tap'
import { filter, Koci, listDelta, type Driver, type KociEvents } from '../../lib/index.ts'
import { change } from '../../lib/change.ts'
import { makeImage } from '../support/image.ts'
import { tarBytes } from '../support/tar-builder.ts'

const rootless = process.geteuid?.() !== 0
const layers = [
  [
    { name: 'etc/', type: 'directory' },
    { name: 'etc/motd', body: 'hello\n' },
  ],
  [{ name: 'etc/.wh.motd' }, { name: 'etc/issue', body: 'koci\n' }],
] as const

/** A tag of two layers, and where to unpack it. */
async function setUp(t: {
  testdir(): string
}): Promise<{ image: string; bundle: string; rootless: boolean; base: string }> {
  const base = t.testdir()
  return {
    image: await makeImage(path.join(base, 'images'), 'test', { layers }),
    bundle: path.join(base, 'bundle'),
    rootless,
    base,
  }
}
/** A lister that answers with these changes. */
function lists(...changes: ReturnType<typeof change>[]): Driver {
  return {
    name: 'lists',
    delta: ctx => {
      ctx.changes = changes
    },
  }
}

await t.test(
  'steps run in order, decorators around them, the first used outermost',
  async t => {
    const { base: _, ...options } = await setUp(t)
    const seen: string[] = []
    const around = (name: string): Driver => ({
      name,
      unpack: async (_, next) => {
        seen.push(`${name} unpack>`)
        await next()
        seen.push(`<${name} unpack`)
      },
      locate: async (ctx, next) => {
        seen.push(`${name} locate ${ctx.layer.index}`)
        await next()
      },
      layer: async (ctx, next) => {
        seen.push(`${name} layer ${ctx.layer.index}>`)
        await next()
        seen.push(`<${name} layer ${ctx.layer.index} by ${ctx.layer.placed?.by}`)
      },
      mount: async (_, next) => {
        seen.push(`${name} mount`)
        await next()
      },
      config: async (ctx, next) => {
        await next()
        seen.push(`${name} config ${ctx.runtimeConfig === undefined}`)
      },
    })
    const app = new Koci().use(around('a')).use(around('b'))
    const result = await app.unpack(options)
    t.same(seen, [
      'a unpack>',
      'b unpack>',
      'a locate 0',
      'b locate 0',
      'a locate 1',
      'b locate 1',
      'a layer 0>',
      'b layer 0>',
      '<b layer 0 by koci',
      '<a layer 0 by koci',
      'a layer 1>',
      'b layer 1>',
      '<b layer 1 by koci',
      '<a layer 1 by koci',
      'a mount',
      'b mount',
      'b config false',
      'a config false',
      '<b unpack',
      '<a unpack',
    ])
    t.same(readdirSync(path.join(result.rootfs, 'etc')), ['issue'])
  },
)

await t.test('a bare function runs around the extraction of every layer', async t => {
  const { base: _, ...options } = await setUp(t)
  const digests: string[] = []
  const app = new Koci().use(async (ctx, next) => {
    await next()
    digests.push(ctx.layer.digest)
  })
  const { layers } = await app.unpack(options)
  t.same(
    digests,
    layers.map(layer => layer.digest),
  )
})

await t.test('the chain is fixed by the first run', async t => {
  const { base: _, ...options } = await setUp(t)
  const app = new Koci()
  await app.unpack(options)
  t.throws(() => app.use(function late() {}), {
    name: 'UsageError',
    code: 'ERR_KOCI_FROZEN',
    message: /^late: use\(\) after the first run/,
  })
})

await t.test('a driver that requires another says so before anything is made', async t => {
  const { base: _, ...options } = await setUp(t)
  const app = new Koci().use({ name: 'overlay', requires: ['cache'] })
  await t.rejects(app.unpack(options), {
    code: 'ERR_KOCI_DRIVER_REQUIRED',
    message: /^overlay: needs cache, .*chain overlay - add it/,
  })
  t.notOk(existsSync(options.bundle))
})

await t.test(
  'what a middleware throws is told with its name and step, and can be caught as it is',
  async t => {
    const { base: _, ...options } = await setUp(t)
    const boom = new RangeError('boom')
    const caught: unknown[] = []
    const catcher: Driver = {
      name: 'catcher',
      async layer(_ctx, next) {
        await next().catch((error: unknown) => {
          caught.push(error)
          throw error
        })
      },
    }
    const thrower: Driver = {
      name: 'thrower',
      layer() {
        throw boom
      },
    }
    await t.rejects(new Koci().use(catcher).use(thrower).unpack(options), {
      code: 'ERR_KOCI_MIDDLEWARE_FAILED',
      message: 'thrower: failed in layer: boom',
      cause: boom,
    })
    t.ok(caught.length > 0 && caught.every(each => each === boom))
  },
)

await t.test(
  'who throws on what somebody else threw is not to blame, nor is who was refused',
  async t => {
    const { base: _, ...options } = await setUp(t)
    const boom = new RangeError('boom')
    const again: Driver = {
      name: 'again',
      async unpack(_ctx, next) {
        await next().catch(() => {})
        throw boom
      },
    }
    const thrower: Driver = {
      name: 'thrower',
      mount() {
        throw boom
      },
    }
    await t.rejects(new Koci().use(again).use(thrower).unpack(options), {
      message: 'thrower: failed in mount: boom',
    })
    const cause = Object.assign(new Error('refused'), {
      syscall: 'connect',
      code: 'ECONNREFUSED',
    })
    const fetcher: Driver = {
      name: 'fetcher',
      mount() {
        throw new TypeError('fetch failed', { cause })
      },
    }
    await t.rejects(new Koci().use(fetcher).unpack(options), { code: 'ERR_KOCI_IO' })
    const speaker: Driver = {
      name: 'speaker',
      config() {
        throw new Error('in its own words', { cause })
      },
    }
    await t.rejects(new Koci().use(speaker).unpack(options), {
      message: 'speaker: failed in config: in its own words',
    })
    // the very same, in another run
    const other: Driver = {
      name: 'other',
      config() {
        throw boom
      },
    }
    await t.rejects(new Koci().use(other).unpack(options), {
      message: 'other: failed in config: boom',
    })
  },
)

await t.test('a list of changes that holds something else is refused', async t => {
  const { base: _, ...options } = await setUp(t)
  const lister: Driver = {
    name: 'lister',
    async delta(ctx) {
      ctx.changes = ['etc/passwd'] as never
    },
  }
  const app = new Koci().use(lister)
  await app.unpack(options)
  await t.rejects(listDelta(app, { bundle: options.bundle }), {
    code: 'ERR_KOCI_INVALID_OPTION',
    message: /'etc\/passwd' is no change - make each with change\(/,
  })
})

const offenders: [what: string, driver: Driver, code: string, message: RegExp][] = [
  [
    'next() twice',
    {
      name: 'twice',
      layer: async (_, next) => {
        await next()
        await next()
      },
    },
    'ERR_KOCI_NEXT_CALLED_TWICE',
    /^twice: .*step layer/,
  ],
  [
    'a forgotten await',
    {
      name: 'hasty',
      unpack: (_, next) => {
        void next()
      },
    },
    'ERR_KOCI_NEXT_NOT_AWAITED',
    /^hasty: .*step unpack/,
  ],
  [
    'a layer left unplaced',
    { name: 'keeper', layer: () => {} },
    'ERR_KOCI_LAYER_NOT_PLACED',
    /^sha256:[0-9a-f]{64}: .*chain is keeper/,
  ],
  [
    'an unpack that goes nowhere',
    { name: 'stop', unpack: () => {} },
    'ERR_KOCI_NOT_UNPACKED',
    /chain is stop/,
  ],
  [
    'a config that goes nowhere',
    { name: 'stop', config: () => {} },
    'ERR_KOCI_NOT_UNPACKED',
    /chain is stop/,
  ],
  [
    'stacked layers that nobody mounts',
    {
      name: 'stacker',
      unpack: async (ctx, next) => {
        ctx.extraction.choose('stacker', 'stacked', 'plain')
        await next()
      },
      layer: async (ctx, next) => {
        ctx.layer.target = await ctx.bundle.claim(`layer-${ctx.layer.index}`)
        mkdirSync(ctx.layer.target)
        await next()
      },
    },
    'ERR_KOCI_NOT_MOUNTED',
    /chain is stacker/,
  ],
  [
    'choosing after layers were looked up',
    { name: 'late', locate: ctx => ctx.extraction.choose('late', 'stacked', 'plain') },
    'ERR_KOCI_TOO_LATE',
    /^late: too late/,
  ],
  [
    'a variant after layers were looked up',
    { name: 'late', layer: ctx => ctx.extraction.addVariant('late', 'x') },
    'ERR_KOCI_TOO_LATE',
    /^x: too late/,
  ],
  [
    'placing a layer twice',
    {
      name: 'greedy',
      layer: async (ctx, next) => {
        await next()
        ctx.layer.place({ by: 'greedy', verified: false })
      },
    },
    'ERR_KOCI_CLOBBER',
    /koci placed it/,
  ],
  [
    'an error of its own',
    {
      name: 'own',
      mount: () => {
        throw new RangeError('own trouble')
      },
    },
    'ERR_KOCI_MIDDLEWARE_FAILED',
    /own trouble/,
  ],
]
for (const [what, driver, code, message] of offenders)
  await t.test(`${what} is an error that leaves nothing`, async t => {
    const { base, ...options } = await setUp(t)
    await t.rejects(new Koci().use(driver).unpack(options), { code, message })
    t.same(readdirSync(base), ['images'])
  })

await t.test('two drivers that disagree are both named', async t => {
  const { base: _, ...options } = await setUp(t)
  const chooser = (name: string, dialect: 'plain' | 'overlay-user'): Driver => ({
    name,
    unpack: async (ctx, next) => {
      ctx.extraction.choose(name, 'stacked', dialect)
      await next()
    },
  })
  const app = new Koci().use(chooser('one', 'plain')).use(chooser('two', 'overlay-user'))
  await t.rejects(app.unpack(options), {
    code: 'ERR_KOCI_LAYERING_CONFLICT',
    message: /^two: wants .*overlay-user.* one already chose .*plain/,
  })
})

await t.test(
  'what was deferred is undone in reverse, after all is settled, and all of it',
  async t => {
    const { base: _, ...options } = await setUp(t)
    const seen: string[] = []
    const warnings: string[] = []
    const app = new Koci().use({
      name: 'maker',
      layer: async (ctx, next) => {
        ctx.defer(() => {
          seen.push(`undo ${ctx.layer.index}`, String(existsSync(ctx.rootfs)))
        })
        await next()
        if (ctx.layer.index === 1) {
          ctx.defer(() => {
            throw new RangeError('cannot undo')
          })
          throw new RangeError('stop here')
        }
      },
    })
    app.on('warning', ({ data }) => void warnings.push(`${data.code}: ${data.message}`))
    await t.rejects(app.unpack(options), { message: /stop here/ })
    t.same(seen, ['undo 1', 'true', 'undo 0', 'true'], 'before the bundle itself is removed')
    await sleep(1)
    t.same(warnings, ['UNDO_FAILED: cannot undo'])
  },
)

await t.test('a failure aborts the signal of the run', async t => {
  const { base: _, ...options } = await setUp(t)
  let signal: AbortSignal | undefined
  const app = new Koci().use({
    name: 'x',
    unpack: ctx => {
      ;({ signal } = ctx)
      throw new RangeError('x')
    },
  })
  await t.rejects(app.unpack(options))
  t.ok(signal?.aborted)
})

await t.test('the caller can abort: before, and in the middle', async t => {
  const { base, ...options } = await setUp(t)
  await t.rejects(new Koci().unpack({ ...options, signal: AbortSignal.abort() }), {
    code: 'ERR_KOCI_ABORTED',
  })
  const controller = new AbortController()
  const app = new Koci().use(async (ctx, next) => {
    if (ctx.layer.index === 1) controller.abort()
    await next()
  })
  await t.rejects(app.unpack({ ...options, signal: controller.signal }), {
    name: 'SystemError',
    code: 'ERR_KOCI_ABORTED',
  })
  t.same(readdirSync(base), ['images'])
})

await t.test('events tell what happens; listeners cannot fail a run', async t => {
  const { base: _, ...options } = await setUp(t)
  const seen: string[] = []
  const runs = new Set<string>()
  const app = new Koci().use({
    name: 'finder',
    locate: ctx => {
      if (ctx.layer.index === 0) ctx.layer.place({ by: 'finder', verified: true })
    },
  })
  app.onAny(({ name, data }) => {
    seen.push(name)
    runs.add((data as { run: string }).run)
  })
  const complaints: unknown[] = []
  const listen = (warning: unknown): void => void complaints.push(warning)
  process.on('warning', listen)
  t.teardown(() => process.off('warning', listen))
  app.on('layer:found', () => {
    throw new RangeError('a bad listener')
  })
  await app.unpack(options)
  await sleep(5)
  t.same(seen, [
    'unpack:start',
    'layer:found',
    'layer:start',
    'layer:done',
    'unpack:done',
  ] satisfies (keyof KociEvents)[])
  t.equal(runs.size, 1)
  t.match(complaints, [{ errors: [{ message: 'a bad listener' }] }])
})

await t.test('strict turns warnings into errors', async t => {
  const { base, ...options } = await setUp(t)
  const warner: Driver = {
    name: 'warner',
    mount: ctx => ctx.warn({ code: 'ODD', message: 'something odd' }),
  }
  await new Koci().use(warner).unpack(options)
  await t.rejects(
    new Koci({ strict: true })
      .use(warner)
      .unpack({ ...options, bundle: path.join(base, 'second') }),
    {
      code: 'ERR_KOCI_STRICT',
      message: /^ODD: something odd/,
    },
  )
})

await t.test('a context shows digests and names, and shares what is shared', async t => {
  const { base: _, ...options } = await setUp(t)
  let shown = ''
  const app = new Koci().use({
    name: 'shower',
    unpack: async (ctx, next) => {
      ctx.state['seen'] = 1
      ctx.limits.maxEntries = 7
      await next()
    },
    layer: async (ctx, next) => {
      t.equal(ctx.state['seen'], 1)
      t.equal(ctx.limits.maxEntries, 7)
      t.equal(ctx.manifest.layers.length, 2)
      t.equal(ctx.imageConfig.rootfs.diff_ids[ctx.layer.index], ctx.layer.diffID)
      shown = inspect(ctx) + JSON.stringify(ctx)
      await next()
    },
  })
  await app.unpack(options)
  t.match(shown, /sha256:/)
  t.notMatch(shown, /AbortSignal|FileHandle|socket/)
})

await t.test("a layer's bytes can come from elsewhere, and are held to the DiffID", async t => {
  const { base, ...options } = await setUp(t)
  const tars = layers.map(members => tarBytes(members))
  const decrypts: Driver = {
    name: 'decrypts',
    layer: async (ctx, next) => {
      const tar = tars[ctx.layer.index] as Buffer
      ctx.layer.source = {
        compression: 'none',
        open: async function* () {
          yield tar.subarray(0, 700)
          yield tar.subarray(700)
        },
      }
      await next()
    },
  }
  const { rootfs, bundle } = await new Koci().use(decrypts).unpack(options)
  t.equal(readFileSync(path.join(rootfs, 'etc/issue'), 'utf8'), 'koci\n')
  t.notOk(
    readdirSync(bundle).some(name => name.startsWith('.koci')),
    'no private copy remains',
  )

  tars.reverse()
  await t.rejects(
    new Koci().use(decrypts).unpack({ ...options, bundle: path.join(base, 'second') }),
    { code: 'ERR_KOCI_DIFF_ID_MISMATCH' },
  )
  t.notOk(existsSync(path.join(base, 'second')))
})

await t.test('middleware can read the entries of a layer', async t => {
  const { base: _, ...options } = await setUp(t)
  const names: string[] = []
  const app = new Koci().use(async (ctx, next) => {
    for await (const { header, body } of ctx.layer.entries()) {
      const pieces = await Array.fromAsync<Buffer>(body)
      names.push(`${String(header.rawPath)} ${Buffer.concat(pieces).length}`)
    }
    await next()
  })
  await app.unpack(options)
  t.same(names, ['etc/ 0', 'etc/motd 6', 'etc/.wh.motd 0', 'etc/issue 5'])
})

await t.test('repack without a lister names the chain', async t => {
  const { base: _, ...options } = await setUp(t)
  const app = new Koci().use(function timing(_, next) {
    return next()
  })
  await app.unpack(options)
  await t.rejects(app.repack({ image: options.image, bundle: options.bundle }), {
    code: 'ERR_KOCI_NO_DELTA_LISTER',
    message: /the chain is timing - add mtree\(\)/,
  })
})

await t.test('a one-off around delta drops paths; one around pack changes entries', async t => {
  const { base, ...options } = await setUp(t)
  const app = new Koci()
    .use({
      name: 'no-logs',
      delta: async (ctx, next) => {
        await next()
        ctx.changes = filter(ctx.changes, ({ path }) => !path.startsWith('var/log/'))
      },
    })
    .use({
      name: 'owner',
      pack: async (ctx, next) => {
        await next()
        const { entries } = ctx
        ctx.entries = (async function* () {
          for await (const entry of entries ?? []) yield { ...entry, uid: 42 }
        })()
      },
    })
    .use(
      lists(
        change('A', Buffer.from('var/log/x')),
        change('A', Buffer.from('new')),
        change('D', Buffer.from('etc/issue')),
      ),
    )
  const { rootfs } = await app.unpack(options)
  writeFileSync(path.join(rootfs, 'new'), 'new\n')
  const result = await app.repack({ image: `${base}/images:next`, bundle: options.bundle })
  t.same(
    result.changes.map(({ kind, path }) => `${kind} ${path}`),
    ['D etc/issue', 'A new'],
  )

  const listing: string[] = []
  const reader = new Koci().use(async (ctx, next) => {
    if (ctx.layer.index === 2)
      for await (const { header } of ctx.layer.entries())
        listing.push(`${String(header.rawPath)} ${header.uid}`)
    await next()
  })
  await reader.unpack({
    ...options,
    image: `${base}/images:next`,
    bundle: path.join(base, 'second'),
  })
  t.same(listing, ['etc/.wh.issue 0', 'new 42'])
})

for (const [what, driver] of [
  ['repack', { name: 'stop', repack: () => {} }],
  ['pack', { name: 'stop', pack: () => {} }],
] as [string, Driver][])
  await t.test(`a ${what} that goes nowhere is an error that sets no tag`, async t => {
    const { base, ...options } = await setUp(t)
    const app = new Koci().use(driver).use(lists(change('D', Buffer.from('etc/issue'))))
    await app.unpack(options)
    await t.rejects(app.repack({ image: `${base}/images:next`, bundle: options.bundle }), {
      code: 'ERR_KOCI_NOT_REPACKED',
      message: /chain is stop, lists/,
    })
    t.notMatch(readFileSync(path.join(base, 'images/index.json'), 'utf8'), /next/)
  })

await t.test('a bundle whose storage driver is missing says which', async t => {
  const { base: _, ...options } = await setUp(t)
  const plain: Driver = {
    name: 'special',
    unpack: async (ctx, next) => {
      ctx.extraction.choose('special', 'merged', 'plain')
      await next()
    },
  }
  await new Koci().use(plain).unpack(options)
  await t.rejects(
    new Koci().use(lists()).repack({ image: options.image, bundle: options.bundle }),
    {
      code: 'ERR_KOCI_CHAIN_MISMATCH',
      message: /made with special, which is not in the chain lists/,
    },
  )
  const { changes } = await new Koci()
    .use(plain)
    .use(lists())
    .repack({ image: options.image, bundle: options.bundle })
  t.same(changes, [])
})

await t.test(
  'a refresh that fails leaves the image, and the bundle on its old base',
  async t => {
    const { base, ...options } = await setUp(t)
    const app = new Koci().use(lists(change('D', Buffer.from('etc/issue')))).use({
      name: 'bad',
      refresh: () => {
        throw new RangeError('no luck')
      },
    })
    await app.unpack(options)
    const before = readFileSync(path.join(options.bundle, 'umoci.json'), 'utf8')
    await t.rejects(
      app.repack({ image: `${base}/images:next`, bundle: options.bundle, refresh: true }),
      {
        code: 'ERR_KOCI_NOT_REFRESHED',
        message: /new image next is complete/,
        cause: { message: 'no luck' },
      },
    )
    t.equal(readFileSync(path.join(options.bundle, 'umoci.json'), 'utf8'), before)
    await new Koci().unpack({
      ...options,
      image: `${base}/images:next`,
      bundle: path.join(base, 'second'),
    })
  },
)
