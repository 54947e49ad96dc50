import { writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { log } from '../../middleware/log/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { makeImage } from '../support/image.ts'

const rootless = process.geteuid?.() !== 0

await t.test('says what each layer, each unpack and each repack took', async t => {
  const base = t.testdir()
  const images = path.join(base, 'images')
  const image = await makeImage(images, 'a', { layers: [[{ name: 'x' }], [{ name: 'y' }]] })
  const lines: string[] = []
  const app = new Koci().use(log({ write: line => lines.push(line) })).use(mtree())
  const bundle = path.join(base, 'bundle')
  const { layers, rootfs } = await app.unpack({ image, bundle, rootless })
  writeFileSync(path.join(rootfs, 'z'), 'z')
  const { image: made } = await app.repack({ image: `${images}:b`, bundle })

  t.same(
    lines.map(line => line.replace(/\d+\.\d\d s$/, 'N s')),
    [
      ...layers.map(({ digest }) => `koci placed ${digest} in N s`),
      `unpacked 2 layers into ${rootfs} in N s`,
      `repacked as ${made.descriptor.digest} in N s`,
    ],
  )
})

await t.test('names who placed a layer that koci did not extract', async t => {
  const base = t.testdir()
  const image = await makeImage(path.join(base, 'images'), 'a', { layers: [[{ name: 'x' }]] })
  const lines: string[] = []
  const app = new Koci().use(log({ write: line => lines.push(line) })).use({
    name: 'store',
    layer: ctx => ctx.layer.place({ by: 'store', verified: true }),
  })
  await app.unpack({ image, bundle: path.join(base, 'bundle'), rootless })
  t.match(lines[0], /^store placed sha256:/)
})

await t.test('says nothing of what failed: the error does', async t => {
  const base = t.testdir()
  const image = await makeImage(path.join(base, 'images'), 'a', {
    layers: [Buffer.from('no tar')],
  })
  const lines: string[] = []
  const app = new Koci().use(log({ write: line => lines.push(line) }))
  await t.rejects(app.unpack({ image, bundle: path.join(base, 'bundle'), rootless }))
  t.same(lines, [])
})
