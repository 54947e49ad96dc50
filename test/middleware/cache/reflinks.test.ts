// Merging stored layers where files can share their blocks: they do, on btrfs and on XFS, and reading them to pack changes that
// no more than unpacking again does. What is written to in a bundle is no longer shared, and the store stays what it was.
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../../lib/index.ts'
import { cache } from '../../../middleware/cache/index.ts'
import { mtree } from '../../../middleware/mtree/index.ts'
import { Store } from '../../../middleware/cache/store.ts'
import { verify } from '../../../middleware/cache/verify.ts'
import { mountpoint, onFileSystem } from '../../support/btrfs.ts'
import { makeImage } from '../../support/image.ts'
import { missing } from '../../support/peers.ts'

const mib = 1 << 20
const size = 16 * mib

/** Whether all extents of a file are shared: its flags as FIEMAP has them. */
function isShared(file: string): boolean {
  const { stdout, status } = spawnSync('filefrag', ['-sv', file], { encoding: 'utf8' })
  t.equal(status, 0)
  const extents = stdout.split('\n').filter(line => /^ +\d+: /.test(line))
  t.ok(extents.length > 0, stdout)
  return extents.every(line => /shared/.test(line))
}

async function onReflinks(base: string): Promise<void> {
  const dir = path.join(base, 'store')
  const images = path.join(base, 'images')
  const image = await makeImage(images, 'a', {
    layers: [
      [{ name: 'd/big', body: randomBytes(size) }],
      [{ name: 'other', body: randomBytes(size) }],
    ],
  })
  const app = (): Koci => new Koci().use(cache({ dir })).use(mtree())
  const used = (): number => {
    spawnSync('sync', ['-f', base])
    const { blocks, bfree, bsize } = fs.statfsSync(base)
    return (blocks - bfree) * bsize
  }
  const bundle = path.join(base, 'bundle')
  const big = path.join(bundle, 'rootfs/d/big')
  const empty = used()

  await t.test('what is extracted for the store is shared at once', async t => {
    await app().unpack({ image, bundle })
    t.ok(isShared(big))
    const cost = used() - empty
    t.ok(cost < 3 * size, `${cost} bytes for two copies of ${2 * size}`)
  })

  await t.test('another bundle takes no room', async t => {
    const before = used()
    const { layers, rootfs } = await app().unpack({ image, bundle: path.join(base, 'second') })
    t.ok(layers.every(({ placed }) => placed?.by === 'cache'))
    t.ok(['d/big', 'other'].every(name => isShared(path.join(rootfs, name))))
    const cost = used() - before
    t.ok(cost < size / 4, `${cost} bytes`)
  })

  await t.test('packing and refreshing leaves shared what is shared', async t => {
    const other = path.join(bundle, 'rootfs/other')
    fs.writeFileSync(path.join(bundle, 'rootfs/new'), 'new')
    const fd = fs.openSync(other, 'r+')
    fs.writeSync(fd, 'changed', 0)
    fs.closeSync(fd)
    const before = used()
    const { changes } = await app().repack({ image: `${images}:b`, bundle, refresh: true })
    t.strictSame(
      changes.map(({ kind, path }) => `${kind} ${path}`),
      ['M ', 'A new', 'M other'],
    )
    t.ok(isShared(big), 'read to be compared, or not at all')
    t.notOk(isShared(other), 'its first block is its own')
    // the blob, and the layer as the store keeps it
    const cost = used() - before
    t.ok(cost < 3 * size, `${cost} bytes`)
    const store = Store.find(dir)
    for await (const { state } of store ? verify(store) : []) t.equal(state, 'good')
    t.ok(isShared(big), 'verifying reads, and nothing else')
    fs.appendFileSync(big, 'x')
    await app().repack({ image: `${images}:c`, bundle })
    t.ok(isShared(path.join(base, 'second/rootfs/d/big')))
    for await (const { state } of store ? verify(store) : []) t.equal(state, 'good')
  })
}

const skip = missing('filefrag')
if (mountpoint !== undefined) await onReflinks(mountpoint)
else if (skip !== false) await t.test('reflinks', { skip }, async () => {})
else
  for (const type of ['btrfs', 'xfs'] as const)
    await onFileSystem(t, import.meta.filename, { type, bytes: 600 * mib })
