// Killed at system calls that change something, or refused them, koci leaves what the next run can go on from. This is a
// sample; `npm run soak` visits every point.
import { rmSync, statfsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { makeMemoryDir } from '../support/memory-dir.ts'
import { namespace, runInNamespaces } from '../support/namespaces.ts'
import { koci, type Outcome } from '../bin/run-koci.ts'
import { finish, missing } from '../support/peers.ts'
import { pointsOf, runWith, runWithFiles, type Point } from './inject.ts'
import { interrupt, meet } from './interrupt.ts'
import { operations, World, type Operation } from './world.ts'

const perOperation = 3
/** What the disk, and the kernel, may refuse; each at its first time. */
const refusals: readonly [call: string, operation: Operation][] = [
  ['syncfs', 'unpack'],
  ['mkdirat', 'unpack'],
  ['linkat', 'unpack'],
  ['fsmount', 'unpack'],
  ['move_mount', 'unpack'],
  ['fsync', 'repack'],
  ['umount2', 'refresh'],
  ['move_mount', 'refresh'],
]

/** Files of the bundle, the first of which is written first and the last last. */
const written: readonly [operation: Operation, files: readonly string[]][] = [
  [
    'extract',
    ['rootfs/usr/lib/a', 'rootfs/usr/share/d', 'rootfs/usr/lib/e', '.koci-koci.json'],
  ],
  ['unpack', ['.koci-config.json', '.koci-umoci.json', '.koci-koci.json']],
  ['refresh', ['.koci-umoci.json', '.koci-koci.json']],
]

/** Between too few for Node to begin, and enough. */
const descriptors = [24, 28, 34]
/** The first, one in the middle, the last that is written to a full disk. */
const room: readonly [operation: Operation, free: number][] = [
  ['unpack', 0],
  ['unpack', 40],
  ['unpack', 140],
  ['repack', 0],
  ['repack', 8],
  ['refresh', 16],
]

t.setTimeout(900_000)
const skip = missing('strace')
if (skip !== false) await t.test('faults', { skip }, async () => {})
else if (namespace === undefined) await runInNamespaces(t, import.meta.filename)
else {
  const directory = makeMemoryDir('koci-faults-')
  const world = await World.make(directory)
  t.teardown(async () => {
    await world.clear()
    rmSync(directory, { recursive: true })
  })
  // in the user's namespace the same code does the same but for names of attributes
  for (const operation of namespace === 'host' ? operations : (['unpack'] as const))
    await t.test(`killed during ${operation}`, async t => {
      await world.begin(operation)
      const points = await pointsOf(world.args(operation), path.join(directory, 'trace'))
      t.ok(points.length > perOperation, `${points.length} points`)
      for (const point of sample(points))
        t.same(await interrupt(world, operation, point), [], `${point.call} ${point.when}`)
    })
  if (namespace === 'host')
    for (const [call, operation] of refusals)
      await t.test(`${operation} is refused ${call}`, async t => {
        t.same(await interrupt(world, operation, { call, when: 1 }, 'EIO'), [])
      })
  for (const [operation, files] of namespace === 'host' ? written : [])
    await t.test(`${operation} can't write`, async t => {
      for (const file of files) {
        const run = async (args: readonly string[]): Promise<Outcome> => {
          const at = path.join(world.bundle, file)
          const outcome = await runWith('EIO', { call: 'write', when: 1, path: at }, args)
          t.equal(outcome.code, 1, file)
          return outcome
        }
        t.same(await meet(world, operation, /EIO.*ERR_KOCI_/, run), [])
      }
    })
  if (namespace === 'host')
    await t.test("repack can't write a blob", async t => {
      await world.begin('repack')
      const log = path.join(directory, 'trace')
      const all = await pointsOf(world.args('repack'), log, ['pwrite64'])
      t.ok(all.length > 0)
      // each thread of Node's pool has its own first, second and so on
      for (const point of all)
        t.same(await interrupt(world, 'repack', point, 'EIO'), [], `${point.when}`)
    })
  for (const operation of namespace === 'host' ? (['unpack', 'refresh'] as const) : [])
    await t.test(`${operation} with few descriptors`, async t => {
      for (const most of descriptors) {
        const run = (args: readonly string[]): Promise<Outcome> => runWithFiles(most, args)
        t.same(await meet(world, operation, /ERR_KOCI_|EMFILE/, run), [], `${most}`)
      }
    })
  for (const [operation, free] of namespace === 'host' ? room : [])
    await t.test(`${operation} with room for ${free} KiB`, async t => {
      finish('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'koci-test', directory])
      try {
        const small = await World.make(directory)
        const ballast = path.join(directory, 'ballast')
        const run = async (args: readonly string[]): Promise<Outcome> => {
          const { bavail, bsize } = statfsSync(directory)
          writeFileSync(ballast, Buffer.alloc(Math.max(bavail * bsize - free * 1024, 0)))
          const outcome = await koci(args)
          rmSync(ballast)
          return outcome
        }
        t.same(await meet(small, operation, /ENOSPC.*ERR_KOCI_/, run), [])
        await small.clear()
      } finally {
        finish('umount', [directory])
      }
    })
}

/** Some of all, as far apart as can be. */
function sample(points: readonly Point[]): Point[] {
  return Array.from(
    { length: perOperation },
    (_, at) => points[Math.floor(((at + 0.5) * points.length) / perOperation)] as Point,
  )
}
