// A chain for the suite, here and in the processes that it kills.
import type { Driver } from '../../../lib/index.ts'
import { mtree } from '../../../middleware/mtree/index.ts'

export const create = (): Driver => mtree()
