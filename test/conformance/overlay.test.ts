// Mounted layers pass the suite, alone and out of a store, wherever overlays can be mounted.
import t from 'tap'
import { testDriver } from '../../lib/testing/index.ts'
import { memoryParent } from '../support/memory-dir.ts'
import { namespace, runInNamespaces } from '../support/namespaces.ts'
import * as both from './chains/cache-overlay.ts'
import * as alone from './chains/overlay.ts'

t.setTimeout(900_000)

if (namespace === undefined) await runInNamespaces(t, import.meta.filename)
else {
  const scratch = memoryParent()
  const capabilities = { lists: true, refreshes: true, mounts: true }
  if (namespace === 'host')
    await t.test('overlay', t =>
      testDriver(t, {
        create: alone.create,
        capabilities,
        module: new URL('./chains/overlay.ts', import.meta.url),
        scratch,
      }),
    )
  await t.test('cache and overlay', t =>
    testDriver(t, {
      create: both.create,
      capabilities: { ...capabilities, keeps: true },
      module: new URL('./chains/cache-overlay.ts', import.meta.url),
      scratch,
    }),
  )
}
