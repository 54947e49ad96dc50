// Middleware out of middleware. What there is beside it, `compose`, is the runner's own.
import type { Middleware } from './compose.ts'

/**
 * Middleware that takes part only where a predicate holds; elsewhere it is as if it weren't there.
 * @example
 * app.use(when(ctx => ctx.layer.size > 1e9, announce))
 */
export function when<C>(
  holds: (context: C) => boolean | Promise<boolean>,
  middleware: Middleware<C>,
): Middleware<C> {
  const conditional: Middleware<C> = async (context, next) =>
    (await holds(context)) ? middleware(context, next) : next()
  Object.defineProperty(conditional, 'name', { value: middleware.name })
  return conditional
}
