// Who threw an error that isn't koci's own: nothing else about it tells a driver's author where to look. It travels outwards as
// it is, so that middleware can catch what it knows; only what leaves a run is wrapped.
import { format } from 'node:util'
import { createError, KociError } from './errors.ts'

const culprits = new WeakMap<object, { readonly subject: string; readonly step: string }>()

/** Notes which middleware threw an error, in which step. Others may throw it on: what aborted a run is thrown by all who wait. */
export function noteCulprit(error: unknown, subject: string, step: string): void {
  if (typeof error !== 'object' || error === null || culprits.has(error)) return
  culprits.set(error, { subject, step })
}

/** The error of the middleware that threw it; koci's own errors, refusals by the system and aborts stay what they are. */
export function blameCulprit(error: unknown): unknown {
  const culprit = culprits.get(error as object)
  // it may be thrown again, by others, in another run
  culprits.delete(error as object)
  if (!culprit || error instanceof KociError || isRefusal(error)) return error
  const reason = error instanceof Error ? error.message : format('%s', error)
  return createError('MIDDLEWARE_FAILED', { ...culprit, reason }, error)
}

/** Of fetch(), whose error says that it failed and nothing else, the cause tells. */
function isRefusal(error: unknown, depth = 0): boolean {
  if (typeof error !== 'object' || error === null || depth > 10) return false
  const { syscall, name, cause } = error as NodeJS.ErrnoException
  if (syscall !== undefined || name === 'AbortError') return true
  return (name === 'TypeError' || depth > 0) && isRefusal(cause, depth + 1)
}
