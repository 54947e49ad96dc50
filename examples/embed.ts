// koci in a program: events, cancelling, errors by code.
import { existsSync } from 'node:fs'
import { isError, Koci, limits, mtree } from '../middleware/index.ts' // 'koci' in your program
import { sampleImage } from './sample-image.ts'

const { directory, image, rootless } = await sampleImage()
const app = new Koci().use(limits({ maxEntries: 1000 })).use(mtree())

app.on('layer:done', ({ data }) => {
  console.log(`layer ${data.layer.index} is verified and extracted by ${data.layer.placed?.by}`)
})

const bundle = `${directory}/bundle`
const { layers } = await app.unpack({
  image,
  bundle,
  rootless,
  signal: AbortSignal.timeout(60_000),
})
console.log(`${layers.length} layers`)

try {
  await app.unpack({ image, bundle, rootless })
} catch (error) {
  if (!isError(error, 'CLOBBER')) throw error
  console.log(`${error.code}: and the bundle is still there: ${existsSync(bundle)}`)
}

// Output:
// layer 0 is verified and extracted by koci
// layer 1 is verified and extracted by koci
// 2 layers
// ERR_KOCI_CLOBBER: and the bundle is still there: true
