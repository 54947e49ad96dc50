import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { childEnvironment, koci } from '../../bin/run-koci.ts'
import { makeMemoryDir } from '../../support/memory-dir.ts'
import type { StoreTask } from '../../support/store-child.ts'
import { Workshop } from '../../support/store.ts'
import { describeTree } from '../../support/tree.ts'
import { makeStore } from '../../../middleware/cache/directory.ts'
import { verify } from '../../../middleware/cache/verify.ts'

type Tap = Pick<typeof t, 'same' | 'equal'>

const program = path.resolve(import.meta.dirname, '../../support/store-child.ts')
const killAt = path.resolve(import.meta.dirname, '../../support/kill-at.ts')
const base = makeMemoryDir('koci-processes-')
t.teardown(() => rmSync(base, { recursive: true, force: true }))
let shops = 0
// many processes, on machines that do other things, too
t.setTimeout(900_000)

const openShop = (layers?: Parameters<typeof Workshop.open>[1]) =>
  Workshop.open(path.join(base, String(shops++)), layers)

interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

function start(
  shop: Workshop,
  more: Partial<StoreTask> = {},
  before: readonly string[] = [],
  extra: NodeJS.ProcessEnv = {},
) {
  const task: StoreTask = {
    image: shop.image,
    bundle: shop.nextBundle(),
    dir: shop.dir,
    ...more,
  }
  const loaded = 'KOCI_KILL_AT' in extra ? ['--import', killAt] : []
  const node = [process.execPath, ...loaded, program, JSON.stringify(task)]
  const [command = '', ...args] = [...before, ...node]
  const child = spawn(command, args, {
    // one thread, so that its system calls can be counted
    env: childEnvironment({ UV_THREADPOOL_SIZE: '1', ...extra }),
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
    killSignal: 'SIGKILL',
  })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const ended = once(child, 'close').then(([code, signal]): Ended => ({
    code,
    signal,
    stdout,
    stderr,
  }))
  return { child, ended, task }
}

const treesOf = (layers: Awaited<ReturnType<Workshop['unpack']>>['layers']) =>
  layers.map(({ placed }) => describeTree(placed?.dir ?? ''))

async function assertWhole(t: Tap, shop: Workshop, golden: string[][]): Promise<void> {
  const { layers } = await shop.unpack()
  t.same(treesOf(layers), golden)
  t.same(shop.staging, [])
  for await (const { state } of verify(shop.store)) t.equal(state, 'good')
  t.same((await shop.unpack()).extracted, [])
}

await t.test('several processes extract each layer once', async t => {
  const shop = await openShop()
  const outcomes = await Promise.all([1, 2, 3, 4, 5].map(() => start(shop).ended))
  for (const { code, stderr } of outcomes) t.equal(code, 0, stderr)
  const extracted = outcomes.flatMap(({ stdout }) => JSON.parse(stdout) as number[])
  t.same(
    extracted.toSorted((a, b) => a - b),
    [0, 1, 2],
  )
  t.equal(shop.names.length, 3)
  t.same(shop.staging, [])
})

await t.test('gc takes nothing of what others are unpacking', async t => {
  const golden = treesOf((await (await openShop()).unpack()).layers)
  const shop = await openShop()
  makeStore(shop.dir)
  const done = new AbortController()
  const unpacking = Promise.all([1, 2, 3].map(() => start(shop).ended)).finally(() =>
    done.abort(),
  )
  const gc = ['cache', 'gc', '--dir', shop.dir, '--keep-bytes', '0', '--older-than', '0s']
  while (!done.signal.aborted) {
    const { code, stderr } = await koci(gc)
    t.equal(code, 0, stderr)
  }
  const outcomes = await unpacking
  for (const { code, stderr } of outcomes) t.equal(code, 0, stderr)
  const extracted = outcomes.flatMap(({ stdout }) => JSON.parse(stdout) as number[])
  t.same(
    extracted.toSorted((a, b) => a - b),
    [0, 1, 2],
  )
  t.equal((await koci(gc)).code, 0)
  await assertWhole(t, shop, golden)
})

await t.test('those who wait go on when who extracts is killed', async t => {
  const golden = treesOf((await (await openShop()).unpack()).layers)
  const shop = await openShop()
  const first = start(shop, { hold: 1 })
  await once(first.child.stdout, 'data')
  const others = [start(shop), start(shop)]
  const undecided = await Promise.race([
    ...others.map(({ ended }) => ended.then(() => 'ended')),
    new Promise(resolve => setTimeout(resolve, 1500, 'waiting')),
  ])
  t.equal(undecided, 'waiting')
  first.child.kill('SIGKILL')
  t.equal((await first.ended).signal, 'SIGKILL')
  const outcomes = await Promise.all(others.map(({ ended }) => ended))
  for (const { code, stderr } of outcomes) t.equal(code, 0, stderr)
  const extracted = outcomes.flatMap(({ stdout }) => JSON.parse(stdout) as number[])
  t.equal(extracted.filter(index => index === 1).length, 1)
  await assertWhole(t, shop, golden)
})

await t.test('who waits can be told to stop', async t => {
  const shop = await openShop()
  const first = start(shop, { hold: 0 })
  await once(first.child.stdout, 'data')
  const abort = new AbortController()
  const waiting = shop.unpack({}, { signal: abort.signal })
  setTimeout(() => abort.abort(), 300)
  await t.rejects(waiting, { code: 'ERR_KOCI_ABORTED' })
  first.child.kill('SIGKILL')
  await first.ended
  t.same((await shop.unpack()).extracted.includes(0), true)
})

const strace = spawnSync('strace', ['-o', '/dev/null', 'true'], { timeout: 10_000 })
const skip = strace.status !== 0 && 'needs strace'
const oneLayer = [
  [
    { name: 'd/', type: 'directory' as const },
    { name: 'd/f', body: 'content' },
    { name: '.wh.x' },
  ],
]
/** Only where the store is concerned: Node syncs its output, too, and hangs if it can't. */
const inject = (shop: Workshop, call: string): string[] => {
  const what = `-f -qq -o /dev/null -e trace=${call} -e inject=${call}:error=EIO`
  const where = ['v1/layers', 'v1'].flatMap(name => ['-P', path.join(shop.dir, name)])
  return ['strace', ...what.split(' '), ...where]
}

await t.test('killed at any moment, it leaves nothing that counts', async t => {
  const golden = treesOf((await (await openShop(oneLayer)).unpack()).layers)
  /** Whether the process got through. */
  const attempt = async (at: number): Promise<boolean> => {
    const shop = await openShop(oneLayer)
    const env = { KOCI_KILL_AT: String(at) }
    const { code, signal, stdout, stderr } = await start(shop, {}, [], env).ended
    if (signal !== 'SIGKILL') t.same([code, stdout], [0, '[0]'], stderr)
    await assertWhole(t, shop, golden)
    return signal !== 'SIGKILL'
  }
  // all of them take minutes
  const step = process.env['KOCI_SOAK'] === undefined ? 4 : 1
  let at = 1
  for (let ends = [false]; !ends.includes(true); at += 3 * step) {
    ends = await Promise.all([at, at + step, at + 2 * step].map(attempt))
    if (at > 200) ends = [t.fail('there is no end to it')]
  }
  t.ok(at > 20, `${at} moments`)
})

for (const call of ['syncfs', 'fsync'])
  await t.test(`an error of ${call} is no success`, { skip }, async t => {
    const golden = treesOf((await (await openShop(oneLayer)).unpack()).layers)
    const shop = await openShop(oneLayer)
    makeStore(shop.dir)
    const { code, stderr } = await start(shop, {}, inject(shop, call)).ended
    t.not(code, 0)
    t.match(stderr, /EIO/)
    t.same(shop.names, [])
    await assertWhole(t, shop, golden)
  })
