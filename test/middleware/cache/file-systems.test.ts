import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'
import { collect } from '../../../middleware/cache/collect.ts'
import { cache } from '../../../middleware/cache/index.ts'
import { Store } from '../../../middleware/cache/store.ts'
import { namespace, runInNamespaces } from '../../support/namespaces.ts'
import { Workshop, threeLayers } from '../../support/store.ts'

if (namespace === undefined) await runInNamespaces(t, import.meta.filename)
else await runHere()

async function runHere(): Promise<void> {
  const base = mkdtempSync(path.join(tmpdir(), 'koci-store-'))
  const mounted = path.join(base, 'small')
  mkdirSync(mounted)
  command('mount', '-t', 'tmpfs', '-o', 'mode=700,size=400k', 'koci-test', mounted)
  t.teardown(() => {
    command('umount', mounted)
    rmSync(base, { recursive: true })
  })
  // with the source, or the options that the kernel shows are added: owners that an ordinary user's namespace hasn't got
  const remount = (how: string): void =>
    command('mount', '-o', `remount,${how}`, 'koci-test', mounted)
  const dir = path.join(mounted, 'store')
  const store = cache({ dir })
  const big = { name: 'big', body: Buffer.alloc(600_000, 'x') }
  const shop = await Workshop.open(path.join(base, 'images'), [...threeLayers, [big]])

  await t.test('a full disk is an error, and what is there is sound', async t => {
    await t.rejects(shop.unpack({ store }), {
      code: 'ERR_KOCI_IO',
      message: /\/store\/v1\/.*ENOSPC/,
      cause: { code: 'ENOSPC' },
    })
    const there = spawnSync('find', [dir, '-path', '*staging/*'], { encoding: 'utf8' })
    t.equal(there.stdout, '')
    remount('size=4m')
    const { extracted } = await shop.unpack({ store })
    t.ok(extracted.includes(3))
    t.same((await shop.unpack({ store })).extracted, [])
  })

  await t.test('a store that can only be read is used as it is', async t => {
    remount('ro')
    const { extracted, layers } = await shop.unpack({ store })
    t.same(extracted, [])
    t.ok(layers.every(({ placed }) => placed?.by === 'cache'))
    const other = await Workshop.open(path.join(base, 'others'), [
      ...threeLayers,
      [{ name: 'new' }],
    ])
    const outcome = await other.unpack({ store })
    t.same(outcome.extracted, [3])
    t.match(outcome.layers[3]?.placed, { by: 'koci', dir: /layer-3$/ })
    const empty = cache({ dir: path.join(mounted, 'other') })
    await t.rejects(other.unpack({ store: empty }), { cause: { code: 'EROFS' } })
    const found = Store.find(dir)
    if (!found) throw new RangeError('no store')
    await t.rejects(collect(found), { code: 'ERR_KOCI_READ_ONLY' })
    found.close()
    remount('rw')
    t.same((await other.unpack({ store })).extracted, [3])
    t.same((await other.unpack({ store })).extracted, [])
  })

  await t.test('a store that vanishes is made again', async t => {
    rmSync(dir, { recursive: true })
    t.equal((await shop.unpack({ store })).extracted.length, 4)
  })
}

function command(name: string, ...args: string[]): void {
  const { status, stderr, error } = spawnSync(name, args, { encoding: 'utf8', timeout: 10_000 })
  if (status !== 0) throw error ?? new RangeError(`${name}: ${stderr}`)
}
