import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { readLayerRecord, type LayerRecordSummary } from '../../../lib/bundle/layer-record.ts'
import { WorkerPool, type Counters, type ExtractJob } from '../../../lib/layer/pool.ts'
import { makeJob } from '../../support/extract.ts'
import { tarBytes, type TarMember } from '../../support/tar-builder.ts'

const rootless = process.getuid?.() !== 0
let count = 0

function makeJobs(
  t: { teardown(run: () => void): void },
  archives: TarMember[][],
): ExtractJob[] {
  const dir = mkdtempSync(join(tmpdir(), 'koci-pool-'))
  t.teardown(() => {
    rmSync(dir, { recursive: true })
  })
  return archives.map(members => {
    const target = join(dir, `rootfs-${count}`)
    mkdirSync(target)
    const path = join(dir, `${count++}.tar`)
    return { ...makeJob(path, tarBytes(members), target), rootless, first: true }
  })
}

const small: TarMember[] = [{ name: 'f', body: 'content', mtime: 3 }]
const large = (): TarMember[] =>
  Array.from({ length: 20_000 }, (_, index) => ({ name: `f${index}`, body: 'x' }))

await t.test('more layers than workers, each into its own directory', async t => {
  await using pool = new WorkerPool({ maxWorkers: 2 })
  const jobs = makeJobs(
    t,
    Array.from({ length: 7 }, (_, index) => [...small, { name: `n${index}` }]),
  )
  const results = await Promise.all(jobs.map(job => pool.extract(job)))
  t.ok(results.every(({ entries }) => entries === 2))
  for (const [index, { target }] of jobs.entries())
    t.strictSame(readdirSync(target), ['f', `n${index}`])
})

await t.test('hashes and warnings come back', async t => {
  await using pool = new WorkerPool()
  const [job] = makeJobs(t, [[...small, { name: '.wh..wh.x' }]]) as [ExtractJob]
  const { hashes, warnings } = await pool.extract({ ...job, hashFiles: true })
  const { ino } = lstatSync(join(job.target, 'f'), { bigint: true })
  t.strictSame(hashes?.get(ino), {
    sha256: createHash('sha256').update('content').digest(),
    size: 7,
    mtime: 3_000_000_000n,
  })
  t.match(warnings, [{ code: 'IGNORED_WHITEOUT', count: 1 }])
})

await t.test('a worker records what it extracted, without reading it again', async t => {
  await using pool = new WorkerPool()
  const [job] = makeJobs(t, [small]) as [ExtractJob]
  const recordTo = `${job.target}.record`
  const { recorded, hashes } = await pool.extract({ ...job, hashFiles: true, recordTo })
  t.equal(hashes, undefined)
  const record = await readLayerRecord(recordTo, job.diffID, recorded as LayerRecordSummary)
  const sha256 = createHash('sha256').update('content').digest()
  t.match([...record.entries()], [{ type: 'directory' }, { type: 'file', sha256 }])
  const [other] = makeJobs(t, [small]) as [ExtractJob]
  const failing = pool.extract({ ...other, hashFiles: true, recordTo })
  await t.rejects(failing, { code: 'ERR_KOCI_IO', cause: { code: 'EEXIST' } })
})

await t.test('errors come back as what they were, with the layer', async t => {
  await using pool = new WorkerPool()
  const [bad, good] = makeJobs(t, [[{ name: '../x' }], small]) as [ExtractJob, ExtractJob]
  await t.rejects(pool.extract(bad), {
    code: 'ERR_KOCI_PATH_ESCAPE',
    name: 'BreakoutError',
    message: /^\.\.\/x: /,
    details: { layer: bad.blob.digest },
  })
  await t.rejects(pool.extract({ ...bad, target: '/none' }), {
    code: 'ERR_KOCI_IO',
    cause: { code: 'ENOENT' },
  })
  t.equal((await pool.extract(good)).entries, 1, 'the worker goes on')
})

await t.test('a signal stops what runs and what waits, and then nothing runs', async t => {
  await using pool = new WorkerPool({ maxWorkers: 1 })
  const [first, second, last] = makeJobs(t, [large(), small, small]) as [
    ExtractJob,
    ExtractJob,
    ExtractJob,
  ]
  const abort = new AbortController()
  let counters: Counters | undefined
  const running = pool.extract(first, {
    signal: abort.signal,
    onStart: shared => {
      counters = shared
    },
  })
  const waiting = pool.extract(second, { signal: abort.signal })
  const ended = Promise.allSettled([running, waiting])
  const begun = () => (counters?.entries ?? 0) >= 10
  for (let i = 0; i < 15_000 && !begun(); i += 1) await sleep(2)
  t.ok(begun(), 'it has begun')
  abort.abort()
  for (const result of await ended)
    t.match(result, { status: 'rejected', reason: { code: 'ERR_KOCI_ABORTED' } })
  const left = readdirSync(first.target).length
  t.ok(left < 20_000)
  t.strictSame(readdirSync(second.target), [])
  await t.rejects(pool.extract(second, { signal: abort.signal }), { code: 'ERR_KOCI_ABORTED' })
  t.equal((await pool.extract(last)).entries, 1)
  t.equal(readdirSync(first.target).length, left)
})

await t.test('closing stops everything, twice is no error', async t => {
  const pool = new WorkerPool({ maxWorkers: 1 })
  const [running, waiting] = makeJobs(t, [large(), small]) as [ExtractJob, ExtractJob]
  const ended = Promise.allSettled([pool.extract(running), pool.extract(waiting)])
  await pool.close()
  await pool.close()
  for (const result of await ended)
    t.match(result, { status: 'rejected', reason: { code: 'ERR_KOCI_ABORTED' } })
  await t.rejects(pool.extract(running), { code: 'ERR_KOCI_ABORTED' })
})

await t.test('a worker that dies is an error, and another takes its place', async t => {
  await using pool = new WorkerPool({ maxWorkers: 1 })
  const [job] = makeJobs(t, [small]) as [ExtractJob]
  // what a prototype holds doesn't cross threads: the worker finds no blob, not even to name in its answer
  const { blob, ...rest } = job
  const poison = Object.assign(Object.create({ blob }) as ExtractJob, rest)
  await t.rejects(pool.extract(poison), { code: 'ERR_KOCI_WORKER_DIED' })
  t.equal((await pool.extract(job)).entries, 1)
})

await t.test('idle workers do not keep a program alive', async t => {
  const [job] = makeJobs(t, [small]) as [ExtractJob]
  const script = `
    import { WorkerPool } from '${new URL('../../../lib/layer/pool.ts', import.meta.url).href}'
    const { entries } = await new WorkerPool().extract(${JSON.stringify(job)})
    console.log(entries)`
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: 30_000,
    env: { ...process.env, NODE_OPTIONS: '' },
  })
  t.match(run, { status: 0, stdout: '1\n' })
})
