// How a bundle was made, for whoever works on it again: the chain at hand has to be able to deal with that.
import type { Bundle } from './bundle/bundle.ts'
import { createError } from './errors.ts'
import { Extraction } from './layer/extraction.ts'
import type { Run } from './run.ts'

/**
 * The way the bundle was made. A middleware that bundles can't remember, and that isn't in the chain, is warned about.
 * @throws {UsageError} ERR_KOCI_CHAIN_MISMATCH if the driver that chose the layering isn't in the chain
 */
export function recordedExtraction({ app, warn }: Run, bundle: Bundle): Extraction {
  const extraction = new Extraction(bundle.umoci?.mapping)
  const { chain = [], chosenBy, layering, dialect } = bundle.ready ?? {}
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
