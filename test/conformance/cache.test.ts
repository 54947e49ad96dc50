// A store of layers passes the suite, with layers merged from it.
import t from 'tap'
import { testDriver } from '../../lib/testing/index.ts'
import { memoryParent } from '../support/memory-dir.ts'
import { create } from './chains/cache.ts'

await testDriver(t, {
  create,
  capabilities: { keeps: true, lists: true, refreshes: true },
  scratch: memoryParent(),
  module: new URL('./chains/cache.ts', import.meta.url),
})
