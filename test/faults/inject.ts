// Interrupting koci at a system call, by strace: killed on entering it, or with an error for its answer. Calls are counted
// by thread, as strace does.
import { spawn } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { childEnvironment, program, type Outcome } from '../bin/run-koci.ts'

/** Calls that change something others can see; those an architecture lacks are left out by the `?`. */
export const mutating: readonly string[] = [
  'mkdir mkdirat mknodat symlinkat link linkat rename renameat2 unlink unlinkat rmdir',
  'write pwrite64 writev ftruncate copy_file_range fsync fdatasync syncfs flock',
  'chmod fchmod fchmodat chown fchown fchownat utimensat',
  'setxattr lsetxattr fsetxattr removexattr fremovexattr lremovexattr',
  'fsopen fsconfig fsmount move_mount mount umount2',
].flatMap(calls => calls.split(' '))

/** Where to interrupt: the `when`th call of this name in a thread, from 1; with a path, of those that concern this file. */
export interface Point {
  readonly call: string
  readonly when: number
  readonly path?: string
}

/** What happens there. */
export type Fault = 'KILL' | 'ENOSPC' | 'EIO'

const limitMs = 60_000

/** All points that a run passes, in no order; of calls whose arguments match, if `only` is given. The run has to succeed. */
export async function pointsOf(
  args: readonly string[],
  log: string,
  calls: readonly string[] = mutating,
  only: RegExp = /^/,
): Promise<Point[]> {
  const traced = calls.map(call => `?${call}`).join(',')
  const outcome = await underStrace(['-e', `trace=${traced}`, '-o', log], args)
  if (outcome.code !== 0) throw new Error(`${args.join(' ')}: ${outcome.stderr}`)
  const counts = new Map<string, number>()
  const points = new Map<string, Point>()
  const lines = readFileSync(log, 'latin1').matchAll(/^(\d+) +(\w+)\((.*)$/gm)
  for (const [, thread = '', call = '', rest = ''] of lines) {
    // what strace has no name for it prints unasked, and can't interrupt
    if (!calls.includes(call)) continue
    const when = (counts.get(`${thread} ${call}`) ?? 0) + 1
    counts.set(`${thread} ${call}`, when)
    if (only.test(rest)) points.set(`${call} ${when}`, { call, when })
  }
  rmSync(log)
  return [...points.values()]
}

/** Runs koci with so many descriptors at most. */
export function runWithFiles(most: number, args: readonly string[]): Promise<Outcome> {
  return runBounded('prlimit', [`--nofile=${most}`], args)
}

/** Runs koci with a fault. */
export function runWith(
  fault: Fault,
  { call, when, path }: Point,
  args: readonly string[],
): Promise<Outcome> {
  const what = fault === 'KILL' ? 'signal=KILL' : `error=${fault}`
  const flags = ['-e', `trace=${call}`, '-e', `inject=${call}:${what}:when=${when}`]
  if (path !== undefined) flags.push('-P', path)
  return underStrace([...flags, '-o', '/dev/null'], args)
}

function underStrace(flags: readonly string[], args: readonly string[]): Promise<Outcome> {
  return runBounded('strace', ['-f', '-qq', ...flags, '--'], args)
}

function runBounded(
  command: string,
  flags: readonly string[],
  args: readonly string[],
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...flags, process.execPath, program, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true, // so that nothing of it outlives the limit
      // what Node keeps compiled isn't koci's work
      env: { ...childEnvironment(), NODE_OPTIONS: '', NODE_DISABLE_COMPILE_CACHE: '1' },
    })
    const limit = setTimeout(() => process.kill(-(child.pid ?? 0), 'SIGKILL'), limitMs)
    let [stdout, stderr] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.on('error', reject)
    child.on('close', code => {
      clearTimeout(limit)
      resolve({ code, stdout, stderr })
    })
  })
}
