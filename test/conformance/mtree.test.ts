// The storage that is always there passes the suite, on tap.
import t from 'tap'
import { testDriver } from '../../lib/testing/index.ts'
import { memoryParent } from '../support/memory-dir.ts'
import { create } from './chains/mtree.ts'

await testDriver(t, {
  create,
  capabilities: { lists: true, refreshes: true },
  scratch: memoryParent(),
  module: new URL('./chains/mtree.ts', import.meta.url),
})
