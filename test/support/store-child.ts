// A process that unpacks an image through a store: started by tests that kill it, or let several of them race.
// Says which layers it extracted, as JSON; `hold` has it say "holding" at a layer that it is about to extract, and wait.
import { setTimeout as sleep } from 'node:timers/promises'
import { Koci } from '../../lib/index.ts'
import { cache } from '../../middleware/cache/index.ts'
import { stacker } from './stacker.ts'

export interface StoreTask {
  readonly image: string
  readonly bundle: string
  readonly dir: string
  readonly hold?: number
}

const { image, bundle, dir, hold } = JSON.parse(process.argv[2] ?? '') as StoreTask
const extracted: number[] = []
const app = new Koci().use(cache({ dir })).use(stacker())
app.use(async (ctx, next) => {
  if (ctx.layer.index === hold) {
    process.stdout.write('holding\n')
    await sleep(60_000)
  }
  await next()
  extracted.push(ctx.layer.index)
})
await app.unpack({ image, bundle, rootless: process.geteuid?.() !== 0 })
process.stdout.write(JSON.stringify(extracted))
