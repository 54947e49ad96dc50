// btrfs(), killed at calls that change something, leaves what the next run can go on from: nothing half-made is believed, and
// nothing stays that nobody needs. A sample; KOCI_SOAK=1 visits every point.
import * as fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci, listDelta } from '../../lib/index.ts'
import { btrfs } from '../../middleware/btrfs/index.ts'
import { findLayerStore } from '../../middleware/btrfs/layer-store.ts'
import { mountpoint, onFileSystem } from '../support/btrfs.ts'
import { makeImage } from '../support/image.ts'
import { missing } from '../support/peers.ts'
import { threeLayers } from '../support/store.ts'
import { describeTree } from '../support/tree.ts'
import { mutating, pointsOf, runWith, type Point } from './inject.ts'

t.setTimeout(process.env['KOCI_SOAK'] === undefined ? 900_000 : 3_600_000)

const perKind = 2

type Operation = 'unpack' | 'refresh' | 'gc'

/** A layout, a store and a bundle; what must hold after each operation, however it was interrupted before. */
class World {
  readonly path: string
  readonly #golden: readonly string[]
  #runs = 0

  constructor(base: string, golden: readonly string[]) {
    this.path = base
    this.#golden = golden
  }

  get #bundle(): string {
    return path.join(this.path, `bundle-${this.#runs}`)
  }

  get #store(): string {
    return path.join(this.path, `store-${this.#runs}`)
  }

  args(operation: Operation): string[] {
    const images = `${this.path}/images`
    if (operation === 'unpack')
      return [
        'unpack',
        '--use',
        `btrfs:dir=${this.#store}`,
        '--image',
        `${images}:a`,
        this.#bundle,
      ]
    if (operation === 'refresh')
      return ['repack', '--refresh-bundle', '--image', `${images}:new`, this.#bundle]
    return ['cache', 'gc', '--dir', this.#store, '--keep-bytes', '0', '--drop-missing']
  }

  async begin(operation: Operation): Promise<void> {
    this.#runs += 1
    if (operation === 'unpack') return
    await this.#again('unpack')
    if (operation === 'gc') fs.rmSync(this.#bundle, { recursive: true })
    else this.#change()
  }

  /** What doesn't hold once the operation was run again. */
  async problems(operation: Operation): Promise<string[]> {
    const problems: string[] = []
    const check = (holds: boolean, what: string): void => {
      if (!holds) problems.push(what)
    }
    await this.#again(operation)
    const rootfs = path.join(this.#bundle, 'rootfs')
    if (operation === 'unpack')
      check(String(describeTree(rootfs)) === String(this.#golden), 'the rootfs is another one')
    if (operation === 'refresh') {
      const again = path.join(this.path, 'again')
      await new Koci().unpack({ image: `${this.path}/images:new`, bundle: again })
      const packed = describeTree(path.join(again, 'rootfs'))
      fs.rmSync(again, { recursive: true })
      check(String(packed) === String(describeTree(rootfs)), 'the image is another one')
    }
    if (operation !== 'gc') {
      const changes = await listDelta(this.#app(), { bundle: this.#bundle })
      check(changes.length === 0, `${changes.length} changes afterwards`)
      const names = fs.readdirSync(this.#bundle)
      check(!names.some(name => name.startsWith('.koci-')), `left: ${names.join(', ')}`)
    }
    const store = await findLayerStore(this.#store, new AbortController().signal)
    if (!store) return ['no store']
    for await (const { name, state } of store.verify())
      check(state === 'good', `${name}: ${state}`)
    store.close()
    const count = (part: string): number =>
      fs.readdirSync(path.join(this.#store, 'btrfs-v1', part)).length
    const [snapshots, named] = [count('snapshots'), count('chains') + count('bases')]
    check(snapshots === named, `${snapshots} snapshots, ${named} of them named`)
    check(operation !== 'gc' || named === 0, `${named} left`)
    return problems
  }

  async #again(operation: Operation): Promise<void> {
    const images = `${this.path}/images`
    const bundle = this.#bundle
    if (operation === 'unpack') {
      // killed at its very end it is done
      if (fs.existsSync(path.join(bundle, 'config.json'))) {
        const state = fs.readFileSync(path.join(bundle, 'koci.json'), 'utf8')
        if (JSON.parse(state).state !== 'unpacking') return
      }
      await this.#app().unpack({ image: `${images}:a`, bundle })
    } else if (operation === 'refresh')
      await this.#app().repack({ image: `${images}:new`, bundle, refresh: true })
    else {
      const store = await findLayerStore(this.#store, new AbortController().signal)
      await store?.collect({ keepBytes: 0, dropMissing: true })
      store?.close()
    }
  }

  #app(): Koci {
    return new Koci().use(btrfs({ dir: this.#store }))
  }

  #change(): void {
    const rootfs = path.join(this.#bundle, 'rootfs')
    fs.appendFileSync(path.join(rootfs, 'a'), 'more')
    fs.rmSync(path.join(rootfs, 'b'))
    fs.renameSync(path.join(rootfs, 'd'), path.join(rootfs, 'e'))
  }
}

async function onBtrfs(base: string): Promise<void> {
  const image = await makeImage(path.join(base, 'images'), 'a', { layers: threeLayers })
  const golden = path.join(base, 'golden')
  const { rootfs } = await new Koci().unpack({ image, bundle: golden })
  const world = new World(base, describeTree(rootfs))
  for (const operation of ['unpack', 'refresh', 'gc'] as const)
    await t.test(`killed during ${operation}`, async t => {
      await world.begin(operation)
      const log = path.join(base, 'trace')
      const points = await pointsOf(world.args(operation), log, [...mutating, 'ioctl'])
      const isSnapshot = ({ call }: Point): boolean => call === 'ioctl'
      const chosen = [
        ...sample(points.filter(isSnapshot)),
        ...sample(points.filter(point => !isSnapshot(point))),
      ]
      for (const point of chosen) {
        await world.begin(operation)
        await runWith('KILL', point, world.args(operation))
        t.same(await world.problems(operation), [], `${point.call} ${point.when}`)
      }
    })
  await t.test('refresh lacks room for a snapshot', async t => {
    await world.begin('refresh')
    const log = path.join(base, 'trace')
    const points = await pointsOf(world.args('refresh'), log, ['ioctl'], /SNAP_CREATE/)
    // to see what changed, and of the new base
    t.ok(points.length >= 2, `${points.length} snapshots`)
    for (const point of points) {
      await world.begin('refresh')
      const { code, stderr } = await runWith('ENOSPC', point, world.args('refresh'))
      t.equal(code, 1)
      t.match(stderr, /ENOSPC[^\n]*\[ERR_KOCI_/, `ioctl ${point.when}`)
      t.same(await world.problems('refresh'), [], `ioctl ${point.when}`)
    }
  })
}

/** Some of all, as far apart as can be. */
function sample(points: readonly Point[]): readonly Point[] {
  if (process.env['KOCI_SOAK'] !== undefined) return points
  return Array.from(
    { length: perKind },
    (_, at) => points[Math.floor(((at + 0.5) * points.length) / perKind)] as Point,
  )
}

const skip = missing('strace')
if (mountpoint !== undefined) await onBtrfs(mountpoint)
else if (skip !== false) await t.test('on btrfs', { skip }, async () => {})
else await onFileSystem(t, import.meta.filename)
