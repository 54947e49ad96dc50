// A chain for the suite, here and in the processes that it kills.
import type { Driver } from '../../../lib/index.ts'
import { cache } from '../../../middleware/cache/index.ts'
import { mtree } from '../../../middleware/mtree/index.ts'

export const create = (dir: string): readonly Driver[] => [
  cache({ dir, durable: false }),
  mtree(),
]
