// What the commands that look into a store have in common.
import type { LayerStore } from '../../../lib/stored-layers.ts'
import type { Arguments } from '../../arguments.ts'
import type { Option } from '../../command.ts'
import type { Session } from '../../session.ts'
import { usageError } from '../../usage-error.ts'

export const dir: Option = {
  type: 'text',
  description: 'where the stores are; by default /var/lib/koci for root, else ~/.cache/koci',
  value: 'path',
}

/**
 * Does something with the stores of `--dir`, one of each driver that keeps one there, and closes them. None is made: a store
 * that was mistyped would look empty.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION if there is none
 */
export async function withStores<T>(
  args: Arguments,
  session: Session,
  use: (stores: readonly LayerStore[]) => Promise<T>,
): Promise<T> {
  const { checkOptions } = await import('../../../middleware/cache/options.ts')
  const { dir: found } = checkOptions({ dir: args.text('dir') })
  const finders = [
    async () => (await import('../../../middleware/cache/layer-store.ts')).findLayerStore,
    async () => (await import('../../../middleware/btrfs/layer-store.ts')).findLayerStore,
  ]
  const stores: LayerStore[] = []
  try {
    for (const load of finders) {
      const find = await load()
      const store = await find(found, session.signal)
      if (store) stores.push(store)
    }
    if (stores.length > 0) return await use(stores)
  } finally {
    for (const store of stores) store.close()
  }
  throw usageError('--dir', `there is no store in ${found} - the first unpack makes one`)
}

/** Bytes for people. */
export function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes
  let unit = 0
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`
}

/** `10G`, `500MiB`, `1048576`. */
export function readBytes(args: Arguments, name: string): number | undefined {
  const text = args.text(name)
  if (text === undefined) return undefined
  const match = /^(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?$/i.exec(text)
  if (!match) throw usageError(`--${name}`, `${text} is not a size such as 500M or 10G`)
  const [, number = '', unit = ''] = match
  return Math.floor(Number(number) * 1024 ** ' kmgt'.indexOf(unit.toLowerCase() || ' '))
}

const seconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 }

/** `30d`, `12h`, in milliseconds. */
export function readDuration(args: Arguments, name: string): number | undefined {
  const text = args.text(name)
  if (text === undefined) return undefined
  const match = /^(\d+)([smhdw])$/.exec(text)
  if (!match) throw usageError(`--${name}`, `${text} is not a time such as 12h, 30d or 8w`)
  return Number(match[1]) * (seconds[match[2] ?? ''] ?? 0) * 1000
}
