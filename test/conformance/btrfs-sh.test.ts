// The btrfs driver in sh passes the suite, on a real btrfs.
import { globSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { destroySubvolume } from '../../lib/fs/btrfs.ts'
import { testDriver } from '../../lib/testing/index.ts'
import { mountpoint, onFileSystem } from '../support/btrfs.ts'
import { missing } from '../support/peers.ts'
import { create } from './chains/btrfs-sh.ts'

t.setTimeout(900_000)

const absent = missing('jq', 'awk', 'btrfs')

if (absent !== false) await t.test('btrfs.sh', { skip: absent }, async () => {})
else if (mountpoint === undefined) await onFileSystem(t, import.meta.filename)
else
  await testDriver(t, {
    create,
    capabilities: { keeps: true, lists: true, refreshes: true },
    scratch: mountpoint,
    clear(store) {
      const snapshots = ['store/*', 'bundle-*/hooks/{base,now}']
      for (const name of globSync(snapshots, { cwd: path.dirname(store) }))
        destroySubvolume(path.join(path.dirname(store), name))
    },
    module: new URL('./chains/btrfs-sh.ts', import.meta.url),
  })
