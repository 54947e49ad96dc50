// What cache() takes, and where the store is if nobody says.
import path from 'node:path'
import { createError } from '../../lib/errors.ts'
import { defaultStoreDirectory } from '../../lib/fs/store-directory.ts'

/** Options of `cache()`. */
export interface CacheOptions {
  /**
   * The store, which is made if it isn't there.
   * @default /var/lib/koci for root, otherwise $XDG_CACHE_HOME/koci or ~/.cache/koci
   */
  readonly dir?: string | undefined
  /**
   * Wait until a layer is on disk before it counts. Without, it is worth nothing after the next boot; for machines that are
   * thrown away.
   * @default true
   */
  readonly durable?: boolean | undefined
}

/** The options with an absolute path. @throws {UsageError} ERR_KOCI_INVALID_OPTION */
export function checkOptions(options: CacheOptions): { dir: string; durable: boolean } {
  const { dir, durable = true, ...unknown } = options
  for (const name of Object.keys(unknown)) throw invalid(name, 'there are dir, durable')
  if (dir !== undefined && (typeof dir !== 'string' || dir === '' || dir.includes('\0')))
    throw invalid('dir', `${JSON.stringify(dir)} is not a path`)
  if (typeof durable !== 'boolean') throw invalid('durable', `${String(durable)} is no boolean`)
  return { dir: path.resolve(dir ?? defaultStoreDirectory('cache option dir')), durable }
}

function invalid(name: string, reason: string): Error {
  return createError('INVALID_OPTION', { subject: `cache option ${name}`, reason })
}
