// Memory is bounded whatever the input: the peak of whole processes, as the kernel counts it.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { childEnvironment, plainly } from './bin/run-koci.ts'
import { alike, makeBigImage, zeros, type TarPieces } from './support/big-image.ts'
import { hookPlace, hookTable } from './support/hooks.ts'
import { makeImage } from './support/image.ts'
import { roomyDirectory } from './support/memory-dir.ts'
import { tarBytes } from './support/tar-builder.ts'

t.setTimeout(2_400_000)

const top = path.resolve(import.meta.dirname, '..')
const preload = path.join(import.meta.dirname, 'support/tell-peak.js')
const rootless = process.geteuid?.() === 0 ? [] : ['--rootless']
const megabyte = 2 ** 20

// as it is installed: stripping types from sources takes memory of its own
const dist = t.testdir()
const tsc = path.join(top, 'node_modules/.bin/tsc')
spawnSync(...plainly(tsc, ['-p', path.join(top, 'tsconfig.build.json'), '--outDir', dist]), {
  cwd: top,
  env: childEnvironment(),
})

/** Runs koci for at most ten minutes; its exit code, what it said, and its peak of resident memory in MB. */
function run(args: readonly string[]) {
  return runNode([path.join(dist, 'bin/koci.js'), ...args])
}

async function runNode(args: readonly string[], output: 'ignore' | number = 'ignore') {
  const koci = spawn(...plainly(process.execPath, ['--import', preload, ...args]), {
    stdio: ['ignore', output, 'pipe'],
    env: childEnvironment(),
    timeout: 600_000,
  })
  let text = ''
  koci.stderr?.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  const [code] = await once(koci, 'close')
  const [, peak] = /^peak (\d+)$/m.exec(text) ?? []
  if (peak === undefined) throw new Error(`exit ${String(code)}: ${text}`)
  return { code: Number(code), text, peak: Math.round(Number(peak) / 1024) }
}

const file = { name: 'x', mtime: 1_700_000_000 }

function* filesIn(count: number, directoryOf: (at: number) => number): TarPieces {
  yield* alike(file, count, at => `${directoryOf(at)}/${at}`)
}

function* deepPaths(): TarPieces {
  const name = Array.from({ length: 1000 }, () => 'd').join('/')
  yield tarBytes([{ ...file, name }], { end: false })
}

function* bigHeaders(): TarPieces {
  for (let at = 0; at < 20; at++) {
    const pax = Array.from({ length: 4 }, (_, n): [string, string] => [
      `comment${n}`,
      'c'.repeat(200_000),
    ])
    yield tarBytes([{ ...file, name: `f${at}`, pax }], { end: false })
  }
}

function* longLinks(): TarPieces {
  const target = 't'.repeat(4095)
  for (let at = 0; at < 10_000; at++)
    yield tarBytes([{ name: `s${at}`, type: 'symlink', linkname: target }], { end: false })
}

function* oneBody(bytes: number): TarPieces {
  yield tarBytes([{ ...file, name: 'zeros', size: bytes }], { end: false }).subarray(0, 512)
  yield* zeros(bytes)
}

const small: [
  what: string,
  pieces: () => TarPieces,
  compression: 'gzip' | 'zstd',
  error: RegExp | undefined,
][] = [
  [
    'a hundred thousand files',
    () => filesIn(100_000, at => Math.floor(at / 100)),
    'gzip',
    undefined,
  ],
  ['deep paths', deepPaths, 'gzip', undefined],
  ['large pax headers', bigHeaders, 'gzip', undefined],
  ['targets of links', longLinks, 'gzip', /ERR_KOCI_LIMIT_EXCEEDED/],
  [
    'half a gigabyte of zeros',
    () => oneBody(512 * megabyte),
    'zstd',
    /ERR_KOCI_LIMIT_EXCEEDED/,
  ],
]
for (const [what, pieces, compression, error] of small)
  await t.test(`under 1 MB of ${what} takes at most 150 MB`, { timeout: 240_000 }, async t => {
    const base = roomyDirectory(t)
    const { image, sizes } = await makeBigImage(
      path.join(base, 'images'),
      [pieces()],
      compression,
    )
    t.ok(Math.max(...sizes) < megabyte, `${Math.max(...sizes)} bytes`)
    const bundle = path.join(base, 'bundle')
    const { code, peak, text } = await run(['unpack', ...rootless, '--image', image, bundle])
    if (error) t.match(text, error)
    else {
      t.equal(code, 0, text)
      t.notMatch(text, /^koci:/m, 'no warnings')
    }
    t.ok(peak <= 150, `${peak} MB`)
    t.comment(`${what}: ${peak} MB`)
  })

await t.test(
  'K18 a million files, half of them in one directory, take at most 350 MB',
  // seconds in memory, minutes on a busy disk
  { timeout: 1_260_000 },
  async t => {
    const base = roomyDirectory(t)
    const pieces = filesIn(1_000_000, at => (at < 500_000 ? 0 : Math.floor(at / 100)))
    const { image } = await makeBigImage(path.join(base, 'images'), [pieces])
    const bundle = path.join(base, 'bundle')
    const unpacking = await run(['unpack', ...rootless, '--image', image, bundle])
    t.equal(unpacking.code, 0, unpacking.text)
    t.ok(unpacking.peak <= 350, `unpack: ${unpacking.peak} MB`)
    const repacking = await run(['repack', '--image', image, bundle])
    t.equal(repacking.code, 0, repacking.text)
    t.ok(repacking.peak <= 350, `repack: ${repacking.peak} MB`)
    t.comment(`a million: unpack ${unpacking.peak} MB, repack ${repacking.peak} MB`)
  },
)

/** A layout with a tag, of one file, and a place for a bundle. */
async function smallImage(t: { testdir(): string }) {
  const base = t.testdir()
  const layers = [[{ name: 'there', body: 'there' }]]
  const image = await makeImage(path.join(base, 'images'), 'a', { layers })
  return { base, image, bundle: path.join(base, 'bundle') }
}

await t.test(
  'two million changes that a lister in code lists take at most 250 MB',
  { timeout: 240_000 },
  async t => {
    const { image, bundle } = await smallImage(t)
    const script = path.join(import.meta.dirname, 'support/many-changes.js')
    const { code, text, peak } = await runNode([
      script,
      path.join(dist, 'middleware/index.js'),
      image,
      bundle,
    ])
    t.equal(code, 0, text)
    t.ok(peak <= 250, `${peak} MB`)
    t.comment(`in code: ${peak} MB`)
  },
)

await t.test(
  'two million paths that a hook lists take at most 250 MB',
  { timeout: 240_000 },
  async t => {
    const { image, bundle } = await smallImage(t)
    const place = hookPlace(t)
    const unpacking = await run(['unpack', ...rootless, '--image', image, bundle])
    t.equal(unpacking.code, 0, unpacking.text)
    // without a record all of them are taken as listed
    for (const name of readdirSync(bundle))
      if (/\.(mtree|stat)$/.test(name)) rmSync(path.join(bundle, name))
    const count = 2_000_000
    const script = place.script('list', `seq ${count} | sed 's/$/ file/' | tr '\\n' '\\0'`)
    const hooks = place.file(hookTable('repack.ociv1.layer.delta-list', script))
    const output = path.join(place.base, 'output')
    const fd = openSync(output, 'w')
    const delta = [path.join(dist, 'bin/koci.js'), 'delta', '--hooks', hooks, '-0', bundle]
    const { code, text, peak } = await runNode(delta, fd)
    closeSync(fd)
    t.equal(code, 0, text)
    const lines = readFileSync(output, 'latin1').split('\0')
    t.equal(lines.length, count + 1)
    t.same(lines.slice(0, 2), ['D 1 file', 'D 10 file'])
    t.ok(peak <= 250, `${peak} MB`)
    t.comment(`by a hook: ${peak} MB`)
  },
)
