// Koa's composition, with both of its checks always on, and one more rule: whatever a middleware started is
// settled before its onion ends, so that undoing a failed run never races with work still going on.
import { noteCulprit } from './blame.ts'
import { createError } from './errors.ts'
import { WatchedPromise } from './watched-promise.ts'

/** Runs the rest of the chain; resolves when it has unwound. Call it once, or not at all to answer yourself. */
export type Next = () => Promise<void>

/** One ring of an onion. May be synchronous; what it returns is ignored but for being awaited. */
export type Middleware<C> = (context: C, next: Next) => unknown

/** A middleware with the name that errors and `explain` show for it. */
export interface Member<C> {
  readonly name: string
  readonly run: Middleware<C>
}

/** What `compose` makes: itself a middleware, `next` being optional. */
export type Composed<C> = (context: C, next?: Next) => Promise<void>

/** How a composed chain introduces itself in errors, and whom it tells that all is lost. */
export interface ComposeOptions {
  /** Shown in errors. @default 'middleware' */
  readonly step?: string
  /** Called as soon as a middleware broke the rules, before what it left running is waited for. */
  readonly abort?: (reason: unknown) => void
}

/**
 * Puts middleware together into one, first outermost; closed under composition.
 *
 * The promise of the result settles only after every middleware that was started has settled.
 * @throws {UsageError} ERR_KOCI_INVALID_MIDDLEWARE at once, if a member isn't a function or a `Member`.
 * Rejects with ERR_KOCI_NEXT_CALLED_TWICE or ERR_KOCI_NEXT_NOT_AWAITED, naming the middleware.
 * @example
 * const both = compose([async (ctx, next) => { await next() }, ctx => {}])
 */
export function compose<C>(
  middleware: readonly (Middleware<C> | Member<C>)[],
  options: ComposeOptions = {},
): Composed<C> {
  const { step = 'middleware', abort } = options
  const members = middleware.map(toMember)
  return (context, end) => {
    return dispatch(0)

    async function dispatch(index: number): Promise<void> {
      const member = members[index]
      if (!member) return end?.()
      let downstream: Promise<void> | undefined
      let waited: WatchedPromise | undefined
      let running = false
      let ended = false
      let misuse: unknown
      let inner: unknown
      const next: Next = () => {
        if (downstream || ended) {
          const name = ended ? 'NEXT_NOT_AWAITED' : 'NEXT_CALLED_TWICE'
          misuse = createError(name, { subject: member.name, step })
          const refusal = Promise.reject(misuse)
          refusal.catch(() => {})
          return refusal
        }
        running = true
        downstream = dispatch(index + 1).finally(() => (running = false))
        downstream.catch(error => (inner = error))
        waited = WatchedPromise.watch(downstream)
        return waited
      }

      try {
        await member.run(context, next)
        // over by chance, or not: what became of it is lost unless somebody asked
        if (running || waited?.asked === false)
          throw createError('NEXT_NOT_AWAITED', { subject: member.name, step })
        if (misuse !== undefined) throw misuse
      } catch (error) {
        if (error !== inner) noteCulprit(error, member.name, step)
        if (running) abort?.(error)
        throw error
      } finally {
        ended = true
        await downstream?.catch(() => {})
      }
    }
  }
}

/** The name of a middleware function: its own, or its place in the chain. */
export function nameOf(middleware: { readonly name: string }, index: number): string {
  return middleware.name || `middleware #${index + 1}`
}

function toMember<C>(value: Middleware<C> | Member<C>, index: number): Member<C> {
  if (typeof value === 'function') return { name: nameOf(value, index), run: value }
  if (typeof value?.run === 'function') return value
  throw createError('INVALID_MIDDLEWARE', {
    subject: `middleware #${index + 1}`,
    reason: typeof value,
  })
}
