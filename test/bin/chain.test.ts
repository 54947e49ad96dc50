// Chains from the command line: --use, what a bundle remembers of it, and what it may not name.
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { builtIns, findBuiltIn } from '../../bin/chain/registry.ts'
import { loadDriver } from '../../bin/chain/load-driver.ts'
import { parseUse } from '../../bin/chain/use-words.ts'
import { makeImage } from '../support/image.ts'
import { koci } from './run-koci.ts'

const rootless = process.geteuid?.() === 0 ? [] : ['--rootless']

/** A driver that leaves a file for each step it was called in, beside the bundle. */
const tracer = `
import { appendFileSync } from 'node:fs'
import path from 'node:path'
export default function tracer({ word = 'none' } = {}) {
  const trace = step => async (ctx, next) => {
    appendFileSync(path.join(ctx.bundle.path, '..', 'trace'), step + ' ' + word + '\\n')
    await next()
  }
  return {
    name: 'tracer',
    options: { word: { type: 'string', description: 'what to say' } },
    unpack: trace('unpack'),
    repack: trace('repack'),
  }
}
`

async function setUp(t: Test): Promise<string> {
  const cwd = t.testdir({
    'tracer.mjs': tracer,
    packages: {
      'koci-driver-tracer': {
        'package.json': '{"type":"module","exports":"./index.js"}',
        'index.js': tracer,
      },
      other: { 'index.js': 'exports.x = 1' },
    },
  })
  await makeImage(path.join(cwd, 'images'), 'a', { layers: [[{ name: 'x' }, { name: 'y' }]] })
  return cwd
}

function traceOf(cwd: string): string {
  const file = path.join(cwd, 'trace')
  return existsSync(file) ? readFileSync(file, 'utf8') : ''
}

function stateOf(cwd: string): { chain: unknown } {
  return JSON.parse(readFileSync(path.join(cwd, 'bundle/koci.json'), 'utf8'))
}

await t.test('--use is read in pieces', async t => {
  const cases = [
    ['cache', 'cache', {}],
    ['cache:', 'cache', {}],
    ['cache:dir=/x', 'cache', { dir: '/x' }],
    ['cache:dir=/a:b=c,durable', 'cache', { dir: '/a:b=c', durable: true }],
    [String.raw`cache:dir=/a\,b\\c,x=`, 'cache', { dir: String.raw`/a,b\c`, x: '' }],
    ['./x.ts:__proto__=1', './x.ts', { ['__proto__']: '1' }],
    [String.raw`x:y=z\ `.trim(), 'x', { y: 'z\\' }],
  ] as const
  for (const [text, name, options] of cases) t.strictSame(parseUse(text), { name, options })
  for (const text of ['', ':x=1', 'x:=1', 'x:a=1,a=2'])
    t.throws(() => parseUse(text), { code: 'ERR_KOCI_INVALID_OPTION' }, text)
})

await t.test("what koci's own drivers leave in bundles is what bundles may name", async t => {
  for (const [name, { fromBundle }] of Object.entries(builtIns)) {
    const { name: own, recipe } = await loadDriver({ name, options: {} })
    t.equal(own, name)
    t.equal(recipe !== false, fromBundle, name)
  }
  t.equal(findBuiltIn('toString'), undefined)
})

await t.test('mistakes in --use', async t => {
  const cwd = await setUp(t)
  writeFileSync(path.join(cwd, 'async.mjs'), 'export default async () => { throw 1 }')
  writeFileSync(path.join(cwd, 'none.mjs'), 'export const x = 1')
  writeFileSync(path.join(cwd, 'fails.mjs'), 'export default () => { throw Error("no luck") }')
  writeFileSync(path.join(cwd, 'nothing.mjs'), 'export default () => {}')
  writeFileSync(path.join(cwd, 'broken.mjs'), 'export default (')
  mkdirSync(path.join(cwd, 'node_modules'))
  symlinkSync(
    '../packages/koci-driver-tracer',
    path.join(cwd, 'node_modules/koci-driver-tracer'),
  )
  const cases: readonly (readonly [use: string, code: string, message: RegExp])[] = [
    [
      'limit',
      'DRIVER_NOT_FOUND',
      /--use limit: driver limit not found - did you mean limits\?/,
    ],
    ['zfs', 'DRIVER_NOT_FOUND', /koci drivers lists those of koci/],
    ['limits:maxByte=1', 'INVALID_OPTION', /no option maxByte - did you mean maxBytes\?/],
    ['cache:dir', 'INVALID_OPTION', /--use cache: dir needs a value: dir=STRING/],
    ['limits:maxBytes=lots', 'INVALID_OPTION', /--use limits:maxBytes: lots is not a number/],
    ['limits:maxBytes=', 'INVALID_OPTION', /is not a number/],
    ['limits:maxBytes=0', 'INVALID_OPTION', /0 is not a positive number/],
    ['mtree:fast', 'INVALID_OPTION', /no option fast - it takes none/],
    ['progress:force=maybe', 'INVALID_OPTION', /maybe is neither true nor false/],
    ['./there-is-none.ts', 'DRIVER_NOT_FOUND', /there is no such file/],
    ['tracer.mjs', 'DRIVER_NOT_FOUND', /a path begins with \.\//],
    // beside the user isn't beside koci
    ['koci-driver-tracer', 'DRIVER_NOT_FOUND', /koci-driver-tracer/],
    ['node:fs', 'DRIVER_NOT_FOUND', /driver node not found/],
    ['yargs/../tap', 'DRIVER_NOT_FOUND', /yargs/],
    ['./async.mjs', 'INVALID_MIDDLEWARE', /default export is async/],
    [
      './none.mjs',
      'INVALID_MIDDLEWARE',
      /no default export; it has to be one that makes a driver/,
    ],
    ['./nothing.mjs', 'INVALID_MIDDLEWARE', /not a middleware/],
    ['./fails.mjs', 'IO', /no luck/],
    ['./broken.mjs', 'IO', /--use \.\/broken\.mjs: /],
  ]
  const home = process.cwd()
  process.chdir(cwd)
  t.teardown(() => process.chdir(home))
  for (const [use, code, message] of cases)
    await t.rejects(
      async () => loadDriver(parseUse(use)),
      { code: `ERR_KOCI_${code}`, message },
      use,
    )
  process.chdir(home)
  const { code, stderr } = await koci(
    ['unpack', '--image', 'images:a', '--use', 'limist', 'bundle'],
    { cwd },
  )
  t.equal(code, 1)
  t.match(stderr, /did you mean limits\? \[ERR_KOCI_DRIVER_NOT_FOUND\]/)
  t.notOk(existsSync(path.join(cwd, 'bundle')))
})

await t.test('a bundle remembers drivers of koci and of packages, with options', async t => {
  const cwd = await setUp(t)
  const env = { NODE_PATH: path.join(cwd, 'packages') }
  const used = ['--use', 'koci-driver-tracer:word=hello', '--use', 'limits:maxBytes=Infinity']
  const unpack = ['unpack', ...rootless, '--image', 'images:a', ...used, 'bundle']
  t.same(await koci(unpack, { cwd, env }), { code: 0, stdout: '', stderr: '' })
  t.same(stateOf(cwd).chain, [
    {
      name: 'tracer',
      source: 'package',
      package: 'koci-driver-tracer',
      options: { word: 'hello' },
    },
    { name: 'limits', source: 'koci', options: { maxBytes: 'Infinity' } },
    { name: 'mtree', source: 'koci' },
  ])
  const repack = ['repack', '--image', 'images:b', 'bundle']
  t.same(await koci(repack, { cwd, env }), { code: 0, stdout: '', stderr: '' })
  t.equal(traceOf(cwd), 'unpack hello\nrepack hello\n')

  const missing = await koci(repack, { cwd })
  t.equal(missing.code, 1)
  t.match(missing.stderr, /driver koci-driver-tracer not found - the bundle was made with it/)
  const another = await koci([...repack, '--use', 'mtree'], { cwd })
  t.same(another, { code: 0, stdout: '', stderr: '' })
})

await t.test('koci drivers describes a driver that is named', async t => {
  const cwd = await setUp(t)
  const env = { NODE_PATH: path.join(cwd, 'packages') }
  const named = ['--use', './tracer.mjs', '--use', 'koci-driver-tracer']
  const { stdout, stderr } = await koci(['drivers', ...named], { cwd, env })
  t.equal(stderr, '')
  t.equal(stdout, 'tracer\n  word=string           what to say\n'.repeat(2))
  const json = await koci(['drivers', '--json', ...named], { cwd, env })
  const options = { word: { type: 'string' } }
  t.match(JSON.parse(json.stdout), [
    { name: 'tracer', requires: [], options, fromBundle: false },
    { name: 'tracer', requires: [], options, fromBundle: true },
  ])
  t.match(await koci(['drivers', '--use', 'zfs'], { cwd }), { code: 1, stderr: /NOT_FOUND/ })
})

await t.test('a driver from a file is used, and missed at repack', async t => {
  const cwd = await setUp(t)
  const unpack = [
    'unpack',
    ...rootless,
    '--image',
    'images:a',
    '--use',
    './tracer.mjs',
    'bundle',
  ]
  t.same(await koci(unpack, { cwd }), { code: 0, stdout: '', stderr: '' })
  t.match(stateOf(cwd).chain, [{ name: 'limits' }, { name: 'tracer', source: 'unnamed' }, {}])
  const { code, stderr } = await koci(['repack', '--image', 'images:b', 'bundle'], { cwd })
  t.equal(code, 0)
  t.match(stderr, /made with tracer, which it can't bring back.*\[UNNAMED_MIDDLEWARE\]/)
  t.equal(traceOf(cwd), 'unpack none\n')
})

await t.test(
  'what a bundle says is data: no path, no other package, nobody who runs things',
  async t => {
    const cwd = await setUp(t)
    const env = { NODE_PATH: path.join(cwd, 'packages') }
    await koci(['unpack', ...rootless, '--image', 'images:a', 'bundle'], { cwd })
    const state = stateOf(cwd)
    const cases = [
      [{ name: '../tracer.mjs', source: 'koci' }, 'DRIVER_NOT_FOUND'],
      [{ name: path.join(cwd, 'tracer.mjs'), source: 'koci' }, 'DRIVER_NOT_FOUND'],
      [{ name: 'koci-driver-tracer', source: 'koci' }, 'DRIVER_NOT_FOUND'],
      [{ name: 'log', source: 'koci' }, 'DRIVER_NOT_FOUND'],
      [{ name: 'limits', source: 'koci', options: { nothing: '1' } }, 'INVALID_OPTION'],
      [{ name: 'x', source: 'package', package: './tracer.mjs' }, 'INVALID_BUNDLE'],
      [{ name: 'x', source: 'package', package: 'other' }, 'INVALID_BUNDLE'],
    ] as const
    for (const [driver, expected] of cases) {
      writeFileSync(
        path.join(cwd, 'bundle/koci.json'),
        JSON.stringify({ ...state, chain: [driver] }),
      )
      const { code, stderr } = await koci(['repack', '--image', 'images:b', 'bundle'], {
        cwd,
        env,
      })
      t.equal(code, 1)
      t.match(stderr, `[ERR_KOCI_${expected}]`, JSON.stringify(driver))
    }
    t.equal(traceOf(cwd), '')
  },
)
