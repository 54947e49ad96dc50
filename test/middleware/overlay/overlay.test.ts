// The driver in its surroundings: what it refuses, what it leaves behind, what it finds again.
import * as fs from 'node:fs'
import path from 'node:path'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import t from 'tap'
import { cstring } from '../../../lib/fs/libc.ts'
import { findMounts, isMountPoint, readMounts } from '../../../lib/fs/mount-table.ts'
import { setxattr } from '../../../lib/fs/xattr-calls.ts'
import { Koci, listDelta, mountBundle, unmountBundle, type Driver } from '../../../lib/index.ts'
import { overlay } from '../../../middleware/overlay/index.ts'
import { makeImage, type TestLayer } from '../../support/image.ts'
import { isKernelBefore } from '../../support/kernel.ts'
import { memoryParent } from '../../support/memory-dir.ts'
import { namespace, runInNamespaces } from '../../support/namespaces.ts'
import { finish, ordinaryMissing, temporary } from '../../support/peers.ts'
import { describeTree } from '../../support/tree.ts'

t.setTimeout(900_000)
const rootless = namespace === 'user'
const lacksRoom = isKernelBefore(6, 7) && 'needs Linux 6.7: so many paths do not fit a page'
const layersOf = (count: number): TestLayer[] =>
  Array.from({ length: count }, (_, index) => [
    { name: 'd/', type: 'directory', mode: 0o755, mtime: 1 },
    { name: `d/${index}`, body: String(index), mtime: 1 },
  ])

async function setUp(
  t: Parameters<typeof temporary>[0],
  layers = layersOf(2),
  name = 'bundle',
) {
  const base = temporary(t, 'overlay', memoryParent())
  const images = path.join(base, 'images')
  const image = await makeImage(images, 'test', { layers, compression: 'none' })
  const bundle = path.join(base, name)
  return { base, images, image, bundle, rootfs: path.join(bundle, 'rootfs') }
}

const app = (...drivers: Driver[]): Koci => {
  const made = new Koci()
  for (const driver of drivers) made.use(driver)
  return made.use(overlay())
}

/** Mounts of the bundle, wherever they hang. */
const mountsOf = (base: string): number =>
  readMounts().filter(({ mountpoint }) => mountpoint.startsWith(base)).length

async function inNamespace(): Promise<void> {
  await t.test(
    'a bundle is mounted, unmounted, and mounted again with its changes',
    async t => {
      const { bundle, rootfs, image } = await setUp(t)
      await app().unpack({ image, bundle, rootless })
      fs.writeFileSync(path.join(rootfs, 'd/new'), 'new')
      await unmountBundle(app(), { bundle })
      await unmountBundle(app(), { bundle })
      t.strictSame(fs.readdirSync(rootfs), [])
      await mountBundle(app(), { bundle })
      await mountBundle(app(), { bundle })
      t.equal(findMounts(rootfs).length, 1)
      t.strictSame(fs.readdirSync(path.join(rootfs, 'd')).sort(), ['0', '1', 'new'])
      await unmountBundle(app(), { bundle })
    },
  )

  await t.test('layers are extracted once, and again where they are gone', async t => {
    const { bundle, rootfs, image } = await setUp(t, [
      [{ name: 'usr/lib/x' }, { name: 'lib', type: 'symlink', linkname: 'usr/lib' }],
      [{ name: 'lib/y' }],
      [{ name: 'usr/z' }, { name: 'usr/lib/.wh.x' }],
      [{ name: 'usr/zz', type: 'hardlink', linkname: 'usr/lib/y' }],
    ])
    const mountAgain = async (): Promise<number[]> => {
      const extracted: number[] = []
      const counting = app()
      counting.on('layer:start', ({ data }) => {
        extracted.push(data.layer.index)
      })
      await mountBundle(counting, { bundle })
      return extracted.sort((a, b) => a - b)
    }
    await app().unpack({ image, bundle, rootless })
    const tree = describeTree(rootfs)
    await unmountBundle(app(), { bundle })
    t.strictSame(await mountAgain(), [], 'nothing')
    await unmountBundle(app(), { bundle })
    fs.rmSync(path.join(bundle, 'overlay/layers'), { recursive: true })
    fs.mkdirSync(path.join(bundle, 'overlay/layers'))
    t.strictSame(await mountAgain(), [0, 1, 2, 3], 'those that depend on others at once on top')
    t.strictSame(describeTree(rootfs), tree)
    await unmountBundle(app(), { bundle })
    t.strictSame(await mountAgain(), [], 'and kept')
    t.strictSame(describeTree(rootfs), tree)
    await unmountBundle(app(), { bundle })
  })

  await t.test('a bundle that was moved is mounted where it is', async t => {
    const { base, bundle, image } = await setUp(t)
    await app().unpack({ image, bundle, rootless })
    await unmountBundle(app(), { bundle })
    const moved = path.join(base, 'a:b, c\\d')
    fs.renameSync(bundle, moved)
    await mountBundle(app(), { bundle: moved })
    t.strictSame(fs.readdirSync(path.join(moved, 'rootfs/d')).sort(), ['0', '1'])
    t.strictSame([...(await listDelta(app(), { bundle: moved }))], [])
    await unmountBundle(app(), { bundle: moved })
  })

  await t.test('a bundle whose image is gone is unmounted all the same', async t => {
    const { bundle, rootfs, images, image } = await setUp(t)
    await app().unpack({ image, bundle, rootless })
    fs.renameSync(images, `${images}-moved`)
    await t.rejects(listDelta(app(), { bundle }), { code: 'ERR_KOCI_INVALID_LAYOUT' })
    await unmountBundle(app(), { bundle })
    t.notOk(isMountPoint(rootfs))
    await mountBundle(app(), { bundle, layout: `${images}-moved` })
    await unmountBundle(app(), { bundle })
    const curious: Driver = {
      name: 'curious',
      async unmount({ image }, next) {
        t.ok(image.layout)
        await next()
      },
    }
    await t.rejects(unmountBundle(app(curious), { bundle }), {
      code: 'ERR_KOCI_INVALID_LAYOUT',
    })
  })

  for (const [name, count] of [
    ['a:b', 3],
    ['a,b\\c d', 3],
    ['x'.repeat(250), 3],
    ['long/'.repeat(60) + 'path', 3],
    ['many', 100],
    ['very many', 300],
  ] as const) {
    const skip = count >= 100 && lacksRoom
    await t.test(
      `${count} layers in a bundle named ${name.slice(0, 20)}`,
      { skip },
      async t => {
        const layers = layersOf(count)
        const { bundle, rootfs, image } = await setUp(t, layers, name)
        await app().unpack({ image, bundle, rootless })
        t.equal(fs.readdirSync(path.join(rootfs, 'd')).length, count)
        fs.rmSync(path.join(rootfs, 'd/0'))
        const changes = await listDelta(app(), { bundle })
        t.strictSame(
          changes.map(({ kind, path }) => `${kind} ${path}`),
          ['M d', 'D d/0'],
        )
        await unmountBundle(app(), { bundle })
      },
    )
  }

  const one = '300 layers with a seam each get one seam, because 500 is the most'
  await t.test(one, { skip: lacksRoom }, async t => {
    const layers = Array.from({ length: 300 }, (_, index) => [
      ...(index % 7 === 0
        ? [{ name: 'd/', type: 'directory', mode: 0o700 + index, mtime: index } as const]
        : []),
      { name: `d/${index}`, body: '', mtime: 1 },
      { name: `d/.wh.${index - 5}` },
      { name: `hollow-${index}/.wh.x` },
    ])
    const { base, bundle, rootfs, image } = await setUp(t, layers)
    await app().unpack({ image, bundle, rootless })
    const other = path.join(base, 'plain')
    await new Koci().unpack({ image, bundle: other, rootless })
    t.strictSame(describeTree(rootfs), describeTree(path.join(other, 'rootfs')))
    await unmountBundle(app(), { bundle })
  })

  await t.test('more than 500 layers are refused, and nothing is left', async t => {
    const { base, bundle, image } = await setUp(t, layersOf(501))
    await t.rejects(app().unpack({ image, bundle, rootless }), {
      code: 'ERR_KOCI_LIMIT_EXCEEDED',
    })
    t.notOk(fs.existsSync(bundle))
    t.equal(mountsOf(base), 0)
  })

  for (const step of ['mount', 'config'] as const)
    await t.test(`an unpack that fails in ${step} leaves nothing`, async t => {
      const { base, bundle, image } = await setUp(t)
      const failing: Driver = {
        name: 'failing',
        [step]: async (_: unknown, next: () => Promise<void>) => {
          await next()
          throw new Error('on purpose')
        },
      }
      await t.rejects(app(failing).unpack({ image, bundle, rootless }), {
        code: 'ERR_KOCI_MIDDLEWARE_FAILED',
      })
      t.notOk(fs.existsSync(bundle))
      t.equal(mountsOf(base), 0)
    })

  await t.test(
    'a failed unpack leaves nothing, though somebody else has its mount, too',
    async t => {
      const { base, bundle, image } = await setUp(t)
      const args = ['-m', '--propagation', 'private', 'sh', '-c', 'echo; read x']
      let holder: ReturnType<typeof spawn> | undefined
      const failing: Driver = {
        name: 'failing',
        config: async () => {
          holder = spawn('unshare', args)
          if (holder.stdout) await once(holder.stdout, 'data')
          throw new Error('on purpose')
        },
      }
      await t.rejects(app(failing).unpack({ image, bundle, rootless }), {
        code: 'ERR_KOCI_MIDDLEWARE_FAILED',
      })
      t.notOk(fs.existsSync(bundle))
      t.equal(mountsOf(base), 0)
      holder?.stdin?.end()
      if (holder) await once(holder, 'exit')
    },
  )

  await t.test('a layer that fails on top of others leaves nothing', async t => {
    const { base, bundle, image } = await setUp(t, [
      [{ name: 'a', body: 'a' }],
      [
        { name: 'b', type: 'hardlink', linkname: 'a' },
        { name: 'c', type: 'hardlink', linkname: 'nothing' },
      ],
    ])
    await t.rejects(app().unpack({ image, bundle, rootless }), {
      code: 'ERR_KOCI_INVALID_ENTRY',
    })
    t.notOk(fs.existsSync(bundle))
    t.equal(mountsOf(base), 0)
  })

  await t.test('a rerun undoes what a killed unpack mounted', async t => {
    const { base, bundle, rootfs, image } = await setUp(t)
    const script = `
      import { Koci, overlay } from ${JSON.stringify(path.resolve('middleware/index.ts'))}
      const dead = { name: 'dead', async config() { process.kill(process.pid, 'SIGKILL') } }
      await new Koci().use(dead).use(overlay()).unpack(${JSON.stringify({ image, bundle, rootless })})`
    const { status } = finish(process.execPath, ['--input-type=module', '-e', script])
    t.equal(status, null, 'killed')
    t.ok(isMountPoint(rootfs))
    await app().unpack({ image, bundle, rootless })
    t.equal(mountsOf(base), 1)
    t.strictSame(fs.readdirSync(path.join(rootfs, 'd')).sort(), ['0', '1'])
    await unmountBundle(app(), { bundle })
  })

  for (const [step, isNew] of [
    ['refresh', false],
    ['mount', true],
  ] as const)
    await t.test(`after a refresh that is killed in ${step} the next run goes on`, async t => {
      const { images, bundle, rootfs, image } = await setUp(t)
      await app().unpack({ image, bundle, rootless })
      fs.writeFileSync(path.join(rootfs, 'new'), 'new')
      fs.writeFileSync(path.join(rootfs, 'masked'), 'masked')
      const tree = describeTree(rootfs)
      const options = { image: `${images}:new`, bundle, refresh: true, maskPaths: ['/masked'] }
      const script = `
        import { Koci, overlay } from ${JSON.stringify(path.resolve('middleware/index.ts'))}
        const dead = { name: 'dead', async ${step}(ctx, next) {
          await next()
          if (ctx.newLayers ?? ctx.layers.length > 2) process.kill(process.pid, 'SIGKILL')
        } }
        await new Koci().use(dead).use(overlay()).repack(${JSON.stringify(options)})`
      const { status } = finish(process.execPath, ['--input-type=module', '-e', script])
      t.equal(status, null, 'killed')
      t.equal(isMountPoint(rootfs), isNew)
      if (isNew) {
        fs.writeFileSync(path.join(rootfs, 'later'), 'later')
        const paths = (await listDelta(app(), { bundle })).map(({ path }) => path)
        t.strictSame(paths, ['', 'later', 'masked'], 'it is on its new base')
        fs.rmSync(path.join(rootfs, 'later'))
      }
      const warnings: string[] = []
      const warned = app()
      warned.on('warning', ({ data }) => {
        warnings.push(data.code)
      })
      await warned.repack(options)
      t.strictSame(warnings, [])
      t.strictSame(describeTree(rootfs).slice(1), tree.slice(1))
      t.strictSame(
        (await listDelta(app(), { bundle }))
          .map(({ path }) => path)
          .filter(name => name !== ''),
        ['masked'],
      )
      const uppers = fs.readdirSync(path.join(bundle, 'overlay'))
      t.equal(uppers.filter(name => name.startsWith('upper-')).length, 1, 'no other is left')
      await unmountBundle(app(), { bundle })
    })

  await t.test('a koci.json that is older than the bundle loses nothing', async t => {
    const { images, bundle, rootfs, image } = await setUp(t)
    await app().unpack({ image, bundle, rootless })
    const old = fs.readFileSync(path.join(bundle, 'koci.json'))
    fs.writeFileSync(path.join(rootfs, 'new'), 'new')
    await app().repack({ image: `${images}:new`, bundle, refresh: true })
    fs.writeFileSync(path.join(rootfs, 'later'), 'later')
    fs.writeFileSync(path.join(bundle, 'koci.json'), old)
    const wrong = { code: 'ERR_KOCI_INVALID_BUNDLE', message: /upper-2 is mounted/ }
    await t.rejects(listDelta(app(), { bundle }), wrong)
    await t.rejects(mountBundle(app(), { bundle }), wrong)
    await unmountBundle(app(), { bundle })
    const warnings: string[] = []
    const warned = app()
    warned.on('warning', ({ data }) => {
      warnings.push(data.code)
    })
    await mountBundle(warned, { bundle })
    t.strictSame(warnings, ['UPPER_LEFT'])
    t.ok(fs.existsSync(path.join(bundle, 'overlay/upper-2/later')))
    await unmountBundle(app(), { bundle })
  })

  await t.test('a refresh whose mount fails is taken back', async t => {
    const { images, bundle, rootfs, image } = await setUp(t)
    await app().unpack({ image, bundle, rootless })
    fs.writeFileSync(path.join(rootfs, 'new'), 'new')
    const files = ['koci.json', 'umoci.json'].map(name => path.join(bundle, name))
    const before = files.map(file => fs.readFileSync(file, 'utf8'))
    const tree = describeTree(rootfs)
    const weak: Driver = {
      name: 'weak',
      async mount(ctx, next) {
        await next()
        if (ctx.layers.length > 2) throw new Error('no luck')
      },
    }
    await t.rejects(
      new Koci()
        .use(weak)
        .use(overlay())
        .repack({ image: `${images}:new`, bundle, refresh: true }),
      { code: 'ERR_KOCI_NOT_REFRESHED', cause: { message: 'no luck' } },
    )
    t.strictSame(
      files.map(file => fs.readFileSync(file, 'utf8')),
      before,
    )
    t.strictSame(describeTree(rootfs), tree)
    t.equal((await listDelta(app(), { bundle })).length, 2, 'it is on its old base')
    t.notOk(fs.existsSync(path.join(bundle, 'overlay/upper-2')))
    await unmountBundle(app(), { bundle })
  })

  await t.test('what uses the rootfs keeps it mounted, and is told', async t => {
    const { images, bundle, rootfs, image } = await setUp(t)
    await app().unpack({ image, bundle, rootless })
    fs.writeFileSync(path.join(rootfs, 'new'), 'new')
    const user = spawn('sleep', ['60'], { cwd: rootfs })
    await once(user, 'spawn')
    try {
      await t.rejects(unmountBundle(app(), { bundle }), {
        code: 'ERR_KOCI_MOUNT_BUSY',
        message: new RegExp(`${user.pid} \\((sleep|node|MainThread)\\)`),
      })
      await t.rejects(app().repack({ image: `${images}:new`, bundle, refresh: true }), {
        code: 'ERR_KOCI_NOT_REFRESHED',
        cause: { code: 'ERR_KOCI_MOUNT_BUSY' },
      })
      t.ok(isMountPoint(rootfs), 'still mounted')
      t.equal((await listDelta(app(), { bundle })).length, 2, 'and on its old base')
    } finally {
      user.kill()
      await once(user, 'exit')
    }
    await app().repack({ image: `${images}:new`, bundle, refresh: true })
    t.strictSame([...(await listDelta(app(), { bundle }))], [])
    await unmountBundle(app(), { bundle })
  })

  await t.test(
    'another mount namespace that holds the mount keeps it from a refresh',
    async t => {
      const { images, bundle, rootfs, image } = await setUp(t)
      await app().unpack({ image, bundle, rootless })
      fs.writeFileSync(path.join(rootfs, 'new'), 'new')
      const holder = spawn('unshare', [
        '-m',
        '--propagation',
        'private',
        'sh',
        '-c',
        'echo; read x',
      ])
      await once(holder.stdout, 'data')
      try {
        for (const run of [
          (): Promise<unknown> =>
            app().repack({ image: `${images}:new`, bundle, refresh: true }),
          (): Promise<unknown> => unmountBundle(app(), { bundle }),
        ])
          await t.rejects(run(), {
            code: 'ERR_KOCI_MOUNT_BUSY',
            message: new RegExp(`process ${holder.pid} in mount namespace`),
          })
        const index = fs.readFileSync(path.join(images, 'index.json'), 'utf8')
        t.notMatch(index, /"new"/, 'nothing was packed in vain')
      } finally {
        holder.stdin.end()
        await once(holder, 'exit')
      }
      await unmountBundle(app(), { bundle })
    },
  )

  await t.test('a refresh that fails leaves the bundle on its old base', async t => {
    const { images, bundle, rootfs, image } = await setUp(t)
    await app().unpack({ image, bundle, rootless })
    fs.writeFileSync(path.join(rootfs, 'new'), 'new')
    const tree = describeTree(rootfs)
    const failures: Driver[] = [
      {
        name: 'failing',
        refresh: async (_, next) => {
          await next()
          throw new Error('on purpose')
        },
      },
      {
        name: 'failing',
        mount: async (ctx, next) => {
          await next()
          if (ctx.layers.length > 2) throw new Error('on purpose')
        },
      },
    ]
    for (const failing of failures) {
      await t.rejects(app(failing).repack({ image: `${images}:new`, bundle, refresh: true }), {
        code: 'ERR_KOCI_NOT_REFRESHED',
      })
      t.strictSame(describeTree(rootfs), tree)
      t.equal((await listDelta(app(), { bundle })).length, 2)
      t.strictSame(
        fs.readdirSync(path.join(bundle, 'overlay')).filter(name => /^(upper|work)/.test(name)),
        ['upper-1', 'work-1'],
      )
    }
    await unmountBundle(app(), { bundle })
  })

  await t.test('what was masked stays in the bundle', async t => {
    const { images, bundle, rootfs, image } = await setUp(t)
    await app().unpack({ image, bundle, rootless })
    fs.rmSync(path.join(rootfs, 'd'), { recursive: true })
    fs.mkdirSync(path.join(rootfs, 'd/secret'), { recursive: true })
    fs.writeFileSync(path.join(rootfs, 'd/secret/key'), 'key')
    fs.writeFileSync(path.join(rootfs, 'd/shown'), 'shown')
    const tree = describeTree(rootfs)
    const maskPaths = ['/d/secret', '/d/0']
    await app().repack({ image: `${images}:new`, bundle, refresh: true, maskPaths })
    t.strictSame(describeTree(rootfs), tree)
    t.strictSame(
      (await listDelta(app(), { bundle })).map(({ kind, path }) => `${kind} ${path}`),
      ['D d/0', 'A d/secret', 'A d/secret/key'],
    )
    await unmountBundle(app(), { bundle })
  })

  for (const [mark, name, reason] of [
    ['redirect', 'd', /redirect_dir/],
    ['metacopy', 'd/0', /metacopy/],
  ] as const)
    await t.test(`an upper directory with ${mark} isn't guessed at`, async t => {
      const { bundle, rootfs, image } = await setUp(t)
      await app().unpack({ image, bundle, rootless })
      fs.chmodSync(path.join(rootfs, name), 0o700)
      await unmountBundle(app(), { bundle })
      const attribute = `${rootless ? 'user' : 'trusted'}.overlay.${mark}`
      const target = path.join(bundle, 'overlay/upper-1', name)
      t.equal(setxattr(cstring(target), cstring(attribute), Buffer.from('/x')), 0)
      await t.rejects(listDelta(app(), { bundle }), {
        code: 'ERR_KOCI_UPPER_UNREADABLE',
        message: reason,
      })
    })

  await t.test('something else that is mounted at the rootfs is left alone', async t => {
    const { bundle, rootfs, image } = await setUp(t)
    await app().unpack({ image, bundle, rootless })
    await unmountBundle(app(), { bundle })
    finish('mount', ['-t', 'tmpfs', 'none', rootfs])
    for (const run of [mountBundle, unmountBundle])
      await t.rejects(run(app(), { bundle }), {
        code: 'ERR_KOCI_MOUNT_FAILED',
        message: /something else \(tmpfs\) is mounted there/,
      })
    finish('umount', [rootfs])
  })

  await t.test('a koci.json that somebody edited', async t => {
    const { bundle, image } = await setUp(t)
    await app().unpack({ image, bundle, rootless })
    await unmountBundle(app(), { bundle })
    const file = path.join(bundle, 'koci.json')
    const state = JSON.parse(fs.readFileSync(file, 'utf8'))
    for (const wrong of [
      { upper: '../../x', layers: [], seams: {} },
      { upper: 1, layers: ['../../etc'], seams: {} },
      { upper: 1, layers: [], seams: { '../x': true } },
      { upper: 1, layers: [], seams: null },
      [],
    ]) {
      fs.writeFileSync(file, JSON.stringify({ ...state, drivers: { overlay: wrong } }))
      await t.rejects(mountBundle(app(), { bundle }), { code: 'ERR_KOCI_INVALID_BUNDLE' })
    }
  })
}

if (namespace === undefined) {
  await t.test(
    'without the privilege to mount nothing is begun',
    { skip: ordinaryMissing() },
    async t => {
      const { base, image } = await setUp(t)
      fs.chmodSync(base, 0o777)
      const bundle = path.join(base, 'ordinary')
      const script = `
      import { Koci, overlay } from ${JSON.stringify(path.resolve('middleware/index.ts'))}
      import { explainUnpack } from ${JSON.stringify(path.resolve('lib/explain.ts'))}
      const app = new Koci().use(overlay())
      const options = ${JSON.stringify({ image, bundle, rootless: true })}
      await app.unpack(options).catch(({ code, message }) => console.log(code, message))
      const { obstacle, extraction, layers } = await explainUnpack(app, options)
      console.log(obstacle.code, extraction.layering, layers.length)`
      const { stdout } = finish(process.execPath, ['--input-type=module', '-e', script], {
        ordinary: true,
      })
      t.match(
        stdout,
        /^ERR_KOCI_UNSUPPORTED_PLATFORM overlay\(\): it needs CAP_SYS_ADMIN .*unshare -Urm/,
      )
      t.match(stdout, /^ERR_KOCI_UNSUPPORTED_PLATFORM stacked 2$/m, 'explained all the same')
      t.notOk(fs.existsSync(bundle))
    },
  )
  await runInNamespaces(t, import.meta.filename)
} else await inNamespace()
