import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import t from 'tap'
import { insertLayer } from '../../../lib/layer/insert-layer.ts'
import { makeImage } from '../../support/image.ts'
import { temporary } from '../../support/peers.ts'

await t.test(
  'what becomes a directory while it is packed is no empty one in the layer',
  async t => {
    const cwd = temporary(t, 'insert')
    const source = path.join(cwd, 'src')
    mkdirSync(source)
    const server = createServer()
    // the path of a socket is short
    const back = process.cwd()
    process.chdir(source)
    await new Promise<void>(resolve => server.listen('a', resolve))
    process.chdir(back)
    t.teardown(() => server.close())
    const file = path.join(source, 'z')
    writeFileSync(file, 'file')
    const image = await makeImage(path.join(cwd, 'images'), 'a', { layers: [] })
    const { signal } = new AbortController()
    // the socket comes first
    const warn = (): void => {
      rmSync(file)
      mkdirSync(file)
      writeFileSync(path.join(file, 'in'), 'in it')
    }
    await t.rejects(insertLayer({ image, source, target: '/t', signal, warn }), {
      code: 'ERR_KOCI_FILE_CHANGED',
      details: { subject: Buffer.from('z') },
    })
  },
)
