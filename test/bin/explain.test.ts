// koci explain, as a shell runs it: it says what would be done, and does nothing.
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { makeImage } from '../support/image.ts'
import { koci } from './run-koci.ts'

const rootless = process.geteuid?.() === 0 ? [] : ['--rootless']

await t.test('an image, before and after its layers are in a store', async t => {
  const cwd = t.testdir()
  const layers = [[{ name: 'x', body: 'x' }], [{ name: 'y' }]]
  await makeImage(path.join(cwd, 'images'), 'a', { layers })
  const image = ['--image', 'images:a', ...rootless]
  const used = ['--use', 'cache:dir=store', '--use', 'mtree']

  const cold = await koci(['explain', ...image, ...used], { cwd })
  t.equal(cold.stderr, '')
  t.equal(cold.code, 0)
  t.same(readdirSync(cwd), ['images'], 'no store was made')
  t.match(cold.stdout, /^layering +merged, nobody chose otherwise$/m)
  t.match(cold.stdout, /^changes +listed by the first of these that can: mtree$/m)
  t.match(cold.stdout, /^ {2}limits +\(default\) refuses/m)
  t.match(cold.stdout, /^ {2}cache +\(--use\) keeps extracted layers/m)
  t.match(
    cold.stdout,
    /^ {2}1 +sha256:[0-9a-f]{12} +\d+ B +to be extracted, through cache, as\n +[0-9a-f]{32}$/m,
  )
  t.same(
    cold.stdout.split('\n').filter(line => line.length > 80 && line.trim().includes(' ')),
    [],
  )

  const planned = JSON.parse(
    (await koci(['explain', ...image, ...used, '--json'], { cwd })).stdout,
  )
  const unpacked = await koci(['unpack', ...image, ...used, 'bundle'], { cwd })
  t.equal(unpacked.code, 0, unpacked.stderr)
  const warm = await koci(['explain', ...image, ...used, '--json'], { cwd })
  const found = JSON.parse(warm.stdout)
  t.match(found, {
    extraction: { layering: 'merged' },
    chain: [
      { name: 'limits', from: 'default', says: String },
      { name: 'cache', from: '--use' },
      { name: 'mtree', from: '--use' },
    ],
    layers: [
      { index: 0, found: true, by: 'cache', dir: /store/, diffID: /^sha256:/, entries: 1 },
      { index: 1, found: true },
    ],
    extractors: ['cache'],
    rootfs: null,
    mounters: [],
    listers: ['mtree'],
  })
  const keysOf = (plan: { layers: { key: string }[] }): string[] =>
    plan.layers.map(({ key }) => key)
  const stored = await koci(['cache', 'ls', '--dir', 'store', '--json'], { cwd })
  const names = JSON.parse(stored.stdout).map(({ name }: { name: string }) => name)
  t.same(keysOf(planned).sort(), names.sort(), 'the key says what it will be called')
  t.same(keysOf(found).sort(), names)

  const bundle = await koci(['explain', '--bundle', 'bundle'], { cwd })
  t.equal(bundle.code, 0, bundle.stderr)
  t.match(bundle.stdout, /^ {2}cache +\(bundle\) keeps/m)
  t.match(bundle.stdout, /found by cache in/)
  const json = JSON.parse(
    (await koci(['explain', '--bundle', 'bundle', '--json'], { cwd })).stdout,
  )
  t.equal(json.rootfs, path.join(cwd, 'bundle/rootfs'))
  t.same(readdirSync(cwd).sort(), ['bundle', 'images', 'store'])
})

await t.test('where stacked layers would be mounted', async t => {
  const cwd = t.testdir()
  await makeImage(path.join(cwd, 'images'), 'a', { layers: [[{ name: 'x' }]] })
  const { stdout } = await koci(['explain', '--image', 'images:a', '--use', 'overlay'], { cwd })
  // where there is no privilege to mount, too: it says so then, beside it
  t.match(
    stdout.replaceAll(/\s+/g, ' '),
    /a mount of the layers at BUNDLE\/rootfs, which overlay/,
  )
})

await t.test('mistakes', async t => {
  const cwd = t.testdir()
  await makeImage(path.join(cwd, 'images'), 'a', { layers: [] })
  const either = /needs either --image=layout\[:tag\] or --bundle=path/
  const cases: readonly (readonly [args: string[], message: RegExp])[] = [
    [[], either],
    [['--image', 'images:a', '--bundle', 'b'], either],
    [['--image', 'images:a', '--layout', 'images'], /goes together with --bundle/],
    [['--image', 'images:b'], /tag not found/],
    [['--bundle', 'nowhere'], /no such directory/],
    [['--image', 'images:a', '--use', 'chache'], /did you mean cache\?/],
  ]
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await koci(['explain', ...args], { cwd })
    t.equal(code, 1, args.join(' '))
    t.equal(stdout, '')
    t.match(stderr, message)
  }
  const empty = await koci(['explain', '--image', 'images:a', ...rootless], { cwd })
  t.match(empty.stdout, /layers, base first: none/)
  t.notOk(existsSync(path.join(cwd, 'bundle')))
})
