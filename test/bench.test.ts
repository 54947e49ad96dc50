// The bench works: a small run of every case gives figures in the form that is promised, and leaves nothing behind.
// How fast anything is isn't looked at.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'
import type { Case, CaseResult } from '../bench/case.ts'
import { median, medianOf, type Measurement } from '../bench/measure.ts'
import { slope } from '../bench/cases/scaling.ts'
import type { Report } from '../bench/report.ts'
import { childEnvironment, plainly } from './bin/run-koci.ts'
import { roomyDirectory } from './support/memory-dir.ts'

interface Finished {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

type Test = Pick<typeof t, 'equal' | 'match' | 'ok' | 'type' | 'notHas'>

// a dozen programs run several times
t.setTimeout(1_080_000)

const root = path.resolve(import.meta.dirname, '..')
const index = path.join(root, 'bench/index.ts')
const names = readdirSync(path.join(root, 'bench/cases'))
  .map(name => path.basename(name, '.ts'))
  .sort()

const canUnshare = spawnSync('unshare', ['-m', 'true'], { timeout: 10_000 }).status === 0

/** What it mounts mustn't be copied into the mount namespaces of other tests: it couldn't be unmounted, then. */
function inNamespace(command: string, args: readonly string[]): ReturnType<typeof plainly> {
  return canUnshare
    ? plainly('unshare', ['-m', '--propagation', 'private', command, ...args])
    : plainly(command, args)
}

/** Runs the bench to its end; it is told to stop, and tidies up, if this file has to end before. */
function bench(...args: string[]): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(...inNamespace(process.execPath, [index, ...args]), {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 400_000,
      env: childEnvironment({ COLUMNS: '96' }),
    })
    const stop = (): void => {
      child.kill()
    }
    process.once('exit', stop)
    let [stdout, stderr] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.on('error', reject)
    child.on('close', status => {
      process.off('exit', stop)
      resolve({ status, stdout, stderr })
    })
  })
}

/** The built command line and library, made from these sources. */
function build(directory: string): string {
  const tsc = path.join(root, 'node_modules/.bin/tsc')
  const config = path.join(root, 'tsconfig.build.json')
  const { status, stdout } = spawnSync(...plainly(tsc, ['-p', config, '--outDir', directory]), {
    encoding: 'utf8',
    env: childEnvironment(),
    timeout: 120_000,
  })
  if (status !== 0) throw new Error(stdout)
  return path.join(directory, 'bin/koci.js')
}

await t.test('figures', async t => {
  t.equal(median([3, 1, 2]), 2)
  t.equal(median([4, 1, 2, 3]), 2.5)
  const run = (wall: number, peak: number): Measurement => ({ wall, peak, user: 1, sys: 2 })
  t.same(medianOf([run(1, 30), run(2, 10), run(3, 20)]), run(2, 20))
  for (const exponent of [0, 1, 2]) {
    const sizes = [10, 100, 1000]
    const found = slope(
      sizes,
      sizes.map(size => 7 * size ** exponent),
    )
    t.ok(Math.abs(found - exponent) < 1e-9, `exponent ${exponent}: ${found}`)
  }
  t.ok(Number.isNaN(slope([1, 2], [0, -1])))
})

await t.test('help, the list, and mistakes', async t => {
  const list = await bench('--list')
  t.equal(list.status, 0, list.stderr)
  t.same(
    list.stdout
      .trimEnd()
      .split('\n')
      .map(line => line.split(' ')[0]),
    names,
  )
  const help = await bench('--help')
  t.equal(help.status, 0)
  for (const option of ['quick', 'only', 'runs', 'dir', 'keep', 'json', 'list'])
    t.match(help.stdout, new RegExp(`--${option}\\b`))

  const mistakes: [args: string[], message: RegExp][] = [
    [['--only', 'merged,swimming'], /^bench: --only: swimming is not one of \w+, /],
    [['--without', 'pig'], /^bench: --without: pig is not one of umoci, /],
    [['--runs', '0'], /^bench: --runs: 0 is not/],
    [['--koci', 'nowhere'], /^bench: .*nowhere isn't there: run 'npm run build' first$/m],
    [['--speed', '9'], /Unknown argument: speed/],
  ]
  const koci = path.join(t.testdir({ koci: '' }), 'koci')
  const made = (): string[] =>
    ['/dev/shm', tmpdir()]
      .flatMap(place => (existsSync(place) ? readdirSync(place) : []))
      .filter(name => name.startsWith('koci-bench-'))
  const before = made()
  for (const [args, message] of mistakes) {
    const { status, stderr } = await bench('--koci', koci, ...args)
    t.equal(status, 1, args.join(' '))
    t.match(stderr, message)
    t.notMatch(stderr, /^ +at /m)
  }
  t.same(made(), before, 'nothing is left')
})

await t.test('a quick run of everything', { timeout: 440_000 }, async t => {
  // in this order: without room in memory both are one directory, which testdir makes anew
  const work = path.join(roomyDirectory(t), 'work')
  mkdirSync(work)
  const directory = t.testdir({ work: {} })
  const koci = build(path.join(directory, 'dist'))
  const json = path.join(directory, 'report.json')
  const args = ['--quick', '--koci', koci, '--dir', work]
  const { status, stdout, stderr } = await bench(...args, '--keep', '--json', json)
  t.equal(status, 0, stderr)
  t.match(stdout, /^TOO SMALL TO COUNT: /m)
  t.match(stdout, /: not judged\)$/m)
  t.notMatch(stdout, /: (met|MISSED)\)$/m)
  t.same(readdirSync(work), ['corpus'], 'nothing else is left')

  const report = JSON.parse(readFileSync(json, 'utf8')) as Report
  t.match(report, { quick: true, runs: 1, counts: false, machine: { node: process.version } })
  t.same(Object.keys(report.cases).sort(), names)
  const present = report.peers.filter(({ version }) => version !== undefined)
  t.equal(present.length + report.missing.length, 7, 'programs are there or named as missing')
  const { corpus } = report
  t.ok(corpus && corpus.entries > 400 && corpus.bytes > 3e6 && corpus.compressed > 1e6)
  t.ok((corpus?.tooSmall.length ?? 0) > 0)
  for (const [name, result] of Object.entries(report.cases)) checkResult(t, name, result)

  const has = (name: string): boolean => present.some(peer => peer.name === name)
  const contenders = report.cases['merged']?.series.map(series => series.name)
  const plain = has('pigz') && has('tar')
  t.same(contenders, [
    'koci',
    ...(plain ? ['pigz -dc | tar x'] : []),
    ...['bsdtar', 'umoci'].filter(has),
  ])
  t.equal(report.cases['repack']?.series.length, has('umoci') ? 8 : 4)

  const again = await bench(...args, '--only', 'merged', '--without', 'umoci')
  t.equal(again.status, 0, again.stderr)
  t.match(again.stdout, /^corpus from /m)
  t.match(again.stdout, /^(unwanted|missing): umoci: /m)
  t.notMatch(again.stdout, /^ +umoci /m)
  t.same(readdirSync(work), ['corpus'], 'what was there stays')
})

await t.test('a program that fails is told in one line, and nothing is left', async t => {
  const directory = t.testdir({ work: {} })
  const koci = path.join(directory, 'bin/koci.js')
  mkdirSync(path.dirname(koci))
  writeFileSync(koci, 'console.error("out of order"); process.exit(7)\n')
  const work = path.join(directory, 'work')
  const args = ['--quick', '--koci', koci, '--dir', work, '--only', 'merged']
  const { status, stderr } = await bench(...args)
  t.equal(status, 1)
  t.match(stderr, /^bench: .*koci\.js unpack .*: out of order\n$/)
  t.ok(existsSync(work))
  t.same(readdirSync(work), [])
})

/** Every run has all figures, and they can be. */
function checkResult(t: Test, name: Case['name'], result: CaseResult): void {
  if (['drivers', 'overlay'].includes(name) && process.geteuid?.() !== 0) {
    t.match(result, { series: [], checks: [], notes: [/^left out: /] })
    return
  }
  // where nothing can be mounted in a file
  if (name === 'drivers' && result.series.length === 0) {
    t.ok(result.notes.some(note => note.startsWith('left out: ')))
    return
  }
  t.ok(result.series.length > 0, name)
  for (const series of result.series) {
    t.equal(series.runs.length, 1, `${name}: ${series.name}`)
    for (const run of [series.median, ...series.runs]) {
      t.ok(run.wall > 0 && run.wall < 120, `wall ${run.wall}`)
      t.ok(run.user >= 0 && run.sys >= 0 && run.user + run.sys < 120)
      // sampled: of what is over in a moment there may be little
      t.ok(run.peak < 2e9 && (run.peak > 1e5 || run.wall < 0.1), `peak ${run.peak}`)
    }
  }
  for (const rate of result.rates ?? []) t.type(rate.unit, 'string')
  t.ok(result.checks.length > 0)
  for (const check of result.checks) {
    t.type(check.name, 'string')
    t.notHas(check, { met: check.met ?? true }, 'nothing is judged')
  }
  for (const note of result.notes) t.type(note, 'string')
}
