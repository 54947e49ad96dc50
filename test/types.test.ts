// What must not compile, checked by `npm run check`: every line below a @ts-expect-error is a type error.
import t from 'tap'
import { compose, filter, type Driver, type Koci, type LayerContext } from '../lib/index.ts'
import { createError } from '../lib/errors.ts'

export function good(app: Koci): void {
  app
    .use(async (ctx, next) => {
      await next()
      ctx.layer.digest satisfies string
    })
    .use({
      name: 'typed',
      unpack: async (ctx, next) => {
        ctx.limits.maxBytes = 1
        await next()
      },
      delta: async (ctx, next) => {
        await next()
        ctx.changes = filter(ctx.changes, ({ path }) => path !== 'x')
      },
      config: (_, next) => next(),
    })
  app.on('layer:done', ({ data }) => void (data.layer.diffID satisfies string))
  compose<LayerContext>([(_, next) => next()])
}

export function bad(app: Koci): void {
  app.use({
    name: 'wrong-context',
    // @ts-expect-error a mount has no layer
    mount: ctx => ctx.layer,
    // @ts-expect-error an unpack has no changes
    unpack: ctx => ctx.changes,
    // @ts-expect-error a layer has no runtime config
    layer: ctx => ctx.runtimeConfig,
  })
  // @ts-expect-error a driver needs a name
  app.use({ layer: () => {} })
  // @ts-expect-error no such step
  const misspelt: Driver = { name: 'x', lokate: () => {} }
  // @ts-expect-error middleware of another step
  const swapped: Driver = { name: 'x', locate: (ctx: { changes: string }) => ctx.changes }
  // @ts-expect-error neither function nor driver
  app.use('cache')
  app.use((ctx, next) => {
    // @ts-expect-error shared things are read-only
    ctx.layers = []
    // @ts-expect-error the placement is set by place()
    ctx.layer.placed = undefined
    // @ts-expect-error next takes nothing
    return next(ctx)
  })
  // @ts-expect-error no such event
  app.on('layer:finished', () => {})
  app.on('layer:done', ({ data }) => {
    // @ts-expect-error no such member
    return data.changes
  })
  // @ts-expect-error an unpack needs a bundle
  void app.unpack({ image: 'x' })
  // @ts-expect-error no such compression
  void app.repack({ image: 'x', bundle: 'y', compress: 'xz' })
  // @ts-expect-error the message needs what was expected
  createError('DIGEST_MISMATCH', { subject: 'x', found: 'y' })
  // @ts-expect-error no such error
  createError('NO_SUCH_ERROR', { subject: 'x' })
  void [misspelt, swapped]
}

t.equal(
  typeof good,
  'function',
  'types are checked by tsc; here it is enough that the module loads',
)
