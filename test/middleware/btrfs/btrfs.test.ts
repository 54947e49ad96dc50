// The driver on a real btrfs: what it finds, what it keeps, what it lists, and what is left when things go wrong.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { createSubvolume } from '../../../lib/fs/btrfs.ts'
import { Koci, listDelta, type Driver } from '../../../lib/index.ts'
import type { UnpackOptions } from '../../../lib/unpack.ts'
import { btrfs } from '../../../middleware/btrfs/index.ts'
import { mtree } from '../../../middleware/mtree/index.ts'
import { mountpoint, onFileSystem } from '../../support/btrfs.ts'
import { makeImage } from '../../support/image.ts'
import { threeLayers } from '../../support/store.ts'
import { describeTree } from '../../support/tree.ts'

let count = 0

/** A store, an image in a layout, and room for bundles. */
async function workshop(base: string, layers = threeLayers) {
  const home = path.join(base, `work-${count++}`)
  fs.mkdirSync(home)
  const images = path.join(home, 'images')
  const image = await makeImage(images, 'a', { layers })
  const dir = path.join(home, 'store')
  let bundles = 0
  const unpack = async (
    {
      outside = [],
      inside = [],
    }: { outside?: readonly Driver[]; inside?: readonly Driver[] } = {},
    options: Partial<UnpackOptions> = {},
  ) => {
    const app = new Koci()
    const extracted: number[] = []
    for (const driver of [...outside, btrfs({ dir }), ...inside]) app.use(driver)
    app.use(async (ctx, next) => {
      await next()
      extracted.push(ctx.layer.index)
    })
    const warnings: string[] = []
    app.on('warning', ({ data }) => {
      warnings.push(data.code)
    })
    const bundle = path.join(home, `bundle-${bundles++}`)
    const result = await app.unpack({ image, bundle, ...options })
    return { ...result, app, extracted, warnings }
  }
  const parts = (part: string): string[] => fs.readdirSync(path.join(dir, 'btrfs-v1', part))
  return { home, images, image, dir, unpack, parts }
}

async function plainTree(home: string, image: string): Promise<string[]> {
  const bundle = path.join(home, 'plain')
  const { rootfs } = await new Koci().unpack({ image, bundle })
  const tree = describeTree(rootfs)
  fs.rmSync(bundle, { recursive: true })
  return tree
}

async function onBtrfs(base: string): Promise<void> {
  await t.test('chains are kept, and found', async t => {
    const { home, image, images, dir, unpack, parts } = await workshop(base)
    const expected = await plainTree(home, image)
    const cold = await unpack()
    t.strictSame(cold.extracted, [0, 1, 2])
    t.strictSame(describeTree(cold.rootfs), expected)
    t.equal(parts('chains').length, 3)

    fs.renameSync(path.join(images, 'blobs/sha256'), path.join(images, 'hidden'))
    fs.mkdirSync(path.join(images, 'blobs/sha256'))
    for (const name of fs.readdirSync(path.join(images, 'hidden')))
      if (!cold.layers.some(({ digest }) => digest.endsWith(name)))
        fs.copyFileSync(
          path.join(images, 'hidden', name),
          path.join(images, 'blobs/sha256', name),
        )
    const warm = await unpack()
    t.strictSame(warm.extracted, [], 'no blob is opened')
    t.ok(warm.layers.every(({ placed }) => placed?.by === 'btrfs' && placed.verified))
    t.strictSame(describeTree(warm.rootfs), expected)
    fs.writeFileSync(path.join(warm.rootfs, 'a'), 'changed')
    t.strictSame(
      describeTree((await unpack()).rootfs),
      expected,
      'bundles share nothing that can change',
    )
    fs.rmSync(path.join(images, 'blobs/sha256'), { recursive: true })
    fs.renameSync(path.join(images, 'hidden'), path.join(images, 'blobs/sha256'))

    const { layers } = cold
    const longer = await makeImage(images, 'b', {
      layers: [...threeLayers, [{ name: 'd/.wh..wh..opq' }, { name: 'd/z', body: 'z' }]],
    })
    const app = new Koci().use(btrfs({ dir }))
    const next = await app.unpack({ image: longer, bundle: path.join(home, 'longer') })
    t.strictSame(
      next.layers.map(({ extracted }) => extracted),
      [false, false, false, true],
    )
    t.strictSame(describeTree(next.rootfs), await plainTree(home, longer))
    t.equal(layers.length, 3)

    const otherwise = await unpack({}, { keepDirlinks: true })
    t.strictSame(otherwise.extracted, [0, 1, 2], 'other options are another chain')
    fs.rmSync(path.dirname(warm.rootfs), { recursive: true })
    t.notOk(fs.existsSync(warm.rootfs), 'a bundle is removed as any other')
  })

  await t.test('what isn’t just the layers is not kept', async t => {
    const { unpack, parts } = await workshop(base)
    const taint: Driver = {
      name: 'taint',
      async layer(ctx, next) {
        await next()
        if (ctx.layer.index === 1) ctx.layer.taint('for a test')
      },
    }
    await unpack({ inside: [taint] })
    t.equal(parts('chains').length, 1)
    const variant: Driver = {
      name: 'variant',
      async unpack(ctx, next) {
        ctx.extraction.addVariant('test', 'for a test')
        await next()
      },
    }
    t.strictSame((await unpack({ inside: [variant] })).extracted, [0, 1, 2])
    const tainted: Driver = {
      name: 'tainted',
      async locate(ctx, next) {
        ctx.layer.taint('for a test')
        await next()
      },
    }
    await t.rejects(unpack({ outside: [tainted] }), { code: 'ERR_KOCI_LAYER_SHARED' })
  })

  await t.test('changes are listed, packed, and the bundle refreshed', async t => {
    const { home, images, unpack, parts, dir } = await workshop(base)
    const { app, rootfs, bundle, warnings } = await unpack()
    t.strictSame([...(await listDelta(app, { bundle }))], [])
    fs.renameSync(path.join(rootfs, 'd'), path.join(rootfs, 'e'))
    fs.writeFileSync(path.join(rootfs, 'e/new'), 'new')
    fs.rmSync(path.join(rootfs, 'b'))
    const tree = describeTree(rootfs)
    const { changes } = await app.repack({ image: `${images}:new`, bundle, refresh: true })
    t.strictSame(
      changes.map(({ kind, path }) => `${kind} ${path}`),
      ['M ', 'D b', 'D d', 'A e', 'A e/new'],
    )
    t.strictSame([...(await listDelta(app, { bundle }))], [])
    t.strictSame(describeTree(rootfs), tree)

    const again = new Koci().use(btrfs({ dir }))
    const fresh = await again.unpack({
      image: `${images}:new`,
      bundle: path.join(home, 'fresh'),
    })
    t.ok(
      fresh.layers.every(({ placed }) => placed?.by === 'btrfs'),
      'the produced chain is there at once',
    )
    t.strictSame(describeTree(fresh.rootfs), tree)

    fs.writeFileSync(path.join(rootfs, 'a'), 'second')
    const second = await app.repack({ image: `${images}:second`, bundle, refresh: true })
    t.strictSame(
      second.changes.map(({ kind, path }) => `${kind} ${path}`),
      ['M a'],
    )
    t.equal(parts('bases').length, 2, 'old bases are gone')
    const unchanged = await app.repack({ image: `${images}:same`, bundle, refresh: true })
    t.strictSame([...unchanged.changes], [])
    t.strictSame(warnings, [])
  })

  await t.test('what was left out of a layer is still a change after a refresh', async t => {
    const { images, unpack } = await workshop(base)
    const { app, rootfs, bundle } = await unpack()
    fs.writeFileSync(path.join(rootfs, 'kept'), 'kept')
    fs.mkdirSync(path.join(rootfs, 'masked'))
    fs.writeFileSync(path.join(rootfs, 'masked/x'), 'x')
    await app.repack({
      image: `${images}:new`,
      bundle,
      refresh: true,
      maskPaths: ['/masked'],
    })
    const changes = await listDelta(app, { bundle })
    t.strictSame(
      changes.map(({ kind, path }) => `${kind} ${path}`),
      ['A masked', 'A masked/x'],
    )
  })

  for (const isPacked of [true, false])
    await t.test(
      `what was listed ${isPacked ? 'becomes the base' : 'and not packed like that is still a change'}`,
      async t => {
        const { images, unpack, parts, dir } = await workshop(base)
        const { rootfs, bundle } = await unpack()
        const [file, link] = [path.join(rootfs, 'file'), path.join(rootfs, 'link')]
        fs.writeFileSync(file, isPacked ? '' : 'new')
        fs.symlinkSync('one', link)
        const turn = (mode: number, target: string): void => {
          fs.chmodSync(file, mode)
          fs.rmSync(link)
          fs.symlinkSync(target, link)
        }
        const meanwhile: Driver = {
          name: 'meanwhile',
          async pack(ctx, next) {
            await next()
            const { entries } = ctx
            if (isPacked || !entries) return
            ctx.entries = (async function* () {
              turn(0o600, 'two')
              yield* entries
              turn(0o644, 'one')
            })()
          },
        }
        const app = new Koci().use(btrfs({ dir })).use(meanwhile)
        const listed = fs.statSync(file, { bigint: true }).ctimeNs
        await app.repack({ image: `${images}:new`, bundle, refresh: true })
        const changes = await listDelta(app, { bundle })
        t.strictSame(
          changes.map(({ kind, path }) => `${kind} ${path}`),
          isPacked ? [] : ['M ', 'M file', 'M link'],
        )
        const [name = ''] = parts('bases')
        const snapshot = path.join(dir, 'btrfs-v1', 'snapshots', path.parse(name).name)
        const { ctimeNs } = fs.statSync(path.join(snapshot, 'file'), { bigint: true })
        t.equal(ctimeNs === listed, isPacked, 'a snapshot of the rootfs, or of the layers')
      },
    )

  await t.test('who can’t list leaves it to the next one', async t => {
    const { images, unpack, dir } = await workshop(base)
    const nested = await unpack({ inside: [mtree()] })
    createSubvolume(path.join(nested.rootfs, 'sub'))
    const { changes } = await nested.app.repack({ image: `${images}:n`, bundle: nested.bundle })
    t.strictSame(
      changes.map(({ kind, path }) => `${kind} ${path}`),
      ['M ', 'A sub'],
    )
    t.strictSame(nested.warnings, ['SNAPSHOTS_NOT_COMPARED'])

    const { app, bundle, warnings } = await unpack()
    fs.rmSync(path.join(dir, 'btrfs-v1/bases'), { recursive: true })
    await t.rejects(listDelta(app, { bundle }), { code: 'ERR_KOCI_NO_DELTA_LISTER' })
    t.strictSame(warnings, ['SNAPSHOTS_NOT_COMPARED'])
  })

  await t.test('one store is enough', async t => {
    const { home, unpack } = await workshop(base)
    await unpack()
    const place: Driver = {
      name: 'other',
      async locate(ctx, next) {
        if (ctx.layer.index === 1) ctx.layer.place({ by: 'other', verified: true })
        else await next()
      },
    }
    await t.rejects(unpack({ outside: [place] }), { code: 'ERR_KOCI_CLOBBER' })
    t.notOk(fs.existsSync(path.join(home, 'bundle-1')), 'and nothing is left')
  })

  await t.test('several processes make each chain once', async t => {
    const { home, image, dir, parts } = await workshop(base)
    const expected = await plainTree(home, image)
    const script = path.join(import.meta.dirname, '../../support/btrfs-child.ts')
    const start = async (bundle: string, ...when: string[]) => {
      const args = [script, dir, image, path.join(home, bundle), ...when]
      const child = spawn(process.execPath, args, {
        stdio: ['ignore', 'pipe', 'inherit'],
        timeout: 60_000,
      })
      let stdout = ''
      child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
      const [code, signal] = await once(child, 'close')
      return { code, signal, extracted: stdout.split(' ')[0] ?? '' }
    }
    const outcomes = await Promise.all([
      ...['one', 'two', 'three'].map(bundle => start(bundle)),
      // whoever waits for it goes on
      start('killed', 'layer:1'),
    ])
    const [killed] = outcomes.splice(3)
    t.ok(outcomes.every(({ code }) => code === 0))
    const extracted = outcomes.flatMap(each => JSON.parse(each.extracted) as number[])
    t.strictSame(
      extracted.toSorted((a, b) => a - b),
      [0, 1, 2],
    )
    t.ok(
      killed?.signal === 'SIGKILL' || killed?.extracted === '[]',
      'it was first, or had nothing to do',
    )
    for (const bundle of ['one', 'two', 'three'])
      t.strictSame(describeTree(path.join(home, bundle, 'rootfs')), expected)
    t.equal(parts('chains').length, 3)
  })

  await t.test('who waits can be told to stop', async t => {
    const { home, image, dir } = await workshop(base)
    const abort = new AbortController()
    const app = new Koci().use({
      name: 'outside',
      async layer(_, next) {
        await next()
        const waiting = new Koci()
          .use(btrfs({ dir }))
          .unpack({ image, bundle: path.join(home, 'waiting'), signal: abort.signal })
        setTimeout(() => abort.abort(), 100)
        await t.rejects(waiting, { code: 'ERR_KOCI_ABORTED' })
      },
    })
    await app.use(btrfs({ dir })).unpack({ image, bundle: path.join(home, 'first') })
    t.notOk(fs.existsSync(path.join(home, 'waiting')))
  })

  await t.test('nobody waits for what will not be kept', async t => {
    const { home, image, dir } = await workshop(base)
    let inner: readonly boolean[] = []
    const app = new Koci().use(btrfs({ dir })).use({
      name: 'inside',
      async layer(ctx, next) {
        await next()
        if (ctx.layer.index === 0) ctx.layer.taint('for a test')
        if (ctx.layer.index !== 1) return
        const other = new Koci().use(btrfs({ dir }))
        const { layers } = await other.unpack({ image, bundle: path.join(home, 'other') })
        inner = layers.map(({ extracted }) => extracted)
      },
    })
    await app.unpack({ image, bundle: path.join(home, 'tainted') })
    t.strictSame(inner, [true, true, true])
  })

  await t.test('killed at any moment: nothing half-made is believed', async t => {
    const { home, image, dir, unpack, parts } = await workshop(base)
    const script = path.join(import.meta.dirname, '../../support/btrfs-child.ts')
    const expected = await plainTree(home, image)
    for (const when of ['layer:0', 'layer:2', 'end'])
      await t.test(when, async t => {
        const bundle = path.join(home, 'killed')
        const child = spawn(process.execPath, [script, dir, image, bundle, when], {
          stdio: ['ignore', 'inherit', 'inherit'],
          timeout: 30_000,
        })
        const [, signal] = await once(child, 'exit')
        t.equal(signal, 'SIGKILL')
        t.equal(parts('chains').length, 0)
        const app = new Koci().use(btrfs({ dir: `${dir}-2` }))
        const { rootfs } = await app.unpack({ image, bundle })
        t.strictSame(describeTree(rootfs), expected)
        fs.rmSync(bundle, { recursive: true })
      })
    await unpack()
    t.equal(parts('snapshots').length, 4, 'three chains and a base: what the dead left is gone')
  })

  for (const option of ['', 'user_subvol_rm_allowed'])
    await t.test(
      `an ordinary user, mounted with ${option || 'nothing special'}`,
      { skip: spawnSync('setpriv', ['--version']).error ? 'no setpriv' : false },
      async t => {
        if (option) t.equal(spawnSync('mount', ['-o', `remount,${option}`, base]).status, 0)
        const home = path.join(base, `user-${option}`)
        fs.mkdirSync(home)
        fs.chownSync(home, 65534, 65534)
        const image = await makeImage(path.join(home, 'images'), 'a', { layers: threeLayers })
        spawnSync('chown', ['-R', '65534:65534', home])
        const support = path.join(import.meta.dirname, '../../support')
        const own = ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath]
        const run = (program: string, ...args: string[]) =>
          spawnSync('setpriv', [...own, path.resolve(support, program), ...args], {
            encoding: 'utf8',
            timeout: 30_000,
            env: { PATH: process.env['PATH'], HOME: home },
          })
        const store = path.join(home, 'store')
        const unpack = (bundle: string) =>
          run('btrfs-child.ts', store, image, path.join(home, bundle), 'rootless')
        const first = unpack('one')
        t.equal(first.stdout.trim(), '[0,1,2] ERR_KOCI_NO_DELTA_LISTER', first.stderr)
        const second = unpack('two')
        t.equal(second.stdout.trim(), '[] ERR_KOCI_NO_DELTA_LISTER', second.stderr)

        for (const bundle of ['one', 'two'])
          fs.rmSync(path.join(home, bundle), { recursive: true })
        const flags = ['--dir', store, '--keep-bytes', '0', '--drop-missing']
        const gc = run('../../bin/koci.ts', 'cache', 'gc', ...flags)
        t.match(gc.stdout, /^3 removed, /m, gc.stderr)
        t.strictSame(fs.readdirSync(path.join(store, 'btrfs-v1/snapshots')), [])
        fs.rmSync(store, { recursive: true })
      },
    )

  await t.test('a store elsewhere', async t => {
    const { image, home } = await workshop(base)
    const elsewhere = t.testdir({ store: {} })
    fs.chmodSync(path.join(elsewhere, 'store'), 0o700)
    const notHere = { code: 'ERR_KOCI_UNSUPPORTED_PLATFORM', message: /btrfs.*cache\(\)/ }
    const app = new Koci().use(btrfs({ dir: path.join(elsewhere, 'store/new') }))
    await t.rejects(app.unpack({ image, bundle: path.join(home, 'bundle') }), notHere)
    t.strictSame(fs.readdirSync(path.join(elsewhere, 'store')), [])
    const other = new Koci().use(btrfs({ dir: path.join(home, 'store') }))
    await t.rejects(other.unpack({ image, bundle: path.join(elsewhere, 'bundle') }), notHere)
    t.notOk(fs.existsSync(path.join(elsewhere, 'bundle')))
    fs.mkdirSync(path.join(home, 'open'))
    fs.chmodSync(path.join(home, 'open'), 0o777)
    const open = new Koci().use(btrfs({ dir: path.join(home, 'open') }))
    await t.rejects(open.unpack({ image, bundle: path.join(home, 'bundle') }), {
      code: 'ERR_KOCI_UNTRUSTED',
    })
  })
}

if (mountpoint !== undefined) await onBtrfs(mountpoint)
else {
  await t.test('options', async t => {
    const invalid = { code: 'ERR_KOCI_INVALID_OPTION' }
    t.throws(() => btrfs({ dir: 1 as unknown as string }), invalid)
    t.throws(() => btrfs({ dir: '' }), invalid)
    t.throws(() => btrfs({ dir: 'x', more: 1 } as never), invalid)
    t.match(
      btrfs().recipe,
      { options: { dir: /^\/.*koci$/ } },
      'where all stores are, if nobody says',
    )
    t.match(await btrfs({ dir: '/s' }).explain?.({} as never), /\/s/)
  })
  await onFileSystem(t, import.meta.filename)
}
