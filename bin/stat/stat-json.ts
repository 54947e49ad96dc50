// `koci stat --json`: umoci's shape, and its encoding. Programs may rely on it.
import { encodeJson } from '../../lib/oci/json.ts'
import type { HistoryRow, ImageStat } from './read-stat.ts'

/** One line of JSON with its line feed. */
export function toJson(stat: ImageStat): Buffer {
  const { descriptor, rawManifest, config, history } = stat
  return encodeJson({
    manifest: { descriptor, blob: rawManifest },
    ...(config ? { config: { descriptor: config.descriptor, blob: config.raw } } : {}),
    ...(history ? { history: history.map(rowToJson) } : {}),
  })
}

function rowToJson({ layer, diffID, history }: HistoryRow): Record<string, unknown> {
  const { created, created_by, author, comment, empty_layer } = history
  const fields = { created, created_by, author, comment, empty_layer }
  return {
    layer: layer ?? null,
    diff_id: diffID,
    ...Object.fromEntries(Object.entries(fields).filter(([, value]) => Boolean(value))),
  }
}
