#!/usr/bin/env node
// npm run bench: makes a corpus, measures koci and its peers on it, prints what it found, and removes what it made.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import yargs from 'yargs'
import { KociError } from '../lib/errors.ts'
import { Bench } from './bench.ts'
import { BenchError } from './bench-error.ts'
import { loadCases, type Case, type CaseResult } from './case.ts'
import { availableMemory, describeMachine } from './machine.ts'
import { Peers } from './peers.ts'
import { removeTree } from './remove-tree.ts'
import { caseText, corpusText, machineText, type Report } from './report.ts'

const root = path.resolve(import.meta.dirname, '..')
const needed = { full: 8e9, quick: 1e9 }

const abort = new AbortController()
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.once(name, () => {
    abort.abort(new BenchError(`stopped by ${name}`))
  })

try {
  await main()
} catch (error) {
  process.exitCode = 1
  const isTold = error instanceof BenchError || error instanceof KociError
  console.error('bench:', isTold ? error.message : error)
}

async function main(): Promise<void> {
  const cases = await loadCases()
  const args = await parse()
  if (args.list) {
    for (const { name, description } of cases) console.log(`${name.padEnd(10)} ${description}`)
    return
  }
  if (!existsSync(args.koci))
    throw new BenchError(`${args.koci} isn't there: run 'npm run build' first`)
  if (args.runs < 1 || !Number.isInteger(args.runs))
    throw new BenchError(`--runs: ${args.runs} is not a whole number from 1 on`)
  const chosen = choose(cases, args.only)
  const peers = new Peers(split(args.without))
  const directory = args.dir === undefined ? newDirectory(args.quick) : path.resolve(args.dir)
  await measureAll(chosen, directory, peers, args)
}

async function parse() {
  return yargs(process.argv.slice(2))
    .scriptName('npm run bench --')
    .usage(
      '$0 [options]\n\nMeasures koci, and the programs that it is compared with, side by side.',
    )
    .options({
      quick: {
        boolean: true,
        default: false,
        description:
          'a small corpus and one run: whether the bench works, not how fast koci is',
      },
      only: { string: true, description: 'these cases, with commas between them' },
      without: {
        string: true,
        description: 'programs that are left out although they are here, with commas',
      },
      runs: { number: true, description: 'how often everything runs [3, with --quick 1]' },
      dir: {
        string: true,
        description: 'where to work; a corpus that was kept there is used again',
      },
      keep: { boolean: true, default: false, description: 'keep the corpus' },
      json: { string: true, description: 'a file to write all figures to' },
      koci: {
        string: true,
        default: path.join(root, 'dist/bin/koci.js'),
        defaultDescription: 'dist/bin/koci.js',
        description: 'the built command line to measure',
      },
      list: { boolean: true, default: false, description: 'list the cases' },
    })
    .version(false)
    .parserConfiguration({ 'duplicate-arguments-array': false })
    .strict()
    .locale('en')
    .wrap(Math.min(96, process.stdout.columns || 96))
    .middleware(args => {
      args['runs'] ??= args['quick'] ? 1 : 3
    })
    .parseAsync()
    .then(args => ({ ...args, runs: args.runs ?? 1, koci: path.resolve(args.koci) }))
}

function split(list: string | undefined): string[] {
  return list === undefined ? [] : list.split(',')
}

function choose(cases: readonly Case[], only: string | undefined): readonly Case[] {
  if (only === undefined) return cases
  return split(only).map(name => {
    const found = cases.find(each => each.name === name)
    if (found) return found
    const names = cases.map(each => each.name).join(', ')
    throw new BenchError(`--only: ${name || 'nothing'} is not one of ${names}`)
  })
}

/** In memory where there is enough of it: disks are slow in ways of their own. */
function newDirectory(quick: boolean): string {
  const bytes = quick ? needed.quick : needed.full
  const [place = tmpdir()] = ['/dev/shm', tmpdir()].filter(each => {
    if (!existsSync(each)) return false
    const { bavail, bsize } = statfsSync(each)
    return bavail * bsize > bytes && (each !== '/dev/shm' || availableMemory() > 1.5 * bytes)
  })
  return mkdtempSync(path.join(place, 'koci-bench-'))
}

async function measureAll(
  cases: readonly Case[],
  directory: string,
  peers: Peers,
  args: Awaited<ReturnType<typeof parse>>,
): Promise<void> {
  const { quick, runs, koci } = args
  const isOurs = args.dir === undefined
  mkdirSync(directory, { recursive: true })
  const corpusDirectory = path.join(directory, 'corpus')
  const hadCorpus = existsSync(path.join(corpusDirectory, 'corpus.json'))
  const workDirectory = mkdtempSync(path.join(directory, 'work-'))
  const { signal } = abort
  const bench = new Bench({
    quick,
    runs,
    koci,
    corpusDirectory,
    workDirectory,
    peers,
    signal,
    log: line => {
      console.log(line)
    },
  })
  const head = {
    koci: (
      JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string }
    ).version,
    startedAt: new Date().toISOString(),
    quick,
    runs,
    machine: describeMachine(),
    peers: peers.list,
    missing: peers.absences(),
  }
  try {
    console.log(machineText({ ...head, counts: false, corpus: undefined }))
    const corpus = await bench.corpus()
    console.log(corpusText(corpus))
    const results: Record<string, CaseResult> = {}
    for (const { name, description, run } of cases) {
      console.log(`\n== ${name}: ${description}`)
      const result = await run(bench)
      console.log(caseText(result))
      results[name] = result
    }
    const counts = !quick && corpus.tooSmall.length === 0
    const report: Report = { ...head, counts, corpus, cases: results }
    if (args.json !== undefined)
      writeFileSync(args.json, `${JSON.stringify(report, undefined, 2)}\n`)
  } finally {
    await removeTree(workDirectory)
    if (!args.keep && (isOurs || !hadCorpus)) await removeTree(corpusDirectory)
    if (args.keep) console.log(`\nkept: ${corpusDirectory}`)
    else if (isOurs) rmdirSync(directory)
  }
}
