// Unpacking with layers inflated ahead: what middleware does to a layer counts, whatever was inflated of it before;
// and whenever a run is stopped, everything ends.
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Koci, type Driver, type LayerContext, type Middleware } from '../../lib/index.ts'
import { outputSize } from '../../lib/layer/native.ts'
import { WorkerPool } from '../../lib/layer/pool.ts'
import { readAheadBounds } from '../../lib/layer/read-ahead.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { openDescriptors } from '../support/descriptors.ts'
import { makeImage } from '../support/image.ts'
import { makeMemoryDir } from '../support/memory-dir.ts'
import { missing } from '../support/peers.ts'
import { tarBytes, type TarMember } from '../support/tar-builder.ts'

const rootless = process.getuid?.() !== 0
const skip = new WorkerPool().maxWorkers < 2 && 'needs two processors'
const root = new URL('../../', import.meta.url).href

// a ring that even these small layers fill, so that what reads ahead has to wait
Object.assign(readAheadBounds, { least: 0, hashing: 0, budget: 4 * outputSize })

const dir = makeMemoryDir('koci-unpack-ahead-')
t.teardown(() => rmSync(dir, { recursive: true }))

const layer = (index: number): TarMember[] => [
  { name: `n${index}`, body: `${index}` },
  { name: `large${index}`, body: Buffer.alloc(6 * outputSize, index + 1) },
  { name: 'last', body: `${index}` },
]
const layers = Array.from({ length: 6 }, (_, index) => layer(index))
const images = join(dir, 'images')
const image = await makeImage(images, 'test', { layers })
let count = 0

async function unpack(
  middleware: Driver | Middleware<LayerContext> = (_, next) => next(),
  options: { image?: string; signal?: AbortSignal } = {},
): Promise<string> {
  const bundle = join(dir, `bundle${count++}`)
  const app = new Koci().use(middleware).use(mtree())
  const { rootfs } = await app.unpack({ image, bundle, rootless, ...options })
  return rootfs
}

const namesIn = (rootfs: string): string[] => readdirSync(rootfs).sort()
const all = ['last', ...layers.flatMap((_, index) => [`large${index}`, `n${index}`])].sort()

await t.test('middleware runs strictly in order, each layer being written by then', async t => {
  const seen: string[] = []
  const rootfs = await unpack(async (ctx, next) => {
    const { index } = ctx.layer
    t.strictSame(ctx.layer.progress, { read: 0, entries: 0 }, 'not begun, for all one can see')
    t.notOk(existsSync(join(ctx.rootfs, `n${index}`)))
    seen.push(`before ${index}`)
    await next()
    t.equal(readFileSync(join(ctx.rootfs, 'last'), 'utf8'), `${index}`)
    t.match(ctx.layer.progress, { read: ctx.layer.size, entries: 3 })
    seen.push(`after ${index}`)
  })
  t.strictSame(
    seen,
    layers.flatMap((_, index) => [`before ${index}`, `after ${index}`]),
  )
  t.strictSame(namesIn(rootfs), all)
})

await t.test('a replaced source is what counts', async t => {
  const tar = tarBytes(layer(2))
  let opened = 0
  const rootfs = await unpack(async (ctx, next) => {
    if (ctx.layer.index === 2) {
      await sleep(50) // by now it has been inflated, as far as there is room
      ctx.layer.source = {
        compression: 'none',
        async *open() {
          opened += 1
          yield tar
        },
      }
    }
    await next()
  })
  t.equal(opened, 1)
  t.strictSame(namesIn(rootfs), all)
  await t.rejects(
    unpack(async (ctx, next) => {
      if (ctx.layer.index === 3)
        ctx.layer.source = {
          compression: 'none',
          async *open() {
            yield tar
          },
        }
      await next()
    }),
    { code: 'ERR_KOCI_DIFF_ID_MISMATCH' },
  )
})

await t.test('middleware that places layers itself: those after them are as ever', async t => {
  for (const own of [[0], [2, 3], [5], [0, 1, 2, 3, 4, 5]]) {
    const rootfs = await unpack(async (ctx, next) => {
      if (!own.includes(ctx.layer.index)) return next()
      ctx.layer.place({ by: 'test', verified: false })
    })
    const lacking = own.flatMap(index => [`large${index}`, `n${index}`])
    const expected = own.length === 6 ? [] : all.filter(name => !lacking.includes(name))
    t.strictSame(namesIn(rootfs), expected, own.join())
  }
})

await t.test('limits that change on the way', async t => {
  await t.rejects(
    unpack(async (ctx, next) => {
      if (ctx.layer.index === 3) ctx.limits.maxBytes = 1000
      await next()
    }),
    { code: 'ERR_KOCI_LIMIT_EXCEEDED', message: /1000/ },
  )
  let lifted = false
  const rootfs = await unpack(async (ctx, next) => {
    ctx.limits.maxBytes = lifted ? Infinity : 10 * outputSize
    lifted = true
    await next()
  })
  t.strictSame(namesIn(rootfs), all)
})

await t.test('a layer that fails in the middle, later ones being inflated already', async t => {
  const cases: Array<[code: string, bad: TarMember[]]> = [
    ['ERR_KOCI_PATH_ESCAPE', [{ name: '../x' }, ...layer(2)]],
    ['ERR_KOCI_BAD_ARCHIVE', [...layer(2), { name: 'z', checksum: '1' }]],
    ['ERR_KOCI_INVALID_ENTRY', [{ name: 'h', type: 'hardlink', linkname: 'none' }]],
  ]
  for (const [code, bad] of cases) {
    const spoiled = layers.map((members, index) => (index === 2 ? bad : members))
    const image = await makeImage(images, 'spoiled', { layers: spoiled })
    let last = -1
    await t.rejects(
      unpack(
        async (ctx, next) => {
          last = ctx.layer.index
          await next()
        },
        { image },
      ),
      { code, details: { layer: /^sha256:/ } },
    )
    t.equal(last, 2)
    const rootfs = await unpack(
      (ctx, next) =>
        next().catch(() => {
          ctx.layer.place({ by: 'test', verified: false })
        }),
      { image },
    )
    t.equal(readFileSync(join(rootfs, 'n5'), 'utf8'), '5', 'forgiven, and the others follow')
  }
})

await t.test('a blob that is damaged, in the middle', async t => {
  const image = await makeImage(join(dir, 'damaged'), 'test', { layers })
  let last = -1
  const damage: Driver = {
    name: 'damage',
    async locate({ layer }, next) {
      if (layer.index === 3) {
        const { path } = await layer.locateBlob()
        const bytes = readFileSync(path)
        bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1
        writeFileSync(path, bytes)
      }
      await next()
    },
    async layer({ layer }, next) {
      last = layer.index
      await next()
    },
  }
  await t.rejects(unpack(damage, { image }), { code: 'ERR_KOCI_DIGEST_MISMATCH' })
  t.equal(last, 3)
})

await t.test('stopped at any moment, it ends, with nothing left open', { skip }, async t => {
  const threads = (): number => readdirSync('/proc/self/task').length
  const start = performance.now()
  await unpack()
  const whole = performance.now() - start
  const before = { open: openDescriptors(), threads: threads() }
  const outcomes = new Set<string>()
  for (let run = 0; run < 25; run += 1) {
    const abort = new AbortController()
    const timer = setTimeout(() => abort.abort(), (whole * 1.1 * run) / 25)
    const outcome = await Promise.race([
      unpack(undefined, { signal: abort.signal }).then(
        () => 'done',
        (error: { code: string }) => error.code,
      ),
      sleep(20_000, 'hangs', { ref: false }),
    ])
    clearTimeout(timer)
    outcomes.add(outcome)
  }
  t.notOk(outcomes.has('hangs'))
  t.ok(outcomes.has('ERR_KOCI_ABORTED'))
  outcomes.delete('done')
  t.strictSame([...outcomes], ['ERR_KOCI_ABORTED'])
  for (let wait = 0; wait < 100 && threads() > before.threads; wait += 1) await sleep(20)
  t.ok(threads() <= before.threads, 'no threads')
  t.ok(openDescriptors() <= before.open, 'no descriptors')
  const half = readdirSync(dir).filter(
    name =>
      existsSync(join(dir, name, 'rootfs')) && !existsSync(join(dir, name, 'config.json')),
  )
  t.strictSame(half, [])
})

function inChild(
  script: string,
  prefix: string[] = [],
): { status: number | null; stdout: string; stderr: string } {
  const command = [
    ...prefix,
    process.execPath,
    '--input-type=module',
    '-e',
    `import { Koci, limits, mtree } from '${root}middleware/index.ts'
     import { readFileSync } from 'node:fs'
     ${script}`,
  ]
  return spawnSync(command[0] as string, command.slice(1), {
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, NODE_OPTIONS: '' },
  })
}

const run = (image: string): string => `
  const { code } = await new Koci().use(limits({ maxRatio: 2000 })).use(mtree())
    .unpack({ image: '${image}', bundle: '${dir}/child', rootless: ${rootless} }).catch(e => e)
  // not getrusage's, which knows the parent's, too
  const rss = /VmHWM:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1] / 1024
  console.log(JSON.stringify({ code, rss }))`

await t.test('one processor: one thread', { skip: missing('taskset') }, async t => {
  const child = inChild(
    `import { WorkerPool } from '${root}lib/layer/pool.ts'
     console.log(new WorkerPool().maxWorkers)
     ${run(image)}`,
    ['taskset', '-c', '0'],
  )
  t.equal(child.stderr, '')
  t.match(child.stdout, /^1\n\{"rss":/)
  t.strictSame(namesIn(join(dir, 'child', 'rootfs')), all)
  rmSync(join(dir, 'child'), { recursive: true })
})

await t.test('memory stays bounded, however much comes out', async t => {
  const zeros = tarBytes([{ name: 'z', body: Buffer.alloc(150 * 2 ** 20) }])
  const noise = tarBytes([{ name: 'n', body: randomBytes(6 * 2 ** 20) }])
  const cases: Array<[name: string, layers: Buffer[], code: string | undefined, most: number]> =
    [
      // what is less than 1 MB as a blob comes to 150 MB, and isn't read ahead
      ['small', [zeros], undefined, 150],
      ['large', [noise, zeros, noise], undefined, 350],
    ]
  for (const [name, layers, code, most] of cases) {
    const image = await makeImage(join(dir, 'bombs'), name, { layers })
    const child = inChild(run(image))
    t.equal(child.stderr, '', name)
    const result = JSON.parse(child.stdout) as { code?: string; rss: number }
    t.equal(result.code, code)
    t.comment(`${name}: ${Math.round(result.rss)} MB`)
    t.ok(result.rss <= most, `${name}: ${result.rss} MB`)
    rmSync(join(dir, 'child'), { recursive: true })
  }
})
