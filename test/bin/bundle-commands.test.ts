// mount, umount, delta and drivers, as a shell runs them.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { builtIns } from '../../bin/chain/registry.ts'
import { hang } from '../../bin/hang.ts'
import { makeImage } from '../support/image.ts'
import { childEnvironment, koci, plainly, program } from './run-koci.ts'

const rootless = process.geteuid?.() === 0 ? [] : ['--rootless']
const silent = { code: 0, stdout: '', stderr: '' }

/** Stacks layers in the bundle, and mounts nothing but a note that it did. */
const shelf = `
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
export default function shelf() {
  const note = ctx => path.join(ctx.bundle.path, 'mounted')
  return {
    name: 'shelf',
    async unpack(ctx, next) {
      ctx.extraction.choose('shelf', 'stacked', 'plain')
      await next()
    },
    async locate(ctx, next) {
      const dir = path.join(ctx.bundle.path, 'layer-' + ctx.layer.index)
      if (!ctx.bundle.ready) return next()
      ctx.layer.place({ dir, by: 'shelf', verified: true })
    },
    async layer(ctx, next) {
      ctx.layer.target = await ctx.bundle.claim('layer-' + ctx.layer.index)
      mkdirSync(ctx.layer.target)
      await next()
    },
    async mount(ctx) { writeFileSync(note(ctx), '') },
    async unmount(ctx) { rmSync(note(ctx), { force: true }) },
    async delta(ctx) { ctx.changes = [] },
    async refresh() {},
  }
}
`

async function setUp(t: Test): Promise<string> {
  const cwd = t.testdir({
    packages: {
      'koci-driver-shelf': {
        'package.json': '{"type":"module","exports":"./index.js"}',
        'index.js': shelf,
      },
    },
  })
  const layers = [[{ name: 'x', body: 'x' }, { name: 'y' }, { name: 'd/z' }]]
  await makeImage(path.join(cwd, 'images'), 'a', { layers })
  return cwd
}

await t.test('a stacked bundle is mounted and taken down, without flags', async t => {
  const cwd = await setUp(t)
  const env = { NODE_PATH: path.join(cwd, 'packages') }
  const used = ['--use', 'koci-driver-shelf']
  const unpack = ['unpack', ...rootless, '--image', 'images:a', ...used, 'bundle']
  t.same(await koci(unpack, { cwd, env }), silent)
  const isMounted = (): boolean => existsSync(path.join(cwd, 'bundle/mounted'))
  t.ok(isMounted())
  t.same(await koci(['umount', 'bundle'], { cwd, env }), silent)
  t.notOk(isMounted())
  t.same(await koci(['mount', 'bundle'], { cwd, env }), silent)
  t.ok(isMounted())
  const elsewhere = await koci(['umount', 'bundle', '--layout', 'nowhere'], { cwd, env })
  t.match(elsewhere, { code: 1, stderr: /nowhere: not an OCI image layout/ })
  t.ok(isMounted())
  t.same(await koci(['unmount', 'bundle', '--layout', 'images'], { cwd, env }), silent)
  t.same(await koci(['delta', 'bundle'], { cwd, env }), silent)

  for (const command of ['mount', 'umount', 'delta']) {
    const { code, stderr } = await koci([command, 'bundle'], { cwd })
    t.equal(code, 1)
    t.match(stderr, /driver koci-driver-shelf not found.*install it beside koci/)
    const other = await koci([command, '--use', 'mtree', 'bundle'], { cwd, env })
    t.match(other.stderr, /made with shelf, which is not in the chain progress, limits, mtree/)
  }
})

await t.test('a bundle of merged layers is not mounted', async t => {
  const cwd = await setUp(t)
  await koci(['unpack', ...rootless, '--image', 'images:a', 'bundle'], { cwd })
  for (const command of ['mount', 'umount']) {
    const { code, stderr } = await koci([command, 'bundle'], { cwd })
    t.equal(code, 1)
    t.match(
      stderr,
      /its layers are merged: there is nothing to mount \[ERR_KOCI_INVALID_BUNDLE\]/,
    )
    t.match(await koci([command, 'nowhere'], { cwd }), { code: 1, stderr: /no such directory/ })
  }
})

await t.test('delta lists what a repack would pack', async t => {
  const cwd = await setUp(t)
  await koci(['unpack', ...rootless, '--image', 'images:a', 'bundle'], { cwd })
  t.same(await koci(['delta', 'bundle'], { cwd }), silent)
  t.same(await koci(['delta', '--json', 'bundle'], { cwd }), { ...silent, stdout: '[]\n' })

  const rootfs = path.join(cwd, 'bundle/rootfs')
  writeFileSync(path.join(rootfs, 'x'), 'changed')
  rmSync(path.join(rootfs, 'd'), { recursive: true })
  mkdirSync(path.join(rootfs, 'tmp'))
  writeFileSync(path.join(rootfs, 'tmp/new\nline'), '')
  writeFileSync(Buffer.from(`${rootfs}/n\xe4h`, 'latin1'), '')

  const text = await koci(['delta', 'bundle'], { cwd })
  const lines = [
    'M .',
    'D d',
    String.raw`A n\xe4h`,
    'A tmp',
    String.raw`A tmp/new\nline`,
    'M x',
  ]
  t.same(text, { ...silent, stdout: `${lines.join('\n')}\n` })

  for (const flag of ['-0', '--null']) {
    const [command, args] = plainly(process.execPath, [program, 'delta', flag, 'bundle'])
    const { stdout } = spawnSync(command, args, { cwd, env: childEnvironment() })
    t.equal(
      stdout.toString('latin1'),
      'M .\0D d\0A n\xe4h\0A tmp\0A tmp/new\nline\0M x\0',
      flag,
    )
  }
  const json = await koci(['delta', '--json', '--mask-path', '/tmp', 'bundle'], { cwd })
  t.same(JSON.parse(json.stdout), [
    { kind: 'M', path: '' },
    { kind: 'D', path: 'd' },
    { kind: 'A', path: String.raw`n\xe4h`, rawPath: 'buRo' },
    { kind: 'M', path: 'x' },
  ])
  t.same(await koci(['delta', 'bundle'], { cwd }), text, 'it changes nothing')
  t.match(await koci(['delta', '-0', '--json', 'bundle'], { cwd }), {
    code: 1,
    stderr: /--null: can not go together with --json/,
  })
  t.match(await koci(['delta', '-1', 'bundle'], { cwd }), { code: 1, stderr: /no such option/ })
})

await t.test('drivers lists what there is, what it takes, and what it needs', async t => {
  const { code, stdout, stderr } = await koci(['drivers'])
  t.equal(code, 0)
  t.equal(stderr, '')
  for (const [name, { description }] of Object.entries(builtIns)) {
    const text = new RegExp(`^${name} +${description.split(' ')[0]}`, 'm')
    t.match(stdout, text)
  }
  t.match(stdout, /^ {2}maxBytes=number +bytes of one/m)
  t.same(
    stdout.split('\n').filter(line => line.length > 80),
    [],
  )
  const list = JSON.parse((await koci(['drivers', '--json'])).stdout)
  t.match(
    list.find((each: { name: string }) => each.name === 'limits'),
    {
      name: 'limits',
      fromBundle: true,
      requires: [],
      options: { maxBytes: { type: 'number', description: String } },
    },
  )
  t.equal(list.length, Object.keys(builtIns).length)
})

await t.test('text hangs beside its term', async t => {
  t.same(hang('a', 4, 'b c'), ['a   b c'])
  t.same(hang('abcd', 4, 'b'), ['abcd', '    b'])
  const words = Array.from({ length: 40 }, () => 'word').join(' ')
  const lines = hang('a', 12, words)
  t.ok(lines.length > 1 && lines.every(line => line.length <= 80))
  t.ok(lines.slice(1).every(line => line.startsWith(`${' '.repeat(12)}w`)))
})
