// How a bundle was made, for whoever works on it again: the chain at hand has to be able to deal with that.
import type { Bundle } from './bundle/bundle.ts'
import type { RecordedExtraction } from './bundle/metadata.ts'
import { createError } from './errors.ts'
import { Extraction } from './layer/extraction.ts'
import type { Run } from './run.ts'

/** What a bundle has to remember of how it was made; undefined where that was as usual. */
export function recordExtraction(extraction: Extraction): RecordedExtraction | undefined {
  const { keepDirlinks, compat, variants, variantsBy: by } = extraction
  if (!keepDirlinks && compat === undefined && variants.length === 0) return undefined
  return { keepDirlinks, compat, ...(variants.length > 0 && { variants, by }) }
}

/**
 * The way the bundle was made. A middleware that bundles can't remember, and that isn't in the chain, is warned about.
 * @throws {UsageError} ERR_KOCI_CHAIN_MISMATCH if the driver that chose the layering isn't in the chain
 */
export function recordedExtraction({ app, warn }: Run, bundle: Bundle): Extraction {
  const { chain = [], chosenBy, layering, dialect, extraction: made } = bundle.ready ?? {}
  const { keepDirlinks, compat, variants = [], by = [] } = made ?? {}
  const extraction = new Extraction({ ...bundle.umoci?.mapping, keepDirlinks, compat })
  extraction.recall(variants, by)
  if (chosenBy !== undefined && layering !== undefined && dialect !== undefined) {
    if (!app.chain.includes(chosenBy))
      throw createError('CHAIN_MISMATCH', {
        subject: bundle.path,
        wanted: chosenBy,
        chain: app.describeChain(),
      })
    extraction.choose(chosenBy, layering, dialect)
    extraction.seal()
  }
  for (const { name, source } of chain) {
    if (source !== 'unnamed' || app.chain.includes(name)) continue
    const message = `the bundle was made with ${name}, which it can't bring back: add it, if it matters; the chain is ${app.describeChain()}`
    warn({ code: 'UNNAMED_MIDDLEWARE', message })
  }
  return extraction
}
