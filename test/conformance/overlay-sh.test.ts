// The overlay driver in sh passes the suite: with real mounts, which are in a namespace of their own.
import t from 'tap'
import { testDriver } from '../../lib/testing/index.ts'
import { memoryParent } from '../support/memory-dir.ts'
import { namespace, runInNamespaces } from '../support/namespaces.ts'
import { isRoot, missing } from '../support/peers.ts'
import { create } from './chains/overlay-sh.ts'

t.setTimeout(900_000)

const absent =
  (!isRoot && 'needs root, to mount overlays') || missing('jq', 'getfattr', 'setfattr', 'mount')

if (absent !== false) await t.test('overlay.sh', { skip: absent }, async () => {})
else if (namespace === undefined) await runInNamespaces(t, import.meta.filename, ['host'])
else
  await testDriver(t, {
    create,
    capabilities: { keeps: true, lists: true, refreshes: true, mounts: true },
    scratch: memoryParent(),
    module: new URL('./chains/overlay-sh.ts', import.meta.url),
  })
