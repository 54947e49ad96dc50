// Some layers of an image only; what a command would do; what new layers say of themselves; silence.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { makeImage } from '../support/image.ts'
import { dir, file } from '../support/members.ts'
import { finish, isRoot, missing, temporary } from '../support/peers.ts'
import { describeTree } from '../support/tree.ts'
import { snapshot } from '../lib/layout/fixture.ts'
import { koci, type Outcome } from './run-koci.ts'

const rootless = isRoot ? [] : ['--rootless']
const silent: Outcome = { code: 0, stdout: '', stderr: '' }

interface World {
  readonly cwd: string
  readonly run: (...args: readonly string[]) => Promise<Outcome>
  /** Digests, base first. */
  readonly layers: readonly string[]
}

async function setUp(t: Test): Promise<World> {
  const cwd = temporary(t, 'some')
  await makeImage(path.join(cwd, 'images'), 'a', {
    layers: [
      [dir('./', { mode: 0o750 }), file('base', 'b'), file('gone', 'g')],
      [file('.wh.gone'), file('middle', 'm')],
      [file('.wh.base'), file('top', 't')],
    ],
  })
  const run: World['run'] = (...args) => koci(args, { cwd })
  const { stdout } = await run('stat', '--json', '--image=images:a')
  const { layers } = JSON.parse(stdout).manifest.blob as { layers: { digest: string }[] }
  return { cwd, run, layers: layers.map(({ digest }) => digest) }
}

await t.test('raw unpack: ranges of layers, or from one on', async t => {
  const { cwd, run, layers } = await setUp(t)
  const namesOf = (name: string): string[] => readdirSync(path.join(cwd, name)).sort()
  for (const [name, args, wanted] of [
    ['all', [], ['middle', 'top']],
    ['one', ['--layers=0'], ['base', 'gone']],
    ['two', ['--layers=0..1'], ['base', 'middle']],
    ['upper', ['--layers', '1..'], ['middle', 'top']],
    ['lower', ['--layers', '..1'], ['base', 'middle']],
    ['from', ['--from', layers[2]], ['top']],
    ['short', ['--from', layers[2]?.slice(7, 15)], ['top']],
  ] as const) {
    const flags = args.map(String)
    t.same(await run('raw', 'unpack', ...rootless, '--image=images:a', ...flags, name), silent)
    t.same(namesOf(name), wanted, name)
  }
  // in two steps, what it is in one
  for (const range of ['0', '1..'])
    await run('raw', 'unpack', ...rootless, '--image=images:a', '--layers', range, 'steps')
  t.same(describeTree(path.join(cwd, 'steps')), describeTree(path.join(cwd, 'all')))
})

await t.test('a bundle of some layers works, and is not repacked by anybody', async t => {
  const { cwd, run } = await setUp(t)
  const image = '--image=images:a'
  t.same(await run('unpack', ...rootless, image, '--layers=..1', 'bundle'), silent)
  t.same(readdirSync(path.join(cwd, 'bundle/rootfs')).sort(), ['base', 'middle'])
  const tags = (await run('ls', '--layout=images')).stdout
  const refused = await run('repack', '--image=images:new', 'bundle')
  t.equal(refused.code, 1)
  t.match(refused.stderr, /it has only some layers of its image.*\[ERR_KOCI_INVALID_BUNDLE\]/)
  if (missing('umoci') === false)
    t.equal(finish('umoci', ['repack', '--image=images:new', 'bundle'], { cwd }).status, 1)
  t.equal((await run('ls', '--layout=images')).stdout, tags)
  t.same(await run('unpack', ...rootless, image, '--layers=0..2', 'whole'), silent)
  t.same(
    await run('repack', '--image=images:new', 'whole'),
    silent,
    'all of them are no selection',
  )
})

await t.test('dry runs say what they would do, and change nothing', async t => {
  const { cwd, run, layers } = await setUp(t)
  t.same(await run('unpack', ...rootless, '--image=images:a', 'bundle'), silent)
  writeFileSync(path.join(cwd, 'bundle/rootfs/new'), 'x')
  await makeImage(path.join(cwd, 'images'), 'b', { layers: [[file('x')]] })
  await run('rm', '--image=images:b')
  const before = snapshot(cwd)
  const image = '--image=images:a'
  const unpack = await run('unpack', '--dry-run', ...rootless, image, '--layers=1..', 'new')
  t.same(unpack.stdout.split('\n').length, 4)
  t.match(unpack.stdout, new RegExp(`^would extract: ${layers[1]} \\(\\d+ B\\)\n`))
  t.match(unpack.stdout, /\nwould make: new\n$/)
  const taken = await run('unpack', '--dry-run', ...rootless, image, 'bundle')
  t.match(taken, { code: 1, stdout: '', stderr: /\[ERR_KOCI_CLOBBER\]/ })
  const raw = await run('raw', 'unpack', '--dry-run', '--json', ...rootless, image, 'new')
  t.match(JSON.parse(raw.stdout), {
    target: 'new',
    layers: layers.map(digest => ({ digest, by: null, dir: null })),
  })
  const repack = await run('repack', '--dry-run', '--image=images:new', 'bundle')
  t.same(repack, { ...silent, stdout: 'M .\nA new\n' })
  const changes = await run('repack', '--dry-run', '--json', '--image=images:new', 'bundle')
  t.match(JSON.parse(changes.stdout), { changes: [{ path: '' }, { kind: 'A', path: 'new' }] })
  const gc = await run('gc', '--dry-run', '--layout=images')
  t.match(gc.stdout, /^(would remove: sha256:[0-9a-f]{64}\n){3}$/)
  const report = await run('gc', '--dry-run', '--json', '--layout=images')
  t.match(JSON.parse(report.stdout), { removed: { length: 3 }, staging: [] })
  t.same(snapshot(cwd), before)
})

await t.test('annotations of new layers', async t => {
  const { cwd, run } = await setUp(t)
  const annotated = async (tag: string): Promise<unknown> => {
    const { stdout } = await run('stat', '--json', `--image=images:${tag}`)
    return JSON.parse(stdout).manifest.blob.layers.at(-1).annotations
  }
  const flags = ['--layer.annotation', 'org.example.a=1', '--layer.annotation=b=x=y']
  writeFileSync(path.join(cwd, 'empty.tar'), Buffer.alloc(10_240))
  await run('unpack', ...rootless, '--image=images:a', 'bundle')
  writeFileSync(path.join(cwd, 'bundle/rootfs/new'), 'x')
  for (const [tag, ...args] of [
    ['repacked', 'repack', '--image=images:repacked', 'bundle'],
    ['inserted', 'insert', '--image=images:a', '--tag=inserted', 'empty.tar', '/x'],
    ['added', 'raw', 'add-layer', '--image=images:a', '--tag=added', 'empty.tar'],
    ['flat', 'flatten', '--image=images:a', '--tag=flat'],
  ]) {
    t.same(await run(...args, ...flags), silent)
    t.match(await annotated(String(tag)), { 'org.example.a': '1', b: 'x=y' }, String(tag))
  }
  const wrong = await run('flatten', '--image=images:a', '--layer.annotation=x')
  t.match(wrong, { code: 1, stderr: /--layer\.annotation: x is not NAME=VALUE/ })
})

await t.test('quiet: errors only', async t => {
  const { cwd, run } = await setUp(t)
  writeFileSync(path.join(cwd, 'no.tar'), 'no tar')
  const args = ['raw', 'add-layer', '--image=images:a', '--tag=x', 'no.tar']
  t.match((await run(...args)).stderr, /warning: no\.tar: not a tar archive/)
  t.same(await run(...args, '-q'), silent)
  t.same(await run('--quiet', ...args), silent)
  t.match(await run('ls', '--quiet', '--layout=nope'), { code: 1, stderr: /nope: / })
  t.match(await run('ls', '-q', '--verbose', '--layout=images'), {
    code: 1,
    stderr: /--quiet: means --log=error - give one of the two/,
  })
})

await t.test('a CPU profile, of what fails, too', async t => {
  const { cwd, run } = await setUp(t)
  const file = path.join(cwd, 'profile')
  t.equal((await run('--cpu-profile', 'profile', 'ls', '--layout=images')).stdout, 'a\n')
  t.match(JSON.parse(readFileSync(file, 'utf8')), { nodes: Array, samples: Array })
  t.equal((await run('ls', '--layout=nope', '--cpu-profile=other')).code, 1)
  t.ok(existsSync(path.join(cwd, 'other')))
  t.notMatch((await run('ls', '--help')).stdout, 'cpu-profile')
})

await t.test('mistakes', async t => {
  const { cwd, run } = await setUp(t)
  const before = snapshot(cwd)
  for (const [args, message] of [
    [['--layers=3'], /layer 3: the image has layers 0 to 2, base first/],
    [['--layers=x'], /x is not a range of layers/],
    [['--layers=0', '--from=sha256:abcdef'], /--from: can not go together with --layers/],
    [['--from=sha256:abcdef'], /layer sha256:abcdef: the image has no such layer/],
    [['--from='], /give a digest, or its first 6 digits/],
  ] as const) {
    const outcome = await run('unpack', ...rootless, '--image=images:a', ...args, 'bundle')
    t.match(outcome, { code: 1, stdout: '', stderr: message })
  }
  t.same(snapshot(cwd), before)
})
