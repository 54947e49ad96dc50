// A store and the driver know nothing of each other, and meet in one chain.
import * as fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci, listDelta, mountBundle, unmountBundle } from '../../../lib/index.ts'
import { cache } from '../../../middleware/cache/index.ts'
import { mtree } from '../../../middleware/mtree/index.ts'
import { overlay } from '../../../middleware/overlay/index.ts'
import { makeImage, type TestLayer } from '../../support/image.ts'
import { namespace, runInNamespaces } from '../../support/namespaces.ts'
import { run, temporary } from '../../support/peers.ts'
import type { TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'

t.setTimeout(300_000)
const rootless = namespace === 'user'
const hard = (name: string, linkname: string): TarMember => ({
  name,
  type: 'hardlink',
  linkname,
})

const images: [what: string, layers: TestLayer[], dependent: number][] = [
  [
    'layers that are right alone',
    [
      [{ name: 'd/', type: 'directory', mode: 0o2750, mtime: 1 }, { name: 'd/x' }],
      [{ name: 'd/y' }, { name: 'e/.wh.z' }],
    ],
    0,
  ],
  ['the same layer twice', [[{ name: 'd/x' }], [{ name: 'd/.wh.x' }], [{ name: 'd/x' }]], 0],
  [
    'layers that depend on those below',
    [
      [{ name: 'usr/lib/x' }, { name: 'lib', type: 'symlink', linkname: 'usr/lib' }],
      [{ name: 'lib/y' }],
      [hard('z', 'usr/lib/x'), { name: 'usr/lib/.wh.y' }],
      [{ name: 'usr/lib/w' }],
    ],
    2,
  ],
]

async function inNamespace(): Promise<void> {
  for (const [what, layers, dependent] of images)
    for (const elsewhere of [false, true])
      await t.test(
        `${what}${elsewhere ? ', the store on another file system' : ''}`,
        async t => {
          const base = temporary(t, 'with-cache')
          const store = path.join(base, 'store')
          fs.mkdirSync(store, { mode: 0o700 })
          if (elsewhere) {
            run('mount', ['-t', 'tmpfs', '-o', 'mode=0700', 'none', store])
            t.teardown(() => run('umount', [store]))
          }
          const layout = path.join(base, 'images')
          const image = await makeImage(layout, 'test', { layers })
          const chain = (extracted: number[] = []): Koci => {
            const app = new Koci().use(cache({ dir: store, durable: false })).use(overlay())
            app.on('layer:start', ({ data }) => {
              extracted.push(data.layer.index)
            })
            return app
          }
          const plain = path.join(base, 'plain')
          await new Koci().unpack({ image, bundle: plain, rootless })
          const tree = describeTree(path.join(plain, 'rootfs')).map(line =>
            line.replace(/ =\S+$/, ''),
          )
          for (const name of ['cold', 'warm']) {
            const extracted: number[] = []
            const bundle = path.join(base, name)
            const { rootfs, layers } = await chain(extracted).unpack({
              image,
              bundle,
              rootless,
            })
            t.strictSame(
              describeTree(rootfs).map(line => line.replace(/ =\S+$/, '')),
              tree,
              name,
            )
            t.equal(layers.filter(({ placed }) => placed?.report?.needsBelow).length, dependent)
            t.equal(new Set(layers.map(({ placed }) => placed?.by)).size, 1, 'one placed all')
            t.strictSame(fs.readdirSync(path.join(bundle, 'overlay/layers')), [])
            if (name === 'warm') t.strictSame(extracted, [], 'nothing extracted')
            await unmountBundle(chain(), { bundle })
          }

          const extracted: number[] = []
          const bundle = path.join(base, 'warm')
          await mountBundle(chain(extracted), { bundle })
          const rootfs = path.join(bundle, 'rootfs')
          fs.writeFileSync(path.join(rootfs, 'new'), 'new')
          fs.rmSync(path.join(rootfs, layers.length > 3 ? 'usr/lib/x' : 'd'), {
            recursive: true,
          })
          const changed = describeTree(rootfs)
          await chain(extracted).repack({ image: `${layout}:new`, bundle, refresh: true })
          t.strictSame(extracted, [layers.length], 'the new layer, for the store')
          t.strictSame(describeTree(rootfs), changed)
          t.strictSame([...(await listDelta(chain(), { bundle }))], [])
          await unmountBundle(chain(), { bundle })

          const again = path.join(base, 'again')
          const found: number[] = []
          await chain(found).unpack({ image: `${layout}:new`, bundle: again, rootless })
          t.strictSame(describeTree(path.join(again, 'rootfs')), changed)
          t.strictSame(found, [], 'the new image extracts nothing')
          await unmountBundle(chain(), { bundle: again })

          for (const name of fs.readdirSync(store))
            fs.rmSync(path.join(store, name), { recursive: true, force: true })
          await mountBundle(chain(), { bundle: again })
          t.strictSame(
            describeTree(path.join(again, 'rootfs')).map(line => line.replace(/ =\S+$/, '')),
            changed.map(line => line.replace(/ =\S+$/, '')),
            'the store is empty, and the layers are extracted again',
          )
          await unmountBundle(chain(), { bundle: again })
          const checked = path.join(base, 'checked')
          await new Koci()
            .use(mtree())
            .unpack({ image: `${layout}:new`, bundle: checked, rootless })
          t.strictSame(
            describeTree(path.join(checked, 'rootfs')).map(line => line.replace(/ =\S+$/, '')),
            changed.map(line => line.replace(/ =\S+$/, '')),
          )
        },
      )
}

if (namespace === undefined) await runInNamespaces(t, import.meta.filename)
else await inNamespace()
