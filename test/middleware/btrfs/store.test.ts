// The store of snapshots on a real btrfs: what is collected, verified, listed and removed, by functions and by `koci cache`.
import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { describeSubvolume } from '../../../lib/fs/btrfs.ts'
import { Koci } from '../../../lib/index.ts'
import type { CollectOptions, LayerStore } from '../../../lib/stored-layers.ts'
import { btrfs } from '../../../middleware/btrfs/index.ts'
import { findLayerStore } from '../../../middleware/btrfs/layer-store.ts'
import { Store } from '../../../middleware/btrfs/store.ts'
import { cache } from '../../../middleware/cache/index.ts'
import { koci } from '../../bin/run-koci.ts'
import { mountpoint, onFileSystem } from '../../support/btrfs.ts'
import { makeImage } from '../../support/image.ts'
import { setWritable } from '../../support/set-writable.ts'
import { threeLayers } from '../../support/store.ts'

const day = 24 * 3_600_000
const { signal } = new AbortController()
let count = 0

/** A store with the three chains of an image, and a bundle, or room for one. */
async function open(base: string, { keepBundle = false } = {}) {
  const home = path.join(base, `store-${count++}`)
  fs.mkdirSync(home)
  const image = await makeImage(path.join(home, 'images'), 'a', { layers: threeLayers })
  const dir = path.join(home, 'store')
  const app = new Koci().use(btrfs({ dir }))
  const bundle = path.join(home, 'bundle')
  const { layers } = await app.unpack({ image, bundle })
  const within = async <T>(use: (store: LayerStore) => Promise<T>): Promise<T> => {
    const store = await findLayerStore(dir, signal)
    if (!store) throw new RangeError('no store')
    try {
      return await use(store)
    } finally {
      store.close()
    }
  }
  const gc = (options: CollectOptions = {}) => within(store => store.collect(options))
  if (!keepBundle) {
    fs.rmSync(bundle, { recursive: true })
    t.match(await gc({ dropMissing: true }), { leasesRemoved: 1, removed: [], layers: 3 })
  }
  const listed = await within(store => store.list())
  /** Base first. */
  const names = layers.map(({ chainID }) => listed.find(each => each.chainID === chainID)?.name)
  const parts = (part: string): string[] =>
    fs.readdirSync(path.join(dir, 'btrfs-v1', part)).sort()
  const setUsed = (name: string | undefined, ago: number): void => {
    const time = (Date.now() - ago) / 1000
    fs.utimesSync(path.join(dir, 'btrfs-v1/chains', `${name}.json`), time, time)
  }
  const snapshot = (name: string | undefined): string => {
    const text = fs.readFileSync(path.join(dir, 'btrfs-v1/chains', `${name}.json`), 'utf8')
    return path.join(dir, 'btrfs-v1/snapshots', JSON.parse(text).snapshot)
  }
  return { home, image, dir, app, bundle, within, gc, names, parts, setUsed, snapshot }
}

async function onBtrfs(base: string): Promise<void> {
  await t.test('without options nothing is taken that is of use', async t => {
    const { gc, parts } = await open(base)
    t.match(await gc(), { removed: [], layers: 3, busy: [], leasesRemoved: 0 })
    t.equal(parts('snapshots').length, 3)
    t.strictSame(
      parts('locks').map(name => `${name}.json`),
      parts('chains'),
      'a lock for each chain',
    )
  })

  await t.test('chains on top go first, however old those below are', async t => {
    const { gc, names, setUsed, parts, app, image, home } = await open(base)
    const [low = '', middle = '', top = ''] = names
    setUsed(low, 40 * day)
    setUsed(middle, 40 * day)
    t.match(
      await gc({ olderThanMs: 30 * day }),
      { removed: [], layers: 3 },
      'all carry the top',
    )
    setUsed(top, 40 * day)
    const report = await gc({ keepBytes: 3 })
    t.match(
      report.removed,
      [
        { name: top, reason: 'size', bytes: 5 },
        { name: middle, reason: 'size' },
        { name: low, reason: 'size' },
      ],
      'those on top first',
    )
    t.match(report, { layers: 0, bytes: 0 })
    for (const part of ['snapshots', 'chains', 'bases', 'locks']) t.strictSame(parts(part), [])
    const { layers } = await app.unpack({ image, bundle: path.join(home, 'again') })
    t.ok(layers.every(({ extracted }) => extracted))
  })

  await t.test('what was not used for so long goes', async t => {
    const { gc, names, setUsed } = await open(base)
    const [, , top = ''] = names
    setUsed(top, 40 * day)
    t.match((await gc({ olderThanMs: 30 * day })).removed, [{ name: top, reason: 'age' }])
    t.match((await gc({ olderThanMs: 30 * day, now: 0 })).removed, [], 'ten years back')
  })

  await t.test('what a bundle needs stays, whatever is asked', async t => {
    const { gc, within, names, bundle, parts, app } = await open(base, { keepBundle: true })
    for (const now of [0, Date.now() + 3650 * day])
      t.match(await gc({ keepBytes: 0, olderThanMs: 0, dropMissing: true, now }), {
        removed: [],
        layers: 3,
        leasesRemoved: 0,
      })
    const moved = `${bundle}-moved`
    fs.renameSync(bundle, moved)
    for (const now of [0, Date.now() + 3650 * day, Date.now() + 3651 * day, 1])
      t.match(await gc({ keepBytes: 0, now }), { removed: [], leasesRemoved: 0 })
    fs.renameSync(moved, bundle)
    t.match(await gc(), { leasesRemoved: 0 })
    const [base1 = ''] = parts('bases')
    t.notMatch(
      fs.readFileSync(path.join(path.dirname(bundle), 'store/btrfs-v1/bases', base1), 'utf8'),
      /missed/,
      'found again',
    )
    await within(async store => {
      const layers = await store.list()
      const top = layers.find(({ name }) => name === names[2])
      t.strictSame(top?.bundles, [bundle])
      if (top)
        await t.rejects(store.remove(top), {
          code: 'ERR_KOCI_LAYER_IN_USE',
          message: new RegExp(bundle),
        })
    })
    fs.writeFileSync(path.join(bundle, 'rootfs/new'), 'new')
    const image = `${path.join(path.dirname(bundle), 'images')}:new`
    const { changes } = await app.repack({ image, bundle, refresh: true })
    t.equal(changes.length, 2)
    const report = await gc({ keepBytes: 0 })
    t.match(report, { removed: [], layers: 4 }, 'what was packed is what it needs now')
    fs.rmSync(bundle, { recursive: true })
    t.match(await gc({ keepBytes: 0, dropMissing: true }), { leasesRemoved: 1, layers: 0 })
    t.strictSame(parts('snapshots'), [])
  })

  await t.test('what a process uses stays', async t => {
    const { dir, gc, within, names, home, image } = await open(base)
    const store = await Store.open(dir, signal)
    const [, , top = ''] = names
    t.ok(store.hold(top))
    t.match(await gc({ keepBytes: 0 }), { layers: 3, busy: [top] })
    await within(async other => {
      const layer = (await other.list()).find(({ name }) => name === top)
      if (layer) await t.rejects(other.remove(layer), { code: 'ERR_KOCI_LAYER_IN_USE' })
    })
    store.close()
    // a base whose bundle isn't written yet
    const app = new Koci().use({
      name: 'outside',
      async unpack(_, next) {
        await next()
        t.match(await gc({ keepBytes: 0, dropMissing: true }), {
          layers: 3,
          leasesRemoved: 0,
          busy: [/^[0-9a-f]{32}$/],
        })
      },
    })
    const bundle = path.join(home, 'other')
    await app.use(btrfs({ dir })).unpack({ image, bundle })
    t.match(await gc({ keepBytes: 0 }), { layers: 3, busy: [] })
  })

  await t.test('what was changed, or is not there, is not used', async t => {
    const { gc, within, names, snapshot, app, image, home } = await open(base)
    const [low, middle, top] = names
    const verdicts = () =>
      within(async store => {
        const found = await Array.fromAsync(store.verify())
        return Object.fromEntries(found.map(each => [each.name, each]))
      })
    t.ok(Object.values(await verdicts()).every(({ state }) => state === 'good'))
    setWritable(snapshot(top), true)
    fs.chmodSync(path.join(snapshot(top), 'c'), 0o600)
    setWritable(snapshot(top), false)
    const file = snapshot(middle)
    setWritable(file, true)
    fs.rmSync(file, { recursive: true })
    const found = await verdicts()
    t.match(found[top ?? ''], { state: 'damaged', problems: [{ kind: 'changed', path: '' }] })
    t.equal(found[low ?? '']?.state, 'good')
    const { layers } = await app.unpack({ image, bundle: path.join(home, 'again') })
    t.strictSame(
      layers.map(({ extracted }) => extracted),
      [false, true, true],
    )
    t.ok(describeSubvolume(snapshot(top))?.isUntouched, 'and it was replaced')
    t.ok(Object.values(await verdicts()).every(({ state }) => state === 'good'))
    setWritable(snapshot(low), true)
    fs.writeFileSync(path.join(snapshot(low), 'a'), 'changed')
    t.match((await gc()).removed, [{ name: low, reason: 'incomplete' }])
  })

  await t.test('what the disk has lost is found, and can be had again', async t => {
    const { dir, within, names, app, image, home } = await open(base)
    const [, , top = ''] = names
    spawnSync('sync')
    // the snapshots' own files weren't read yet, so that no memory has them
    const disk = path.resolve(base, '../image')
    const file = fs.openSync(disk, 'r+')
    for (const at of offsetsOf(disk, 'two'.repeat(1000))) fs.writeSync(file, '!', at)
    fs.closeSync(file)
    const found = await within(store => Array.fromAsync(store.verify({ names: [top] })))
    t.match(found, [
      { state: 'damaged', problems: [{ kind: 'unreadable', path: '' }], repaired: false },
    ])
    const repaired = await within(store => Array.fromAsync(store.verify({ repair: true })))
    t.equal(repaired.filter(each => each.repaired).length, 2, 'each chain with the layer in it')
    t.match(await koci(['cache', 'verify', '--dir', dir]), {
      code: 0,
      stdout: '1 good, 0 damaged\n',
    })
    const { layers } = await app.unpack({ image, bundle: path.join(home, 'again') })
    t.strictSame(
      layers.map(({ extracted }) => extracted),
      [false, true, true],
    )
  })

  await t.test('a base that was changed is not compared with', async t => {
    const { app, bundle, parts, dir, image } = await open(base, { keepBundle: true })
    const [name = ''] = parts('bases')
    const snapshot = path.join(dir, 'btrfs-v1/snapshots', path.basename(name, '.json'))
    setWritable(snapshot, true)
    fs.writeFileSync(path.join(snapshot, 'a'), 'changed')
    setWritable(snapshot, false)
    await t.rejects(app.repack({ image: `${image}-b`, bundle }), {
      code: 'ERR_KOCI_NO_DELTA_LISTER',
    })
  })

  await t.test('koci cache shows and cleans both stores of a directory', async t => {
    const { home, image, dir, bundle, names } = await open(base, { keepBundle: true })
    const other = path.join(home, 'merged')
    await new Koci().use(cache({ dir })).unpack({ image, bundle: other })
    const on = ['--dir', dir]
    const run = async (...args: string[]) => {
      const [command = '', ...rest] = args
      const { code, stdout, stderr } = await koci(['cache', command, ...on, ...rest])
      t.equal(code, 0, stderr)
      return stdout
    }
    const lines = (await run('ls')).trim().split('\n')
    t.equal(lines.length, 6)
    t.match(
      lines.find(line => line.startsWith(names[2] ?? '-')),
      /snapshot, on top of others, 1 b/,
    )
    t.match(JSON.parse(await run('du', '--json')), [
      { driver: 'cache', layers: 3, leased: { layers: 0 } },
      { driver: 'btrfs', layers: 3, leased: { layers: 1 } },
    ])
    t.match(await run('du'), / 3  layers\n.* 0  of these.*\n.* 3  snapshots\n.* 1  of these/)
    t.equal(await run('verify'), '6 good, 0 damaged\n')
    const [low = '', , top = ''] = names
    const refused = await koci(['cache', 'rm', ...on, top])
    t.match(refused, { code: 1, stderr: /bundle - .* \[ERR_KOCI_LAYER_IN_USE\]/ })
    t.equal(await run('rm', low.slice(0, 12)), '')
    const kept = await run('gc', '--keep-bytes', '0')
    t.match(kept, /^cache: 3 removed, .*; 0 kept, 0 B\nbtrfs: 0 removed, 0 B; 2 kept/m)
    fs.rmSync(bundle, { recursive: true })
    const gone = JSON.parse(await run('gc', '--keep-bytes=0', '--drop-missing', '--json'))
    t.match(gone[1], { driver: 'btrfs', removed: { length: 2 }, leasesRemoved: 1, layers: 0 })
  })
}

/** Where a text is in a large sparse file. */
function offsetsOf(file: string, text: string): number[] {
  const { stdout } = spawnSync('grep', ['-abo', text, file], { encoding: 'latin1' })
  return stdout
    .split('\n')
    .filter(line => line !== '')
    .map(line => Number(line.split(':')[0]))
}

if (mountpoint !== undefined) await onBtrfs(mountpoint)
else await onFileSystem(t, import.meta.filename)
