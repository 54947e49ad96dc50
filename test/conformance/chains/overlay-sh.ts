// A chain for the suite, here and in the processes that it kills.
import { existsSync } from 'node:fs'
import path from 'node:path'
import type { Driver } from '../../../lib/index.ts'
import { hooks } from '../../../middleware/hooks/index.ts'
import { installExample } from '../../support/example-hooks.ts'

export const create = (store: string): Driver => {
  const base = path.dirname(store)
  const file = path.join(base, 'hooks.toml')
  return hooks({ file: existsSync(file) ? file : installExample('overlay', base, store) })
}
