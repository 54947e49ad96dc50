// Where a user's stores are if nobody says: one directory for the stores of all drivers, each of which has its own part.
import path from 'node:path'
import { createError } from '../errors.ts'
import { readPrivileges } from './privileges.ts'

/**
 * /var/lib/koci for root, otherwise $XDG_CACHE_HOME/koci or ~/.cache/koci.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION, about `subject`, for a user without a home
 */
export function defaultStoreDirectory(
  subject: string,
  env: NodeJS.ProcessEnv = process.env,
): string {
  // root of a user namespace is an ordinary user outside of it
  const isRoot = process.geteuid?.() === 0 && !readPrivileges().inUserNamespace
  if (isRoot) return '/var/lib/koci'
  const { XDG_CACHE_HOME: xdg, HOME: home } = env
  if (xdg && path.isAbsolute(xdg)) return path.join(xdg, 'koci')
  if (home && path.isAbsolute(home)) return path.join(home, '.cache', 'koci')
  throw createError('INVALID_OPTION', {
    subject,
    reason: 'there is no default without $HOME - give one',
  })
}
