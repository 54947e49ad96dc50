// A one-off: a bare function runs around the extraction of every layer. It times them.
import { Koci } from '../middleware/index.ts' // 'koci' in your program
import { sampleImage } from './sample-image.ts'

const { directory, image, rootless } = await sampleImage()

const app = new Koci().use(async (ctx, next) => {
  const start = performance.now()
  await next()
  const seconds = (performance.now() - start) / 1000
  console.log(`layer ${ctx.layer.index} took ${seconds < 60 ? 'less than a minute' : 'long'}`)
})
await app.unpack({ image, bundle: `${directory}/bundle`, rootless })

// Output:
// layer 0 took less than a minute
// layer 1 took less than a minute
