// A chain for the suite, here and in the processes that it kills.
import type { Driver } from '../../../lib/index.ts'
import { overlay } from '../../../middleware/overlay/index.ts'

export const create = (): Driver => overlay({ durable: false })
