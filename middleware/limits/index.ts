// limits(): bounds on what one layer may be. It only sets data; the workers enforce it, and found layers are held to it.
import type { Driver } from '../../lib/driver.ts'
import { createError } from '../../lib/errors.ts'
import type { Limits } from '../../lib/layer/limits.ts'

/** Bounds that no known image meets and that stop a bomb before it fills a disk. */
export const defaultLimits: Readonly<Required<Limits>> = {
  maxBytes: 1024 ** 4,
  maxEntries: 10_000_000,
  maxRatio: 1000,
  maxDepth: 4096,
}

/**
 * Refuses layers beyond these bounds with ERR_KOCI_LIMIT_EXCEEDED, before they can exceed them by much.
 * An option left out has its default; `Infinity` lifts a bound.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION at once for a bound that isn't a positive number, or an unknown one
 */
export function limits(options: Limits = {}): Driver {
  const bounds = { ...defaultLimits, ...options }
  for (const [name, value] of Object.entries(bounds)) {
    if (!Object.hasOwn(defaultLimits, name))
      throw createError('INVALID_OPTION', {
        subject: `limits option ${name}`,
        reason: `there are ${Object.keys(defaultLimits).join(', ')}`,
      })
    if (typeof value !== 'number' || !(value > 0))
      throw createError('INVALID_OPTION', {
        subject: `limits option ${name}`,
        reason: `${String(value)} is not a positive number`,
      })
  }
  return {
    name: 'limits',
    recipe: { options: { ...options } },
    options: {
      maxBytes: { type: 'number', description: 'bytes of one uncompressed layer' },
      maxEntries: { type: 'number', description: 'entries of one layer' },
      maxRatio: {
        type: 'number',
        description: 'uncompressed to compressed bytes of one layer',
      },
      maxDepth: { type: 'number', description: 'components of one path' },
    },
    explain: () =>
      `refuses layers beyond ${Object.entries(bounds)
        .map(([name, bound]) => `${name} ${bound}`)
        .join(', ')}`,
    async unpack(ctx, next) {
      Object.assign(ctx.limits, bounds)
      await next()
    },
  }
}
