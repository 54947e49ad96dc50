// A chain for the suite, here and in the processes that it kills.
import type { Driver } from '../../../lib/index.ts'
import { btrfs } from '../../../middleware/btrfs/index.ts'

export const create = (dir: string): Driver => btrfs({ dir })
