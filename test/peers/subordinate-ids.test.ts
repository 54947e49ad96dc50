// An ordinary user with a range of ids in /etc/subuid: in a user namespace that newuidmap set up, owners are real, and come
// back as they were. Everything runs in the namespace; the user outside of it only looks at who owns what.
import { readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { layersOf } from '../../lib/unpack.ts'
import { childEnvironment, plainly, program } from '../bin/run-koci.ts'
import { makeImage } from '../support/image.ts'
import { dir, file } from '../support/members.ts'
import { finish, isRoot, missing, temporary, type Finished } from '../support/peers.ts'

const namespace = ['-U', '--map-auto', '--map-root-user']

function reason(): false | string {
  if (isRoot) return 'needs an ordinary user'
  const absent = missing('newuidmap', 'unshare')
  if (absent !== false) return absent
  const { status, stderr } = finish('unshare', [...namespace, 'true'])
  return status !== 0 && `needs subordinate ids: ${stderr.trim()}`
}

await t.test('owners are real, and come back', { skip: reason() }, async t => {
  const base = temporary(t, 'subordinate')
  /** As root of the namespace. */
  const inside = (...args: string[]): Finished =>
    finish('unshare', [...namespace, ...args], { cwd: base, env: childEnvironment() })
  const koci = (...args: string[]): void => {
    const outcome = inside(...plainly(process.execPath, [program, ...args]).flat())
    t.match(outcome, { status: 0, stdout: '', stderr: '' })
  }
  // the user can't remove what isn't hers
  t.teardown(() => inside('sh', '-c', 'rm -rf bundle theirs raw'))

  await makeImage(path.join(base, 'images'), 'a', {
    layers: [
      [
        dir('etc', { uid: 0, gid: 42 }),
        file('etc/owned', 'x', { uid: 1000, gid: 1000, mode: 0o4755 }),
        file('etc/root', 'y', { mode: 0o600 }),
      ],
    ],
  })
  const maps = [
    '--uid-map=0:0:1',
    '--uid-map=1:1:65535',
    '--gid-map=0:0:1',
    '--gid-map=1:1:65535',
  ]
  const ownerOf = (name: string): number => statSync(path.join(base, name)).uid
  const first = Number(/^\s+1\s+(\d+)/m.exec(inside('cat', '/proc/self/uid_map').stdout)?.[1])
  t.ok(first > 0)

  koci('unpack', '--image=images:a', ...maps, 'bundle')
  t.match(JSON.parse(readFileSync(path.join(base, 'bundle/umoci.json'), 'utf8')).map_options, {
    uid_mappings: [{ containerID: 0, hostID: 0, size: 1 }, { size: 65_535 }],
  })
  inside('chmod', '711', 'bundle')
  t.equal(ownerOf('bundle/rootfs/etc/root'), process.geteuid?.())
  t.equal(ownerOf('bundle/rootfs/etc/owned'), first + 999)
  koci('raw', 'unpack', '--image=images:a', 'raw')
  t.equal(ownerOf('raw/etc/owned'), first + 999, 'without maps, too')

  const record = inside('sh', '-c', 'ls bundle/*.mtree').stdout.trim()
  koci('raw', 'mtree-validate', '--file', record, '--path', 'bundle/rootfs')
  inside('sh', '-c', 'echo z > bundle/rootfs/etc/new; chown 7:8 bundle/rootfs/etc/new')
  koci('repack', '--image=images:b', 'bundle')
  koci('insert', ...maps, '--image=images:b', '--tag=c', 'bundle/rootfs/etc/new', '/inserted')

  await using layout = await ImageLayout.open(path.join(base, 'images'))
  const image = { layout, ...(await layout.resolve('c')) }
  const owners: string[] = []
  for (const layer of layersOf(image).slice(1))
    for await (const { header } of layer.entries())
      owners.push(`${header.rawPath.toString()} ${header.uid}:${header.gid}`)
  t.same(owners, ['etc/ 0:42', 'etc/new 7:8', 'inserted 7:8'])

  if (missing('umoci') !== false) return
  t.equal(inside('umoci', 'unpack', '--image=images:a', ...maps, 'theirs').status, 0)
  inside('chmod', '711', 'theirs')
  const look = (tree: string): string =>
    inside('sh', '-c', `cd ${tree} && find . -exec stat -c "%n %u:%g %a" {} + | sort`).stdout
  t.match(look('theirs/rootfs'), './etc/owned 1000:1000 4755')
  t.equal(look('theirs/rootfs'), look('raw'))
})
