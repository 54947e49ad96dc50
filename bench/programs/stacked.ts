// A storage driver that is as small as can be: every layer gets a directory beside the bundle, nothing is mounted.
// Arguments: address of the built library, image, a directory to make.
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import type * as koci from '../../middleware/index.ts'

const [dist = '', image = '', target = ''] = process.argv.slice(2)
const { Koci } = (await import(`${dist}middleware/index.js`)) as typeof koci

mkdirSync(target)
const app = new Koci().use({
  name: 'bench',
  async unpack(ctx, next) {
    ctx.extraction.choose('bench', 'stacked', 'plain')
    await next()
  },
  async layer(ctx, next) {
    ctx.layer.target = path.join(target, String(ctx.layer.index))
    mkdirSync(ctx.layer.target)
    await next()
  },
  mount() {},
})
const rootless = process.geteuid?.() !== 0
const { layers } = await app.unpack({ image, bundle: path.join(target, 'bundle'), rootless })
if (!layers.every(layer => layer.placed?.verified)) process.exitCode = 1
