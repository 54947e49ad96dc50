// A store and the driver know nothing of each other, and meet in one chain.
import * as fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { isMountPoint } from '../../../lib/fs/mount-table.ts'
import { Koci, listDelta, mountBundle, unmountBundle, type Driver } from '../../../lib/index.ts'
import { collect } from '../../../middleware/cache/collect.ts'
import { cache } from '../../../middleware/cache/index.ts'
import { Store } from '../../../middleware/cache/store.ts'
import { mtree } from '../../../middleware/mtree/index.ts'
import { overlay } from '../../../middleware/overlay/index.ts'
import { makeImage, type TestLayer } from '../../support/image.ts'
import { namespace, runInNamespaces } from '../../support/namespaces.ts'
import { run, temporary } from '../../support/peers.ts'
import type { TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'

t.setTimeout(900_000)
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

  await t.test(
    'the store keeps what a bundle needs, whichever of the two is in front',
    async t => {
      const base = temporary(t, 'with-cache')
      const store = path.join(base, 'store')
      const image = await makeImage(path.join(base, 'images'), 'test', {
        layers: [[{ name: 'd/x' }], [{ name: 'd/y' }]],
      })
      const chain = (): Koci =>
        new Koci().use(overlay()).use(cache({ dir: store, durable: false }))
      const gc = async (): Promise<number> => {
        const found = Store.find(store)
        if (!found) throw new RangeError('no store')
        const { layers } = await collect(found, { keepBytes: 0 })
        found.close()
        return layers
      }
      const bundle = path.join(base, 'bundle')
      const { rootfs } = await chain().unpack({ image, bundle, rootless })
      await unmountBundle(chain(), { bundle })
      t.equal(await gc(), 2, 'as unpacked')
      await mountBundle(chain(), { bundle })
      fs.writeFileSync(path.join(rootfs, 'new'), 'new')
      const changed = describeTree(rootfs)
      await chain().repack({ image: `${base}/images:new`, bundle, refresh: true })
      await unmountBundle(chain(), { bundle })
      t.equal(await gc(), 3, 'refreshed')
      await mountBundle(chain(), { bundle })
      t.strictSame(describeTree(rootfs), changed)
      await unmountBundle(chain(), { bundle })
    },
  )

  await t.test(
    'what an unpack was told to change is kept apart for as long as the bundle lives',
    async t => {
      const base = temporary(t, 'with-cache')
      const store = path.join(base, 'store')
      const images = path.join(base, 'images')
      const image = await makeImage(images, 'test', {
        layers: [[{ name: 'd/x' }, { name: 'd/secret' }], [{ name: 'd/y' }]],
      })
      const strip: Driver = {
        name: 'strip',
        async unpack(ctx, next) {
          ctx.extraction.addVariant('strip', 'strip')
          await next()
        },
        async layer({ layer }, next) {
          await next()
          fs.rmSync(path.join(layer.target ?? '', 'd/secret'), { force: true })
        },
      }
      const chain = (...drivers: Driver[]): Koci => {
        const app = new Koci().use(cache({ dir: store, durable: false }))
        for (const driver of drivers) app.use(driver)
        return app.use(overlay())
      }
      const keys = (): string[] => {
        const found = Store.find(store)
        if (!found) throw new RangeError('no store')
        return found.names().map(name => found.look(name)?.key?.variants.join() ?? 'none')
      }
      const bundle = path.join(base, 'bundle')
      const bystander: Driver = {
        name: 'bystander',
        unpack: (_ctx, next) => next(),
        layer: (_ctx, next) => next(),
      }
      const { rootfs } = await chain(bystander, strip).unpack({ image, bundle, rootless })
      const tree = describeTree(rootfs)
      t.notOk(fs.existsSync(path.join(rootfs, 'd/secret')))
      await unmountBundle(chain(strip), { bundle })
      await mountBundle(chain(strip), { bundle })
      t.strictSame(describeTree(rootfs), tree)
      fs.writeFileSync(path.join(rootfs, 'new'), 'new')
      await t.rejects(
        chain().repack({ image: `${images}:new`, bundle, refresh: true }),
        { code: 'ERR_KOCI_CHAIN_MISMATCH', message: /made with strip/ },
        'before there is a new image',
      )
      await chain(strip).repack({ image: `${images}:new`, bundle, refresh: true })
      t.notOk(fs.existsSync(path.join(rootfs, 'd/secret')))
      // nobody vouches for what is extracted later being what the variant names
      t.strictSame(keys().sort(), ['none', 'strip', 'strip'])
      t.strictSame(
        [...(await listDelta(chain(), { bundle }))],
        [],
        'nothing has to be extracted',
      )
      await unmountBundle(chain(), { bundle })
      fs.rmSync(store, { recursive: true })
      await t.rejects(mountBundle(chain(), { bundle }), {
        code: 'ERR_KOCI_CHAIN_MISMATCH',
        message: /made with strip/,
      })
      await mountBundle(chain(strip), { bundle })
      t.notOk(fs.existsSync(path.join(rootfs, 'd/secret')))
      t.notOk(keys().includes('strip'))
      const plain = path.join(base, 'plain')
      await chain().unpack({ image, bundle: plain, rootless })
      t.ok(fs.existsSync(path.join(plain, 'rootfs/d/secret')))
      for (const each of [bundle, plain]) await unmountBundle(chain(strip), { bundle: each })
    },
  )

  const special: [what: string, options: object, layers: TestLayer[]][] = [
    [
      'keepDirlinks',
      { keepDirlinks: true },
      [
        [{ name: 'usr/lib/a' }, { name: 'lib', type: 'symlink', linkname: 'usr/lib' }],
        [{ name: 'lib/', type: 'directory' }, { name: 'lib/foo' }],
      ],
    ],
    ['compat', { compat: 'clamp' }, [[{ name: 'a' }], [{ name: '../../b' }]]],
  ]
  for (const [what, options, layers] of special)
    await t.test(`${what} holds for as long as the bundle lives`, async t => {
      const base = temporary(t, 'with-cache')
      const images = path.join(base, 'images')
      const image = await makeImage(images, 'test', { layers })
      const extracted: number[] = []
      const chain = (): Koci => {
        const app = new Koci()
          .use(cache({ dir: path.join(base, 'store'), durable: false }))
          .use(overlay())
        app.on('layer:start', ({ data }) => {
          extracted.push(data.layer.index)
        })
        return app
      }
      const bundle = path.join(base, 'bundle')
      const { rootfs } = await chain().unpack({ image, bundle, rootless, ...options })
      const tree = describeTree(rootfs)
      await unmountBundle(chain(), { bundle })
      await mountBundle(chain(), { bundle })
      t.strictSame(describeTree(rootfs), tree)
      fs.rmSync(path.join(rootfs, what === 'compat' ? 'b' : 'lib/foo'))
      const changed = describeTree(rootfs)
      await chain().repack({ image: `${images}:new`, bundle, refresh: true })
      t.strictSame(describeTree(rootfs), changed)
      const before = extracted.length
      t.equal(extracted.at(-1), 2)
      const again = path.join(base, 'again')
      await chain().unpack({ image: `${images}:new`, bundle: again, rootless, ...options })
      t.equal(extracted.length, before, 'found under what they were made with')
      t.strictSame(describeTree(path.join(again, 'rootfs')), changed)
      for (const each of [bundle, again]) await unmountBundle(chain(), { bundle: each })
    })

  await t.test('a merged tree is the same whoever filled the store', async t => {
    const base = temporary(t, 'with-cache')
    const store = path.join(base, 'store')
    const image = await makeImage(path.join(base, 'images'), 'test', {
      layers: images[2]?.[1] ?? [],
    })
    const keep = (): Driver => cache({ dir: store, durable: false })
    const stacked = path.join(base, 'stacked')
    await new Koci().use(keep()).use(overlay()).unpack({ image, bundle: stacked, rootless })
    await unmountBundle(new Koci().use(keep()).use(overlay()), { bundle: stacked })
    const trees = await Promise.all(
      [new Koci(), new Koci().use(keep())].map(async (app, at) => {
        const { rootfs } = await app.unpack({
          image,
          bundle: path.join(base, String(at)),
          rootless,
        })
        return describeTree(rootfs)
      }),
    )
    t.strictSame(trees[1], trees[0])
    t.ok(
      trees[0]?.some(line => / =\S+$/.test(line)),
      'there are names of one file',
    )
  })

  await t.test('a refresh that fails is taken back', async t => {
    const base = temporary(t, 'with-cache')
    const layout = path.join(base, 'images')
    const layers = [[{ name: 'd/x' }], [{ name: 'd/y' }]]
    const image = await makeImage(layout, 'test', { layers })
    const weak: Driver = {
      name: 'weak',
      refresh() {
        throw new Error('no luck')
      },
    }
    const chain = (...outside: Driver[]): Koci => {
      const app = new Koci()
      for (const driver of outside) app.use(driver)
      return app.use(cache({ dir: path.join(base, 'store'), durable: false })).use(overlay())
    }
    const bundle = path.join(base, 'bundle')
    const { rootfs } = await chain().unpack({ image, bundle, rootless })
    fs.writeFileSync(path.join(rootfs, 'new'), 'new')
    const tree = describeTree(rootfs)
    await t.rejects(chain(weak).repack({ image: `${layout}:new`, bundle, refresh: true }), {
      code: 'ERR_KOCI_NOT_REFRESHED',
    })
    t.ok(isMountPoint(rootfs))
    t.strictSame(describeTree(rootfs), tree)
    await unmountBundle(chain(), { bundle })
  })
}

if (namespace === undefined) await runInNamespaces(t, import.meta.filename)
else await inNamespace()
