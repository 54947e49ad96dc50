// Whether a layer that was extracted alone would look different, had it been extracted on top of those below it.
import type { Extraction } from './extraction.ts'
import type { Layer } from './layer.ts'

/**
 * Why a placed layer has to be extracted on top of the layers below it (base first, all of them placed); undefined if
 * it needn't. Layers without a report are taken as they are.
 * @throws {SystemError} ERR_KOCI_IO where a layer can't be read
 */
export function reasonToNeedBelow(
  layer: Layer,
  below: readonly Layer[],
  extraction: Extraction,
): string | undefined {
  void [layer, below, extraction]
  return undefined
}
