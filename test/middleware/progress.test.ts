import { existsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Koci, type Driver } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { progress, type ProgressOptions } from '../../middleware/progress/index.ts'
import { makeImage } from '../support/image.ts'

const rootless = process.geteuid?.() !== 0

/** To the first column, and clear the line. */
const clear = '\u001b[1G\u001b[2K'

/** A terminal of some width that remembers what was written to it, and what is on its last line. */
class Terminal extends Writable {
  readonly isTTY: boolean
  readonly columns: number
  written = ''

  constructor(columns = 80, isTTY = true) {
    super({
      decodeStrings: false,
      write: (text, _encoding, done) => {
        this.written += String(text)
        done()
      },
    })
    this.columns = columns
    this.isTTY = isTTY
  }

  /** Every state that the line had. */
  get lines(): string[] {
    return this.written.split(clear).flatMap(text => text.split('\n'))
  }
}

/** Gives the timer its turn. */
const slow: Driver = {
  name: 'slow',
  layer: async (_ctx, next) => {
    await sleep(250)
    await next()
  },
  pack: async (_ctx, next) => {
    await sleep(250)
    await next()
  },
}

async function run(
  t: Test,
  options: ProgressOptions,
  ...drivers: Driver[]
): Promise<{ app: Koci; images: string; bundle: string; image: string }> {
  const base = t.testdir()
  const images = path.join(base, 'images')
  const layers = [[{ name: 'x' }], [{ name: 'y' }, { name: 'z' }]]
  const image = await makeImage(images, 'a', { layers })
  const app = new Koci().use(progress(options))
  for (const driver of drivers) app.use(driver)
  return { app: app.use(mtree()), images, image, bundle: path.join(base, 'bundle') }
}

await t.test('draws over one line, and leaves a summary', async t => {
  const stream = new Terminal()
  const { app, image, bundle } = await run(t, { stream }, slow)
  const start = performance.now()
  await app.unpack({ image, bundle, rootless })
  const most = (performance.now() - start) / 100 + 4
  const { lines } = stream
  t.match(lines[1], /^\[\.{16}\] {2}0% {2}0\.0\/0\.\d kB {2}0\.0 MB\/s {2}0\/2 layers$/)
  t.ok(
    lines.some(line =>
      /^\[#{1,15}\.{1,15}\] {1,2}\d\d% {2}.* MB\/s {2}1\/2 layers$/.test(line),
    ),
  )
  t.match(lines.at(-2), /^unpacked 2 layers, 3 entries in \d+\.\d s$/)
  t.equal(lines.at(-1), '')
  t.ok(lines.length < most, `${lines.length} lines, at most ten times a second`)
  t.notMatch(lines.join('\n'), '\u001b', 'nothing but one line')
})

await t.test('shows what a repack is at', async t => {
  const stream = new Terminal()
  const { app, image, images, bundle } = await run(t, { stream }, slow)
  const { rootfs } = await app.unpack({ image, bundle, rootless })
  writeFileSync(path.join(rootfs, 'x'), 'changed')
  stream.written = ''
  await app.repack({ image: `${images}:b`, bundle })
  t.ok(stream.lines.some(line => /^packing 1 change {2}\d+\.\d s$/.test(line)))
  t.match(stream.lines.at(-2), /^repacked 1 change in \d+\.\d s$/)
})

await t.test(
  'is silent where there is no terminal, unless it takes long, or is forced to draw',
  async t => {
    const stream = new Terminal(80, false)
    const { app, image, images, bundle } = await run(t, { stream })
    await app.unpack({ image, bundle, rootless })
    await app.repack({ image: `${images}:b`, bundle })
    t.equal(stream.written, '')

    const plain = await run(t, { stream, interval: 0.05 }, slow)
    await plain.app.unpack({ ...plain, rootless })
    const lines = stream.written.split('\n')
    t.match(lines[0], /^\[.{16}\] +\d+% {2}.* \d\/2 layers$/)
    t.match(lines.at(-2), /^unpacked 2 layers, 3 entries/)
    t.notMatch(stream.written, '\u001b')
    stream.written = ''

    const forced = await run(t, { stream, force: true })
    await forced.app.unpack({ ...forced, rootless })
    t.match(stream.written, /unpacked 2 layers/)
  },
)

await t.test('never fills the last column', async t => {
  const stream = new Terminal(20)
  const { app, image, bundle } = await run(t, { stream }, slow)
  await app.unpack({ image, bundle, rootless })
  for (const line of stream.lines.slice(0, -2)) t.ok(line.length < 20, line)
})

for (const how of ['fails', 'is aborted'])
  await t.test(`a run that ${how} leaves an empty line and no timer`, async t => {
    const stream = new Terminal()
    const controller = new AbortController()
    const { app, image, bundle } = await run(
      t,
      { stream },
      {
        name: 'stopping',
        layer: async () => {
          await sleep(250)
          if (how === 'fails') throw new Error('no')
          controller.abort()
        },
      },
    )
    await t.rejects(app.unpack({ image, bundle, rootless, signal: controller.signal }))
    t.match(stream.written, /%/, 'something was drawn')
    t.ok(stream.written.endsWith(clear))
    t.notOk(existsSync(bundle))
    const { written } = stream
    await sleep(250)
    t.equal(stream.written, written, 'nothing is drawn any more')
  })

await t.test('two runs at once share the line', async t => {
  const stream = new Terminal(160)
  const { app, image, bundle } = await run(t, { stream }, slow)
  const one = app.unpack({ image, bundle, rootless })
  const two = app.unpack({ image, bundle: `${bundle}-2`, rootless })
  await Promise.all([one, two])
  t.ok(stream.lines.some(line => / layers? \| \[/.test(line)))
  t.equal(stream.lines.filter(line => line.startsWith('unpacked 2 layers')).length, 2)
})

await t.test('an idle timer keeps no program alive', async t => {
  const stream = new Terminal()
  const before = process.getActiveResourcesInfo().filter(name => name === 'Timeout').length
  const driver = progress({ stream })
  let during = -1
  await driver.unpack?.({ layers: [] } as never, async () => {
    during = process.getActiveResourcesInfo().filter(name => name === 'Timeout').length
  })
  t.equal(during, before)
})
