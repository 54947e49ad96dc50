import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { execFileSync } from 'node:child_process'
import path from 'node:path'
import t from 'tap'
import { filter, Koci, map, type Driver, type RepackOptions } from '../../lib/index.ts'
import { change, type Change } from '../../lib/change.ts'
import { collectGarbage } from '../../lib/layout/gc.ts'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { openDescriptors } from '../support/descriptors.ts'
import { makeImage } from '../support/image.ts'

const rootless = process.geteuid?.() !== 0
const layers = [
  [
    { name: 'etc/', type: 'directory', mtime: 1_600_000_000 },
    { name: 'etc/motd', body: 'hello\n', mtime: 1_600_000_000 },
    { name: 'd/', type: 'directory', mtime: 1_600_000_000 },
  ],
] as const

async function setUp(t: { testdir(): string }) {
  const base = t.testdir()
  const images = path.join(base, 'images')
  const bundle = path.join(base, 'bundle')
  const image = await makeImage(images, 'test', { layers })
  const { rootfs } = await new Koci().use(mtree()).unpack({ image, bundle, rootless })
  const warnings: string[] = []
  return {
    base,
    images,
    bundle,
    rootfs,
    warnings,
    repack: async (driver?: Driver, options: Partial<RepackOptions> = {}) => {
      const app = new Koci()
      app.on('warning', ({ data }) => void warnings.push(data.code))
      if (driver) app.use(driver)
      const { changes } = await app
        .use(mtree())
        .repack({ image: `${images}:next`, bundle, ...options })
      return changes.map(({ kind, path }) => `${kind} ${path}`)
    },
    tags: async () => {
      const layout = await ImageLayout.open(images)
      const refs = await layout.refs()
      await layout.close()
      return refs.map(({ refName }) => refName)
    },
    /** What is in the new image, unpacked. */
    unpacked: async (name: string) => {
      const target = path.join(base, 'again')
      await new Koci().unpack({ image: `${images}:next`, bundle: target, rootless })
      return path.join(target, 'rootfs', name)
    },
  }
}

await t.test('a link whose file middleware dropped is no layer', async t => {
  const { rootfs, repack, tags } = await setUp(t)
  writeFileSync(path.join(rootfs, 'd/a'), 'x')
  linkSync(path.join(rootfs, 'd/a'), path.join(rootfs, 'd/b'))
  const dropper: Driver = {
    name: 'dropper',
    pack: async (ctx, next) => {
      await next()
      ctx.entries = filter(ctx.entries, ({ rawPath }) => String(rawPath) !== 'd/a')
    },
  }
  await t.rejects(repack(dropper), {
    code: 'ERR_KOCI_INVALID_ENTRY',
    message: /^d\/b: .*it is a link to d\/a, which isn't in the layer/,
  })
  t.same(await tags(), ['test'])
})

await t.test('a bundle whose way to its image leads elsewhere moves no tag', async t => {
  const { bundle, images, repack, tags } = await setUp(t)
  const mediaType = 'application/vnd.oci.image.index.v1+json'
  const layout = await ImageLayout.open(images)
  const empty = { schemaVersion: 2, mediaType, manifests: [] }
  const index = await layout.putBlob(Buffer.from(JSON.stringify(empty)), mediaType)
  await layout.close()
  const file = path.join(bundle, 'umoci.json')
  const umoci = JSON.parse(readFileSync(file, 'utf8'))
  umoci.from_descriptor_path.descriptor_walk.unshift(index)
  writeFileSync(file, JSON.stringify(umoci))
  await t.rejects(repack(), { code: 'ERR_KOCI_INVALID_INDEX', message: /doesn't hold sha256:/ })
  t.same(await tags(), ['test'])
})

for (const name of ['../../outside', 'd/../../outside', './d', 'd//x', '/etc/motd'])
  await t.test(`a lister that names ${name}`, async t => {
    const { repack, tags } = await setUp(t)
    const lister: Driver = {
      name: 'lister',
      delta: ctx => {
        ctx.changes = [change('A', Buffer.from(name))]
      },
    }
    await t.rejects(repack(lister), { code: /ERR_KOCI_(PATH_ESCAPE|INVALID_ENTRY)/ })
    t.same(await tags(), ['test'])
  })

await t.test('of a path that is listed twice the last word counts', async t => {
  const { rootfs, repack, unpacked } = await setUp(t)
  writeFileSync(path.join(rootfs, 'd/a'), 'x')
  linkSync(path.join(rootfs, 'd/a'), path.join(rootfs, 'd/b'))
  const list = (kind: Change['kind'], name: string): Change => change(kind, Buffer.from(name))
  const lister: Driver = {
    name: 'lister',
    delta: ctx => {
      ctx.changes = [
        list('D', 'd/a'),
        list('A', 'd/b'),
        list('A', 'd/a'),
        list('A', 'd/b'),
        list('A', 'etc/motd'),
        list('D', 'etc/motd'),
      ]
    },
  }
  t.same(await repack(lister), ['A d/a', 'A d/b', 'D etc/motd'])
  const again = await unpacked('')
  t.same(readdirSync(path.join(again, 'd')), ['a', 'b'])
  t.same(readdirSync(path.join(again, 'etc')), [])
})

await t.test('what the image shares with its base is not collected meanwhile', async t => {
  const { images, rootfs, repack, unpacked } = await setUp(t)
  writeFileSync(path.join(rootfs, 'd/new'), 'x')
  const collect = async (): Promise<void> => {
    const layout = await ImageLayout.open(images)
    try {
      await collectGarbage(layout)
    } finally {
      await layout.close()
    }
  }
  const untag = await ImageLayout.open(images)
  await untag.removeRef('test')
  await untag.close()
  await repack({
    name: 'collector',
    delta: async (_, next) => {
      await t.rejects(collect(), { code: 'ERR_KOCI_LOCKED' })
      await next()
    },
  })
  await collect()
  t.equal(readFileSync(await unpacked('etc/motd'), 'utf8'), 'hello\n')
  t.same(
    readdirSync(images).filter(name => name.startsWith('.koci-')),
    [],
  )
})

await t.test('aborted before the tag moves: the tag does not move', async t => {
  const { rootfs, repack, tags } = await setUp(t)
  writeFileSync(path.join(rootfs, 'd/new'), 'x')
  const controller = new AbortController()
  const aborter: Driver = {
    name: 'aborter',
    pack: async (ctx, next) => {
      await next()
      controller.abort()
      // entries of its own, which no longer look at the signal
      ctx.entries = map([], entry => entry)
    },
  }
  await t.rejects(repack(aborter, { signal: controller.signal }), { code: 'ERR_KOCI_ABORTED' })
  t.same(await tags(), ['test'])
})

const late: [what: string, driver: (bundle: string, abort: () => void) => Driver][] = [
  [
    'an abort in refresh',
    (_, abort) => ({
      name: 'late',
      refresh: async (ctx, next) => {
        await next()
        abort()
        ctx.signal.throwIfAborted()
      },
    }),
  ],
  [
    'a middleware that fails after next()',
    () => ({
      name: 'late',
      repack: async (_, next) => {
        await next()
        throw new RangeError('late')
      },
    }),
  ],
  [
    'metadata that cannot be written',
    bundle => ({
      name: 'late',
      repack: async (_, next) => {
        await next()
        mkdirSync(path.join(bundle, '.koci-umoci.json'))
      },
    }),
  ],
]
for (const [what, driver] of late)
  await t.test(`${what}, after the tag has moved, says that the image is complete`, async t => {
    const { bundle, rootfs, repack, tags } = await setUp(t)
    writeFileSync(path.join(rootfs, 'd/new'), 'x')
    const controller = new AbortController()
    const run = repack(
      driver(bundle, () => controller.abort()),
      { refresh: true, signal: controller.signal },
    )
    await t.rejects(run, { code: 'ERR_KOCI_NOT_REFRESHED', message: /image next is complete/ })
    t.same(await tags(), ['test', 'next'])
    rmSync(path.join(bundle, '.koci-umoci.json'), { recursive: true, force: true })
    t.same(await repack(), ['M d', 'A d/new'], 'the bundle is on its old base')
  })

await t.test(
  'a bundle that cannot be written can be packed',
  { skip: !rootless && 'root may write everywhere' },
  async t => {
    const { bundle, rootfs, repack, warnings } = await setUp(t)
    const motd = path.join(rootfs, 'etc/motd')
    writeFileSync(motd, 'hello\n')
    utimesSync(motd, 1_600_000_000, 1_600_000_000)
    chmodSync(bundle, 0o500)
    try {
      t.same(await repack(), [])
    } finally {
      chmodSync(bundle, 0o700)
    }
    t.same(warnings, ['INDEX_NOT_SAVED'])
  },
)

await t.test(
  'an owner without a mapping names the file',
  { skip: rootless && 'needs root: chown' },
  async t => {
    const base = t.testdir()
    const images = path.join(base, 'images')
    const bundle = path.join(base, 'bundle')
    const idMap = [{ containerID: 0, hostID: 100_000, size: 65_536 }]
    const image = await makeImage(images, 'test', { layers })
    const app = new Koci().use(mtree())
    const { rootfs } = await app.unpack({ image, bundle, uidMap: idMap, gidMap: idMap })
    writeFileSync(path.join(rootfs, "root's"), 'x')
    await t.rejects(app.repack({ image: `${images}:next`, bundle }), {
      code: 'ERR_KOCI_INVALID_ENTRY',
      message: /^root's: .*owner 0:0 is in no id map/,
    })
  },
)

await t.test('a bundle that was copied or moved has not changed', async t => {
  const { base, bundle, images } = await setUp(t)
  const [copy, moved] = [path.join(base, 'copy'), path.join(base, 'moved')]
  execFileSync('cp', ['-a', bundle, copy])
  renameSync(bundle, moved)
  for (const bundle of [copy, moved]) {
    const app = new Koci().use(mtree())
    const { changes } = await app.repack({ image: `${images}:next`, bundle, refresh: true })
    t.same(changes, [], bundle)
  }
})

await t.test('a rootfs that is a link to elsewhere is not entered', async t => {
  const { base, rootfs, repack, tags } = await setUp(t)
  renameSync(rootfs, path.join(base, 'elsewhere'))
  symlinkSync('../elsewhere', rootfs)
  await t.rejects(repack(), { code: 'ERR_KOCI_IO', message: /rootfs: ENOTDIR/ })
  t.same(await tags(), ['test'])
})

await t.test('failing runs leave no descriptors', async t => {
  const { rootfs, repack } = await setUp(t)
  for (const name of ['a', 'b', 'c']) writeFileSync(path.join(rootfs, 'd', name), name)
  const fail: Driver = {
    name: 'failing',
    pack: async (ctx, next) => {
      await next()
      ctx.entries = map(ctx.entries, entry => {
        if (String(entry.rawPath) === 'd/b') throw new RangeError('enough')
        return entry
      })
    },
  }
  await t.rejects(repack(fail), { code: 'ERR_KOCI_IO' })
  const before = openDescriptors()
  for (let run = 0; run < 10; run += 1) await t.rejects(repack(fail), { code: 'ERR_KOCI_IO' })
  t.equal(openDescriptors(), before)
  t.ok(existsSync(rootfs))
})
