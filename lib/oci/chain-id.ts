// ChainIDs name a layer together with everything below it. image-spec v1.1.1, config.md, "Layer ChainID".
import { digestOf, type Digest } from './digest.ts'

/** The ChainID at each layer, base first: the first is its DiffID, each other hashes the one below and its own DiffID. */
export function chainIDs(diffIDs: readonly Digest[]): Digest[] {
  const chain: Digest[] = []
  for (const diffID of diffIDs) {
    const below = chain.at(-1)
    chain.push(below === undefined ? diffID : digestOf(Buffer.from(`${below} ${diffID}`)))
  }
  return chain
}
