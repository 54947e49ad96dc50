// A process that unpacks with btrfs(): `btrfs-child.ts STORE IMAGE BUNDLE WHEN`. It kills itself after a layer (`layer:N`), at
// the `end` of all of them; or, `rootless`, prints which layers it extracted, and what listing changes comes to.
import type { KociError } from '../../lib/errors.ts'
import { Koci, listDelta } from '../../lib/index.ts'
import { btrfs } from '../../middleware/btrfs/index.ts'

const [dir = '', image = '', bundle = '', when] = process.argv.slice(2)
const extracted: number[] = []
const die = (at: string): void => {
  if (when === at) process.kill(process.pid, 'SIGKILL')
}
const app = new Koci().use({
  name: 'outside',
  async layer(ctx, next) {
    await next()
    extracted.push(ctx.layer.index)
    die(`layer:${ctx.layer.index}`)
  },
})
app.use(btrfs({ dir })).use({
  name: 'inside',
  async unpack(_, next) {
    await next()
    die('end')
  },
})
await app.unpack({ image, bundle, rootless: when === 'rootless' })
const answer = await listDelta(app, { bundle }).catch((error: KociError) => error.code)
console.log(JSON.stringify(extracted), answer)
