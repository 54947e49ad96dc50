// Snapshots pass the suite on a real btrfs.
import t from 'tap'
import { testDriver } from '../../lib/testing/index.ts'
import { mountpoint, onFileSystem } from '../support/btrfs.ts'
import { destroySnapshots } from '../support/destroy-snapshots.ts'
import { create } from './chains/btrfs.ts'

t.setTimeout(900_000)

if (mountpoint === undefined) await onFileSystem(t, import.meta.filename)
else
  await testDriver(t, {
    create,
    capabilities: { keeps: true, lists: true, refreshes: true },
    scratch: mountpoint,
    clear: destroySnapshots,
    module: new URL('./chains/btrfs.ts', import.meta.url),
  })
