// The example that keeps layers as EROFS images passes the suite.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { testDriver } from '../../lib/testing/index.ts'
import { memoryParent } from '../support/memory-dir.ts'
import { namespace, runInNamespaces } from '../support/namespaces.ts'
import { isRoot, missing } from '../support/peers.ts'
import { create } from './chains/erofs.ts'

t.setTimeout(900_000)

const absent =
  (!isRoot && 'needs root, to mount images') ||
  missing('mkfs.erofs', 'losetup') ||
  (!readFileSync('/proc/filesystems', 'utf8').includes('\terofs\n') &&
    'needs a kernel with EROFS') ||
  (spawnSync('losetup', ['-f'], { stdio: 'ignore' }).status !== 0 && 'needs a loop device')

if (absent !== false) await t.test('erofs', { skip: absent }, async () => {})
else if (namespace === undefined) await runInNamespaces(t, import.meta.filename)
else if (namespace === 'host')
  await testDriver(t, {
    create,
    capabilities: { keeps: true, lists: true, refreshes: true, mounts: true },
    scratch: memoryParent(),
  })
else await t.test('erofs', { skip: 'a user namespace has no loop devices' }, async () => {})
