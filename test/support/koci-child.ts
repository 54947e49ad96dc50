// A process that runs what it is told with koci: started by tests as another user, or in another environment.
import { Koci, type RepackOptions, type UnpackOptions } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'

type Call = ['unpack', UnpackOptions] | ['repack', RepackOptions]

const calls: Call[] = JSON.parse(process.argv[2] ?? '[]')
const app = new Koci().use(mtree())
const answers: unknown[] = []
for (const [method, options] of calls) {
  if (method === 'unpack') {
    await app.unpack(options)
    answers.push({ changes: [] })
    continue
  }
  const { image, changes } = await app.repack(options)
  answers.push({
    changes: changes.map(({ kind, path }) => `${kind} ${path}`),
    manifest: image.descriptor.digest,
    layers: image.layers.map(({ descriptor }) => descriptor.digest),
  })
}
process.stdout.write(JSON.stringify(answers))
