// A chain for the suite, here and in the processes that it kills.
import { existsSync } from 'node:fs'
import path from 'node:path'
import type { Driver } from '../../../lib/index.ts'
import { hooks } from '../../../middleware/hooks/index.ts'
import { mtree } from '../../../middleware/mtree/index.ts'
import { installExample } from '../../support/example-hooks.ts'

export const create = (store: string): readonly Driver[] => {
  const base = path.dirname(store)
  const file = path.join(base, 'hooks.toml')
  if (!existsSync(file)) installExample('btrfs', base, store)
  return [hooks({ file }), mtree()]
}
