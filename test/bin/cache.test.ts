import { rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Workshop } from '../support/store.ts'
import { inUserNamespace, koci, noUserNamespace } from './run-koci.ts'

const shop = await Workshop.open(t.testdir())
const { bundle, layers } = await shop.unpack()
const on = ['--dir', shop.dir]

await t.test('ls and du, for people and programs', async t => {
  const text = await koci(['cache', 'ls', ...on])
  t.equal(text.code, 0)
  t.equal(text.stdout.trim().split('\n').length, 3)
  t.match(
    text.stdout,
    new RegExp(`^${shop.names[0]} +[0-9.]+ KiB  2.*  sha256:.*  1 bundle$`, 'm'),
  )
  const json = await koci(['cache', 'list', '--json', ...on])
  t.match(JSON.parse(json.stdout), [{ name: shop.names[0], bundles: [bundle] }, {}, {}])
  t.match((await koci(['cache', 'du', ...on])).stdout, / KiB +3  layers\n.* 3  of these needed/)
  const usage = JSON.parse((await koci(['cache', 'du', '--json', ...on])).stdout)
  t.match(usage, [
    { driver: 'cache', store: shop.store.path, layers: 3, leased: { layers: 3 } },
  ])
})

await t.test('verify fails until what is damaged was removed', async t => {
  t.match(await koci(['cache', 'verify', ...on]), { code: 0, stdout: '3 good, 0 damaged\n' })
  writeFileSync(path.join(layers[2]?.placed?.dir ?? '', 'c'), 'Three')
  const found = await koci(['cache', 'verify', ...on])
  t.match(found, { code: 1, stdout: /damaged\n  changed  c\n2 good, 1 damaged/ })
  t.match(found.stderr, /a layer is damaged - .*--repair.*ERR_KOCI_INVALID_STORE/)
  const repaired = await koci(['cache', 'verify', '--repair', '--json', ...on])
  t.equal(repaired.code, 0)
  const states = JSON.parse(repaired.stdout).map((each: { state: string }) => each.state)
  t.same(states.sort(), ['damaged', 'good', 'good'])
  t.equal((await koci(['cache', 'verify', ...on])).stdout, '2 good, 0 damaged\n')
})

await t.test(
  'verify says nothing of what another user namespace stored, and removes none of it',
  { skip: noUserNamespace },
  async t => {
    const dir = path.join(shop.base, 'elsewhere')
    const store = ['--dir', dir]
    const unpack = ['unpack', '--use', `cache:dir=${dir}`, '--image', shop.image]
    const inside = await inUserNamespace([...unpack, path.join(shop.base, 'inside')])
    t.equal(inside.code, 0, inside.stderr)
    const good = { code: 0, stdout: '3 good, 0 damaged\n' }
    t.match(await inUserNamespace(['cache', 'verify', ...store]), good)
    const outside = await koci(['cache', 'verify', '--repair', ...store])
    t.equal(outside.code, 0, outside.stderr)
    t.match(
      outside.stdout,
      /elsewhere\n0 good, 0 damaged, 3 of another user namespace: not ver/,
    )
    t.match(await inUserNamespace(['cache', 'verify', ...store]), good)
  },
)

await t.test('rm and gc take nothing that a bundle needs', async t => {
  const [name = ''] = shop.names
  const refused = await koci(['cache', 'rm', ...on, name])
  t.match(refused, {
    code: 1,
    stderr: /in use by .*bundle-0 - it can be removed when .* \[ERR_KOCI_LAYER_IN_USE\]/,
  })
  const kept = await koci(['cache', 'gc', ...on, '--keep-bytes', '0', '--older-than=0s'])
  t.match(kept, { code: 0, stdout: /^0 removed, 0 B; 2 kept/ })
  rmSync(bundle, { recursive: true })
  const gone = await koci(['cache', 'gc', '--drop-missing', '--json', ...on])
  t.match(JSON.parse(gone.stdout), [{ driver: 'cache', leasesRemoved: 1, layers: 2 }])
  t.match(await koci(['cache', 'rm', ...on, name.slice(0, 8)]), { code: 0, stdout: '' })
  const rest = await koci(['cache', 'gc', ...on, '--keep-bytes=1K'])
  t.match(rest, { code: 0, stdout: /  size\n1 removed, .* KiB; 0 kept, 0 B\n$/ })
})

const mistakes: [args: string[], message: RegExp][] = [
  [['ls', '--dir', '/nowhere/at/all'], /there is no store in \/nowhere\/at\/all/],
  [['gc', '--keep-bytes', '20 potatoes'], /20 potatoes is not a size such as 500M/],
  [['gc', '--older-than', '30'], /30 is not a time such as 12h/],
  [
    ['rm', ...on, 'abcdef'],
    /no such layer in .* - give 6 digits or more of one that koci cache ls lists.*ERR_KOCI_LAYER_NOT_STORED/s,
  ],
  [['rm', ...on], /expected <layer>/],
  [['clean'], /no such command/],
]
for (const [args, message] of mistakes)
  await t.test(`koci cache ${args.slice(0, 2).join(' ')} says what is wrong`, async t => {
    const { code, stderr } = await koci(['cache', ...args])
    t.ok(code)
    t.match(stderr, message)
    t.equal(stderr.trim().split('\n').length, 1)
  })
