// A btrfs that is full: each step fails with an error that says so, nothing that isn't whole is believed, and the same command
// succeeds once there is room.
import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci, listDelta } from '../../../lib/index.ts'
import { btrfs } from '../../../middleware/btrfs/index.ts'
import { findLayerStore } from '../../../middleware/btrfs/layer-store.ts'
import { mountpoint, onFileSystem } from '../../support/btrfs.ts'
import { makeImage } from '../../support/image.ts'
import { describeTree } from '../../support/tree.ts'

const mib = 1 << 20
const noSpace = { code: 'ERR_KOCI_IO', cause: { code: 'ENOSPC' } }

async function onBtrfs(base: string): Promise<void> {
  const outside = t.testdir()
  const small = { name: 'small', body: 'small' }
  const image = await makeImage(path.join(outside, 'images'), 'a', {
    layers: [[small], [{ name: 'big', body: randomBytes(40 * mib) }]],
  })
  const dir = path.join(base, 'store')
  const bundle = path.join(base, 'bundle')
  const rootfs = path.join(bundle, 'rootfs')
  const app = (): Koci => new Koci().use(btrfs({ dir }))
  const filler = path.join(base, 'filler')

  /** Leaves about so many MiB. */
  const fill = (left: number): void => {
    const fd = fs.openSync(filler, 'w')
    const block = randomBytes(mib)
    try {
      for (;;) {
        const { bavail, bsize } = fs.statfsSync(base)
        if (bavail * bsize < left * mib) break
        fs.writeSync(fd, block)
        fs.fsyncSync(fd)
      }
    } catch (error) {
      t.equal((error as NodeJS.ErrnoException).code, 'ENOSPC')
    } finally {
      fs.closeSync(fd)
    }
  }
  const makeRoom = (): void => fs.rmSync(filler)
  const assertSound = async (): Promise<void> => {
    const store = await findLayerStore(dir, new AbortController().signal)
    for await (const { state } of store?.verify() ?? []) t.equal(state, 'good')
    store?.close()
    const count = (part: string): number =>
      fs.readdirSync(path.join(dir, 'btrfs-v1', part)).length
    t.equal(count('snapshots'), count('chains') + count('bases'), 'nothing is left half-made')
    const names = fs.readdirSync(path.join(dir, 'btrfs-v1/chains'))
    t.ok(names.every(name => name.endsWith('.json')))
  }

  await t.test('unpack', async t => {
    fill(20)
    await t.rejects(app().unpack({ image, bundle }), noSpace)
    t.notOk(fs.existsSync(bundle), 'what was made is gone')
    await assertSound()
    makeRoom()
    const { layers } = await app().unpack({ image, bundle })
    t.ok(layers.every(({ placed }) => placed?.verified))
    await assertSound()
    t.equal((await listDelta(app(), { bundle })).length, 0)
  })

  await t.test('repack with a refresh', async t => {
    fs.writeFileSync(path.join(rootfs, 'new'), randomBytes(16 * mib))
    const tree = describeTree(rootfs)
    const before = fs.readFileSync(path.join(bundle, 'koci.json'), 'utf8')
    fill(8)
    const target = `${path.join(outside, 'images')}:new`
    const failure = await app()
      .repack({ image: target, bundle, refresh: true })
      .catch((error: unknown) => error)
    t.match(failure, { code: /^ERR_KOCI_(IO|NOT_REFRESHED)$/ })
    t.match(causes(failure), /ENOSPC/)
    t.equal(fs.readFileSync(path.join(bundle, 'koci.json'), 'utf8'), before, 'on its old base')
    t.strictSame(describeTree(rootfs), tree)
    makeRoom()
    await assertSound()
    t.equal((await listDelta(app(), { bundle })).length, 2)
    await app().repack({ image: target, bundle, refresh: true })
    t.equal((await listDelta(app(), { bundle })).length, 0)
    t.strictSame(describeTree(rootfs), tree)
    await assertSound()
    const again = path.join(base, 'again')
    const { layers } = await app().unpack({ image: target, bundle: again })
    t.ok(layers.every(({ extracted }) => !extracted))
    t.strictSame(describeTree(path.join(again, 'rootfs')), tree)
  })
}

/** The codes of an error and of what caused it. */
function causes(error: unknown): string {
  const codes: string[] = []
  for (let at = error; at instanceof Error; at = at.cause)
    codes.push(String((at as NodeJS.ErrnoException).code))
  return codes.join(' ')
}

if (mountpoint !== undefined) await onBtrfs(mountpoint)
else await onFileSystem(t, import.meta.filename, { bytes: 200 * mib })
