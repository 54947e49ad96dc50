// A chain for the suite, here and in the processes that it kills.
import erofs from '../../../examples/erofs.ts'
import type { Driver } from '../../../lib/index.ts'
import { overlay } from '../../../middleware/overlay/index.ts'

export const create = (directory: string): readonly Driver[] => [
  erofs({ directory }),
  overlay({ durable: false }),
]
