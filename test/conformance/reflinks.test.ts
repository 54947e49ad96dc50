// A store of layers passes the suite where merging clones files instead of copying them.
import t from 'tap'
import { testDriver } from '../../lib/testing/index.ts'
import { mountpoint, onFileSystem } from '../support/btrfs.ts'
import { create } from './chains/cache.ts'

t.setTimeout(900_000)

if (mountpoint === undefined)
  for (const type of ['btrfs', 'xfs'] as const)
    await onFileSystem(t, import.meta.filename, { type })
else
  await testDriver(t, {
    create,
    capabilities: { keeps: true, lists: true, refreshes: true },
    scratch: mountpoint,
    module: new URL('./chains/cache.ts', import.meta.url),
  })
