import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { imageSpec, runtimeSpec } from '../../bin/version.ts'
import { runtimeTemplate } from '../../lib/bundle/runtime-template.ts'
import { build } from '../support/build.ts'
import { childEnvironment, home, koci, plainly } from './run-koci.ts'

const root = path.resolve(import.meta.dirname, '../..')
const dist = t.testdir()
const file = build(dist)
const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'))

/** A Node too old for koci, if this machine has one. */
const oldNode = ['/usr/bin/node', '/usr/local/bin/node'].find(node => {
  const { stdout } = spawnSync(...plainly(node, ['-p', 'process.versions.node']), {
    encoding: 'utf8',
  })
  return /^(1[4-9]|2[013])\./.test(stdout ?? '')
})

await t.test('what is built says its version, as the sources do', async t => {
  const lines = `koci version VERSION\nimage spec: ${imageSpec}\nruntime spec: ${runtimeSpec}\nnode: ${process.version}\n`
  for (const args of [['--version'], ['-v'], ['--strict', '-v']]) {
    const sources = await koci(args)
    t.same(sources, { code: 0, stdout: lines.replace('VERSION', version), stderr: '' })
  }
  const built = await koci(['--version'], { file })
  // package.json is two directories up only in a real build
  t.match(built, { code: 0, stdout: /^koci version \S+\nimage spec: / })
  t.equal(runtimeTemplate().ociVersion, runtimeSpec)
})

await t.test(
  'an old Node gets one clear line',
  { skip: !oldNode && 'needs an old Node in /usr/bin or /usr/local/bin' },
  async t => {
    for (const args of [['--version'], ['unpack', '--image', 'a:b', 'c'], []]) {
      const { code, stdout, stderr } = await koci(args, {
        file,
        ...(oldNode ? { node: oldNode } : {}),
      })
      t.equal(code, 1)
      t.equal(stdout, '')
      t.match(stderr, /^koci: this is Node [\d.]+, and koci needs 22\.18 or later, or 24\n$/)
    }
  },
)

await t.test('the start is written in what an old Node can read', async t => {
  for (const name of ['koci', 'cache-directory', 'own-modules', 'program-name', 'version']) {
    const text = readFileSync(path.join(dist, `bin/${name}.js`), 'utf8')
    t.notMatch(text, /\?\?|\?\.[a-z[(]|^await |import \{ .* from 'node:/m, name)
  }
})

await t.test('compiled code is kept in a directory of the user, or nowhere', async t => {
  const own = t.testdir({ cache: {}, open: {} })
  chmodSync(own, 0o700)
  chmodSync(path.join(own, 'open'), 0o777)
  const run = (env: NodeJS.ProcessEnv) => koci(['ls', '--layout', 'x'], { file, env })
  await run({ HOME: own })
  t.same(readdirSync(path.join(own, '.cache/koci')), ['node'])
  await run({ HOME: own, XDG_CACHE_HOME: path.join(own, 'cache') })
  t.same(readdirSync(path.join(own, 'cache/koci')), ['node'])
  await run({ HOME: path.join(own, 'open') })
  t.same(readdirSync(path.join(own, 'open')), [], 'others may write there')
  const unsafe = { HOME: path.join(own, 'open'), XDG_CACHE_HOME: path.join(own, 'open') }
  t.equal((await run(unsafe)).code, 1)
  t.same(readdirSync(path.join(own, 'open')), [])
  t.equal((await run({ HOME: '/nonexistent' })).code, 1)
  t.equal((await run({ HOME: '' })).code, 1)
})

/** Milliseconds that a program takes, start to end. */
function time(args: readonly string[]): number {
  const start = performance.now()
  spawnSync(...plainly(process.execPath, args), {
    stdio: 'ignore',
    env: childEnvironment(),
    timeout: 30_000,
  })
  return performance.now() - start
}

// Other work on the machine makes single runs several times slower, so each is compared with a bare Node that ran
// right before it; and the bounds have a margin over what is wanted: 3 and 5.
for (const [name, args, wanted, bound] of [
  ['koci --version', ['--version'], 3, 4],
  ['koci ls', ['ls', '--layout', '/nonexistent'], 5, 7.5],
  ['koci unpack', ['unpack', '--image', '/nonexistent:a', '/nonexistent/b'], 5, 9],
  ['koci repack', ['repack', '--image', '/nonexistent:a', '/nonexistent/b'], 5, 9],
] as const)
  await t.test(`${name} starts in at most ${wanted} times what node -e 0 takes`, async t => {
    time([file, ...args])
    const ratios: number[] = []
    for (let run = 0; run < 9; run++) {
      const bare = time(['-e', '0'])
      ratios.push(time([file, ...args]) / bare)
    }
    const median = ratios.sort((a, b) => a - b)[4] as number
    t.ok(median <= bound, `${median.toFixed(1)} times`)
    t.comment(`${name}: ${median.toFixed(1)} times`)
    t.ok(existsSync(path.join(home, '.cache/koci/node')), 'with compiled code kept')
  })
