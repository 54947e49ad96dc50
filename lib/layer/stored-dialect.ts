// In which dialect a layer is stored that has a directory of its own.
import { readPrivileges } from '../fs/privileges.ts'
import type { Dialect, Extraction } from './extraction.ts'
import type { Layer } from './layer.ts'

/** That of the run; where it has none, because layers are merged, the one that this process can store. */
export function storableDialect({ dialect }: Extraction): Dialect {
  if (dialect !== 'plain') return dialect
  return readPrivileges().storesTrusted ? 'overlay-trusted' : 'overlay-user'
}

/** How whiteouts are stored in the layer's directory. Merged, they have to be: what they hide is elsewhere. */
export function dialectOf({ placed, dialect }: Layer, extraction: Extraction): Dialect {
  const own = placed?.dialect ?? dialect
  if (own !== undefined) return own
  return extraction.layering === 'stacked' ? extraction.dialect : storableDialect(extraction)
}
