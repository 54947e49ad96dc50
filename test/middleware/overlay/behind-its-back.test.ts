// What somebody does to a bundle while koci doesn't look: it is mounted elsewhere, worked in while it isn't mounted, its layers
// get lost, something is mounted over it. Nothing of that may end in a wrong image, or in work that is lost without a word.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { isMountPoint, mountAt } from '../../../lib/fs/mount-table.ts'
import { cstring } from '../../../lib/fs/libc.ts'
import { setXattr } from '../../../lib/fs/xattr.ts'
import {
  Koci,
  listDelta,
  mountBundle,
  unmountBundle,
  type Warning,
} from '../../../lib/index.ts'
import { cache } from '../../../middleware/cache/index.ts'
import { mtree } from '../../../middleware/mtree/index.ts'
import { overlay } from '../../../middleware/overlay/index.ts'
import { makeImage } from '../../support/image.ts'
import { memoryParent } from '../../support/memory-dir.ts'
import { namespace, runInNamespaces } from '../../support/namespaces.ts'
import { entriesOf, finish, temporary } from '../../support/peers.ts'
import { describeTree } from '../../support/tree.ts'

t.setTimeout(900_000)
const rootless = namespace === 'user'

async function setUp(t: Test) {
  const base = temporary(t, 'behind', memoryParent())
  const images = path.join(base, 'images')
  const image = await makeImage(images, 'test', {
    layers: [
      [
        { name: 'd/', type: 'directory', mode: 0o755, mtime: 1 },
        { name: 'd/x', body: 'x', mtime: 1 },
      ],
      [{ name: 'e', body: 'e', mtime: 1 }],
    ],
  })
  const store = path.join(base, 'store')
  const app = (): Koci =>
    new Koci()
      .use(cache({ dir: store, durable: false }))
      .use(overlay())
      .use(mtree())
  const bundle = path.join(base, 'bundle')
  const { rootfs } = await app().unpack({ image, bundle, rootless })
  t.teardown(() => finish('umount', ['-l', rootfs]))
  return { base, images, image, store, app, bundle, rootfs }
}

/** A shell in a mount namespace of its own that is ready when it says so, and lives until it is told otherwise. */
async function elsewhere(t: Test, script: string): Promise<ChildProcess> {
  const child = spawn('unshare', ['-m', '--propagation', 'private', 'sh', '-c', script], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  return child
}

async function end(child: ChildProcess): Promise<void> {
  child.stdin?.end()
  await once(child, 'exit')
}

const busy = { code: 'ERR_KOCI_MOUNT_BUSY' }

async function inNamespace(): Promise<void> {
  await t.test('a bundle that is mounted in another namespace only', async t => {
    const { images, app, bundle, rootfs } = await setUp(t)
    fs.writeFileSync(path.join(rootfs, 'new'), 'new')
    const other = await elsewhere(t, 'echo ready; read line')
    finish('umount', [rootfs])
    const users = { ...busy, message: new RegExp(`in use by process \\d+ in mount namespace`) }
    await t.rejects(mountBundle(app(), { bundle }), users)
    await t.rejects(app().repack({ image: `${images}:new`, bundle, refresh: true }), users)
    await t.rejects(app().repack({ image: `${images}:new`, bundle }), users)
    t.ok(fs.existsSync(path.join(bundle, 'overlay/upper-1/new')), 'the upper directory stays')
    await end(other)
    await app().repack({ image: `${images}:new`, bundle, refresh: true })
    await mountBundle(app(), { bundle })
    t.strictSame([...(await listDelta(app(), { bundle }))], [])
  })

  await t.test('a mount that was taken away while it was used', async t => {
    const { app, bundle, rootfs } = await setUp(t)
    const user = spawn('sleep', ['60'], { cwd: rootfs })
    await once(user, 'spawn')
    finish('umount', ['-l', rootfs])
    try {
      await t.rejects(mountBundle(app(), { bundle }), {
        ...busy,
        message: /in use by a mount that cannot be seen from here/,
      })
    } finally {
      user.kill()
      await once(user, 'exit')
    }
    await mountBundle(app(), { bundle })
    t.ok(isMountPoint(rootfs))
  })

  await t.test('what was written while nothing was mounted is not hidden', async t => {
    const { images, app, bundle, rootfs } = await setUp(t)
    await unmountBundle(app(), { bundle })
    fs.mkdirSync(path.join(rootfs, 'srv/www'), { recursive: true })
    fs.writeFileSync(path.join(rootfs, 'srv/www/page'), 'page')
    const found = {
      code: 'ERR_KOCI_INVALID_BUNDLE',
      message: /srv\/www\/page was written to it while/,
    }
    await t.rejects(mountBundle(app(), { bundle }), found)
    await t.rejects(listDelta(app(), { bundle }), found)
    await t.rejects(app().repack({ image: `${images}:new`, bundle }), found)
    t.ok(fs.existsSync(path.join(rootfs, 'srv/www/page')))
    fs.rmSync(path.join(rootfs, 'srv/www/page'))
    fs.mkdirSync(path.join(rootfs, 'etc'))
    fs.writeFileSync(path.join(rootfs, 'etc/resolv.conf'), '')
    await mountBundle(app(), { bundle })
    t.strictSame(fs.readdirSync(rootfs).sort(), ['d', 'e'], 'what a runtime left hides nothing')
  })

  await t.test('what was hidden before a refresh is found in time', async t => {
    const { base, images, app, bundle, rootfs } = await setUp(t)
    fs.writeFileSync(path.join(rootfs, 'new'), 'new')
    const tree = describeTree(rootfs)
    const beneath = path.join(base, 'beneath')
    fs.mkdirSync(beneath)
    finish('mount', ['--bind', bundle, beneath])
    t.teardown(() => finish('umount', ['-l', beneath]))
    fs.writeFileSync(path.join(beneath, 'rootfs/hidden'), 'x')
    finish('umount', [beneath])
    const image = `${images}:new`
    await t.rejects(app().repack({ image, bundle, refresh: true }), {
      code: 'ERR_KOCI_NOT_REFRESHED',
      message: /hidden was written to it/,
    })
    t.strictSame(describeTree(rootfs), tree, 'mounted as before')
  })

  await t.test('layers that are gone beneath a mount', async t => {
    const { app, store, bundle, rootfs } = await setUp(t)
    fs.writeFileSync(path.join(rootfs, 'new'), 'new')
    const tree = describeTree(rootfs)
    fs.rmSync(store, { recursive: true })
    await mountBundle(app(), { bundle })
    t.strictSame(describeTree(rootfs), tree, 'extracted and mounted again')
    const id = mountAt(rootfs)?.id
    await mountBundle(app(), { bundle })
    t.equal(mountAt(rootfs)?.id, id, 'what is as it should be stays')
  })

  await t.test('a store that was moved beneath a mount', async t => {
    const { base, store, bundle, rootfs } = await setUp(t)
    const id = mountAt(rootfs)?.id
    const moved = path.join(base, 'moved')
    fs.renameSync(store, moved)
    const there = new Koci().use(cache({ dir: moved, durable: false })).use(overlay())
    await mountBundle(there, { bundle })
    t.equal(mountAt(rootfs)?.id, id, 'nothing of it is gone')
  })

  await t.test('layers that are gone are not taken for deleted by the next lister', async t => {
    const { base, images, app, store, bundle, rootfs } = await setUp(t)
    await unmountBundle(app(), { bundle })
    const moved = path.join(bundle, 'overlay/upper-1/moved')
    fs.mkdirSync(moved)
    const name = `${rootless ? 'user' : 'trusted'}.overlay.redirect`
    setXattr(cstring(moved), Buffer.from(name), Buffer.from('d'))
    await mountBundle(app(), { bundle })
    fs.rmSync(store, { recursive: true })
    await t.rejects(app().repack({ image: `${images}:new`, bundle, fallback: true }), {
      code: 'ERR_KOCI_ROOTFS_UNREADABLE',
      message: /layers that are mounted there were removed - unmount the bundle, and mount/,
    })
    t.ok(isMountPoint(rootfs))
    t.notOk(fs.readdirSync(base).includes('new'))
  })

  await t.test('something that is mounted where the bundle is not', async t => {
    const { base, app, bundle, rootfs } = await setUp(t)
    await unmountBundle(app(), { bundle })
    const host = path.join(base, 'host')
    fs.mkdirSync(host)
    fs.writeFileSync(path.join(host, 'data'), 'of the host')
    fs.mkdirSync(path.join(rootfs, 'srv'))
    finish('mount', ['--bind', host, path.join(rootfs, 'srv')])
    const found = {
      code: 'ERR_KOCI_INVALID_BUNDLE',
      message: /something is mounted at srv, and the bundle isn't - unmount that/,
    }
    try {
      await t.rejects(mountBundle(app(), { bundle }), found)
      await t.rejects(listDelta(app(), { bundle }), found)
    } finally {
      finish('umount', [path.join(rootfs, 'srv')])
    }
    await mountBundle(app(), { bundle })
  })

  await t.test('something that is mounted over what nobody can list', async t => {
    const { base, image } = await setUp(t)
    const bundle = path.join(base, 'plain')
    const app = new Koci().use(mtree())
    const warnings: Warning[] = []
    app.on('warning', ({ data }) => {
      warnings.push(data)
    })
    const { rootfs } = await app.unpack({ image, bundle, rootless })
    const file = path.join(rootfs, 'd/x')
    fs.writeFileSync(file, 'mine')
    finish('mount', ['--bind', path.join(rootfs, 'e'), file])
    t.strictSame([...(await listDelta(app, { bundle }))], [])
    finish('umount', [file])
    t.match(warnings, [{ code: 'MOUNTED_INSIDE', message: /at d\/x: what changed beneath/ }])
    t.strictSame(
      [...(await listDelta(app, { bundle }))].map(({ path }) => path),
      ['d/x'],
    )
    t.equal(warnings.length, 1)
  })

  await t.test('something that is mounted over what changed', async t => {
    const { base, images, app, bundle, rootfs } = await setUp(t)
    fs.writeFileSync(path.join(rootfs, 'd/x'), 'mine')
    fs.writeFileSync(path.join(base, 'host'), 'of the host')
    finish('mount', ['--bind', path.join(base, 'host'), path.join(rootfs, 'd/x')])
    const image = `${images}:new`
    await t.rejects(app().repack({ image, bundle }), {
      code: 'ERR_KOCI_INVALID_BUNDLE',
      message: /something is mounted at d\/x, .*unmount it, or mask it/,
    })
    await app().repack({ image: `${images}:masked`, bundle, maskPaths: ['/d'] })
    finish('umount', [path.join(rootfs, 'd/x')])
    finish('mount', ['--bind', path.join(base, 'host'), path.join(rootfs, 'e')])
    await app().repack({ image, bundle })
    finish('umount', [path.join(rootfs, 'e')])
    const other = path.join(base, 'other')
    const plain = await new Koci().unpack({ image, bundle: other, rootless })
    t.equal(fs.readFileSync(path.join(plain.rootfs, 'd/x'), 'utf8'), 'mine')
    t.equal(fs.readFileSync(path.join(plain.rootfs, 'e'), 'utf8'), 'e')
  })

  await t.test('a file whose content only metacopy finds is not taken for deleted', async t => {
    const { base, images, app, store, bundle, rootfs } = await setUp(t)
    await unmountBundle(app(), { bundle })
    const layers = path.join(store, 'v1/layers')
    const lowers = fs
      .readdirSync(layers, { withFileTypes: true })
      .filter(each => each.isDirectory())
      .map(({ name }) => path.join(layers, name, 'tree'))
    const upper = path.join(bundle, 'overlay/upper-1')
    const options = `metacopy=on,index=off,lowerdir=${lowers.join(':')},upperdir=${upper},workdir=${bundle}/overlay/work-1`
    const mounted = finish('mount', ['-t', 'overlay', 'other', '-o', options, rootfs])
    if (mounted.status !== 0) return t.match(mounted.stderr, /./, 'a user namespace may not')
    fs.chmodSync(path.join(rootfs, 'd/x'), 0o600)
    finish('umount', [rootfs])
    await mountBundle(app(), { bundle })
    const image = `${images}:new`
    await t.rejects(app().repack({ image, bundle, fallback: true }), {
      code: 'ERR_KOCI_ROOTFS_UNREADABLE',
      message: /d\/x.*metacopy was on/,
    })
    t.notOk(fs.readdirSync(base).includes('new'))
    return undefined
  })

  await t.test('names of one file stay links', async t => {
    const { images, app, bundle, rootfs } = await setUp(t)
    fs.linkSync(path.join(rootfs, 'd/x'), path.join(rootfs, 'd/y'))
    fs.linkSync(path.join(rootfs, 'd/x'), path.join(rootfs, 'z'))
    await app().repack({ image: `${images}:new`, bundle, refresh: true })
    const entries = await entriesOf(images, 'new', 2)
    t.strictSame(
      entries.filter(entry => !entry.startsWith('directory')),
      ['file d/x', 'hardlink d/y', 'hardlink z'],
    )
    t.strictSame([...(await listDelta(app(), { bundle }))], [])
  })
}

if (namespace === undefined) await runInNamespaces(t, import.meta.filename)
else await inNamespace()
