// Merged layers through one thread and through two or three: the same trees, the same errors, whatever the layers hold.
import * as fc from 'fast-check'
import { lstatSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { KociError } from '../../../lib/errors.ts'
import { Control } from '../../../lib/layer/control.ts'
import { extractBlob, type ExtractJob } from '../../../lib/layer/extract.ts'
import type { HashJob } from '../../../lib/layer/hash-ahead.ts'
import type { AheadJob } from '../../../lib/layer/inflate-ahead.ts'
import { Layer } from '../../../lib/layer/layer.ts'
import type { Limits } from '../../../lib/layer/limits.ts'
import { outputSize } from '../../../lib/layer/native.ts'
import { WorkerPool } from '../../../lib/layer/pool.ts'
import { FileHashes } from '../../../lib/layer/file-hashes.ts'
import { ReadAhead, readAheadBounds } from '../../../lib/layer/read-ahead.ts'
import type { Follower } from '../../../lib/layer/ring-memory.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import type { Compression } from '../../../lib/oci/media-type.ts'
import { openFiles } from '../../support/descriptors.ts'
import { makeMemoryDir } from '../../support/memory-dir.ts'
import { tarBytes, type TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'
import '../../support/seed.ts'

const rootless = process.getuid?.() !== 0
const skip = new WorkerPool().maxWorkers < 2 && 'needs two processors'
const faults = ['digest', 'diffID', 'missing', 'cut', 'flipped', 'archive', 'escape'] as const

interface Spec {
  readonly members: readonly TarMember[]
  readonly compression: Compression
  readonly faults: ReadonlyArray<(typeof faults)[number]>
}

const path = fc.constantFrom('a', 'b', 'a/x', 'a/y', 'b/x', 'a/d/e', 'c/d', './b/y')
const member: fc.Arbitrary<TarMember> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      name: path,
      mode: fc.constantFrom(0o644, 0o600, 0o755, 0o444),
      mtime: fc.constantFrom('1.5', 1_700_000_000),
      body: fc
        .tuple(fc.constantFrom(0, 1, 511, 512, 3000, 300_000, 1_100_000), fc.nat(255))
        .map(([size, seed]) =>
          Buffer.from(Uint8Array.from({ length: size }, (_, at) => (at * seed) >> 3)),
        ),
    }),
  },
  fc.record({ name: path, type: fc.constant('directory' as const), mtime: fc.nat(9) }),
  fc.record({ name: path, type: fc.constant('symlink' as const), linkname: path }),
  fc.record({ name: path, type: fc.constant('hardlink' as const), linkname: path }),
  fc.record({ name: fc.constantFrom('.wh.a', 'a/.wh.x', 'b/.wh..wh..opq') }),
)
const spec: fc.Arbitrary<Spec> = fc.record({
  members: fc.array(member, { maxLength: 8 }),
  compression: fc.constantFrom<Compression>('none', 'gzip', 'zstd'),
  faults: fc.oneof(
    { weight: 8, arbitrary: fc.constant([]) },
    { weight: 3, arbitrary: fc.subarray([...faults], { minLength: 1, maxLength: 2 }) },
  ),
})
const limits: fc.Arbitrary<Limits> = fc.oneof(
  { weight: 3, arbitrary: fc.constant({}) },
  fc.constantFrom({ maxBytes: 400_000 }, { maxEntries: 4 }, { maxDepth: 1 }),
)

/** Makes the blob and says what the image says about it. */
function makeLayer(dir: string, index: number, spec: Spec): Layer {
  const { compression } = spec
  const has = (fault: (typeof faults)[number]): boolean => spec.faults.includes(fault)
  const extra: TarMember[] = [
    ...(has('escape') ? [{ name: '../x' }] : []),
    ...(has('archive') ? [{ name: 'z', checksum: '1' }] : []),
  ]
  const tar = tarBytes([...spec.members, ...extra, { name: `last${index}`, body: 'x' }])
  let blob =
    compression === 'gzip'
      ? gzipSync(tar, { level: 1 })
      : compression === 'zstd'
        ? zstdCompressSync(tar)
        : Buffer.from(tar)
  if (has('cut')) blob = blob.subarray(0, Math.ceil(blob.length * 0.7))
  if (has('flipped')) {
    const at = Math.floor(blob.length * 0.6)
    blob[at] = (blob[at] as number) ^ 0x55
  }
  const other = digestOf(Buffer.from('other'))
  const digest = has('digest') ? other : digestOf(blob)
  const diffID = has('diffID') ? other : digestOf(tar)
  const path = join(dir, `blob${index}`)
  if (!has('missing')) writeFileSync(path, blob)
  const size = blob.length
  const mediaType = 'application/vnd.oci.image.layer.v1.tar'
  return new Layer(
    index,
    { descriptor: { mediaType, digest, size }, diffID, chainID: diffID, compression },
    () => Promise.resolve({ path, offset: 0, size }),
  )
}

async function jobOf(layer: Layer, target: string, limits: Limits): Promise<ExtractJob> {
  const { digest, compression, diffID } = layer
  const blob = { ...(await layer.locateBlob()), digest, compression }
  const first = layer.index === 0
  return { blob, diffID, target, rootless, first, hashFiles: true, limits }
}

/** Extracts until the first error; says what came of it. */
async function outcome(
  target: string,
  layers: readonly Layer[],
  extract: (layer: Layer) => Promise<unknown>,
): Promise<unknown[]> {
  mkdirSync(target)
  const results: unknown[] = []
  // those of what wasn't finished are as they happen to be
  let times = true
  for (const layer of layers) {
    try {
      results.push(await extract(layer))
    } catch (error) {
      if (!(error instanceof KociError)) throw error
      const { code, message } = error
      results.push({ code, message })
      times = false
      break
    }
  }
  return [...results, ...describeTree(target, { root: false, times })]
}

/** What is known of the files of a tree, by their paths: as for all users of sums, only if size and mtime are the same. */
function sumsOf(target: string, hashes: FileHashes): string[] {
  return readdirSync(target, { recursive: true, encoding: 'utf8' })
    .sort()
    .flatMap(name => {
      const stat = lstatSync(join(target, name), { bigint: true })
      if (!stat.isFile()) return []
      const known = hashes.get(stat.ino)
      // an inode of ext4 that was an empty file's may have been another's before
      const isOf = known?.size === Number(stat.size) && known.mtime === stat.mtimeNs
      return [`${name} ${isOf ? known.sha256.toString('hex') : 'unknown'}`]
    })
}

const nothing = null as unknown as []
await t.test('any image, sound or not, comes out as through one thread', { skip }, async t => {
  const before = { ...readAheadBounds }
  readAheadBounds.least = 0
  t.teardown(() => Object.assign(readAheadBounds, before))
  await using pool = new WorkerPool()
  const signal = new AbortController().signal
  const codes = new Set<string>()
  let summed = 0
  await fc.assert(
    fc.asyncProperty(
      fc.array(spec, { minLength: 1, maxLength: 5 }),
      limits,
      fc.constantFrom(2, 4, 64),
      fc.constantFrom<Follower>('nobody', 'looks', 'sums'),
      async (specs, limits, slots, follower) => {
        const hashing = follower === 'nobody' ? Infinity : 0
        Object.assign(readAheadBounds, { budget: slots * outputSize, hashing })
        const dir = makeMemoryDir('koci-ahead-')
        try {
          const layers = specs.map((spec, index) => makeLayer(dir, index, spec))
          const own = new FileHashes()
          const given = new FileHashes()
          const one = await outcome(join(dir, 'one'), layers, async layer => {
            const job = await jobOf(layer, join(dir, 'one'), limits)
            const { hashes, ...rest } = extractBlob(job, new Control())
            if (hashes) own.merge(hashes)
            return rest
          })
          const ahead = await ReadAhead.start(pool, layers, limits, {
            signal,
            sumsFiles: follower === 'sums',
          })
          const two = await outcome(join(dir, 'two'), layers, async layer => {
            const taken = ahead?.take(layer, limits)
            const job = await jobOf(layer, join(dir, 'two'), limits)
            const inflated = taken?.inflated
            const { hashes, ...rest } = await pool.extract(job, { inflated })
            if (hashes) given.merge(hashes)
            return rest
          })
          await ahead?.stop()
          t.strictSame(two, one)
          t.equal(given.length, own.length)
          const sums = sumsOf(join(dir, 'one'), own)
          t.strictSame(sumsOf(join(dir, 'two'), given), sums)
          summed += sums.filter(line => !line.endsWith('unknown')).length
          for (const result of one)
            if (typeof result === 'object') codes.add((result as { code: string }).code)
          const left = openFiles().filter(file => file.startsWith(dir))
          t.strictSame(left, [], 'no descriptors are left')
        } finally {
          rmSync(dir, { recursive: true })
        }
      },
    ),
    { numRuns: 150, interruptAfterTimeLimit: 40_000 },
  )
  t.ok(codes.size > 3, `errors were among them: ${[...codes].join(' ')}`)
  t.ok(summed > 0, `${summed} files with sums were among them`)
})

for (const hashing of [0, Infinity])
  await t.test(
    `reading ahead can be left, layer by layer: hashed apart from ${hashing} bytes on`,
    { skip },
    async t => {
      const before = { ...readAheadBounds }
      Object.assign(readAheadBounds, { least: 0, hashing, budget: 2 * outputSize })
      t.teardown(() => Object.assign(readAheadBounds, before))
      const dir = makeMemoryDir('koci-ahead-')
      t.teardown(() => rmSync(dir, { recursive: true }))
      await using pool = new WorkerPool()
      const large = { name: 'large', body: Buffer.alloc(5 * outputSize, 7) }
      const layers = Array.from({ length: 6 }, (_, index) =>
        makeLayer(dir, index, { members: [large], compression: 'gzip', faults: [] }),
      )
      const bounds = { maxBytes: 10 * large.body.length, maxRatio: 2000 }
      const { signal } = new AbortController()
      const ahead = (await ReadAhead.start(pool, layers, bounds, {
        signal,
        sumsFiles: true,
      })) as ReadAhead
      const [, one, two, three, four, five] = layers as [
        Layer,
        Layer,
        Layer,
        Layer,
        Layer,
        Layer,
      ]
      ahead.drop(one)
      t.equal(ahead.take(one, bounds), undefined, 'dropped')
      t.equal(ahead.take(two, { ...bounds, maxRatio: 1 }), undefined, 'other limits')
      t.equal(ahead.take(three, {}), undefined, 'no limits')
      const taken = ahead.take(four, { ...bounds, maxEntries: 5 })
      t.ok(taken, 'entries are not counted while inflating')
      t.equal(ahead.take(four, bounds), undefined, 'only once')
      mkdirSync(join(dir, 'out'))
      const job = await jobOf(four, join(dir, 'out'), bounds)
      const progress: Array<{
        read: number
        bytes: number
        entries: number
        fileBytes: number
      }> = []
      const result = await pool.extract(job, {
        inflated: taken?.inflated,
        onStart: counters => progress.push(counters),
      })
      t.equal(result.entries, 2)
      t.match(progress, [
        { read: four.size, bytes: result.bytes, entries: 2, fileBytes: large.body.length + 1 },
      ])
      ahead.drop(five)
      ahead.drop(five)
      await ahead.stop()
      await ahead.stop()
    },
  )

await t.test('it begins only where it pays', async t => {
  const layer = (): Layer =>
    makeLayer(t.testdir(), 0, { members: [], compression: 'gzip', faults: [] })
  const { signal } = new AbortController()
  await using pool = new WorkerPool()
  t.equal(
    await ReadAhead.start(pool, [layer()], {}, { signal, sumsFiles: true }),
    undefined,
    'little to read',
  )
  const before = { ...readAheadBounds }
  readAheadBounds.least = 0
  t.teardown(() => Object.assign(readAheadBounds, before))
  t.equal(
    await ReadAhead.start(pool, [], {}, { signal, sumsFiles: true }),
    undefined,
    'nothing to read',
  )
  await using narrow = new WorkerPool({ maxWorkers: 1 })
  t.equal(
    await ReadAhead.start(narrow, [layer()], {}, { signal, sumsFiles: true }),
    undefined,
    'one thread',
  )
  const placed = layer()
  placed.place({ by: 'test', verified: true })
  t.equal(
    await ReadAhead.start(pool, [placed], {}, { signal, sumsFiles: true }),
    undefined,
    'found elsewhere',
  )
})

for (const stage of ['inflates', 'hashes'])
  await t.test(`if the thread that ${stage} ahead dies, the others end`, { skip }, async t => {
    const before = { ...readAheadBounds }
    Object.assign(readAheadBounds, { least: 0, hashing: 0 })
    t.teardown(() => Object.assign(readAheadBounds, before))
    await using pool = new (class extends WorkerPool {
      override inflate(job: AheadJob): Promise<void> {
        return super.inflate(stage === 'inflates' ? { ...job, sources: nothing } : job)
      }
      override hash(job: HashJob): Promise<void> {
        return super.hash(stage === 'hashes' ? { ...job, hashed: nothing } : job)
      }
    })()
    const dir = t.testdir()
    const layer = makeLayer(dir, 0, { members: [], compression: 'gzip', faults: [] })
    const { signal } = new AbortController()
    const ahead = await ReadAhead.start(pool, [layer], {}, { signal, sumsFiles: true })
    const taken = ahead?.take(layer, {})
    mkdirSync(join(dir, 'out'))
    const job = await jobOf(layer, join(dir, 'out'), {})
    await t.rejects(pool.extract(job, { inflated: taken?.inflated }), {
      code: 'ERR_KOCI_WORKER_DIED',
      details: { layer: layer.digest },
    })
    await ahead?.stop()
    t.equal((await pool.extract(job)).entries, 1, 'another thread takes its place')
  })
