// Other programs and other users, for tests that run koci beside them. Every child process has a limit.
import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { layersOf } from '../../lib/unpack.ts'

/** Whether this process may make devices, change owners and become another user. */
export const isRoot: boolean = process.geteuid?.() === 0

/** Somebody without privileges and without an account. */
const ordinary = { uid: 12_345, gid: 12_345 }
const kociChild = path.join(import.meta.dirname, 'koci-child.ts')
const timeout = 60_000

export interface RunOptions {
  readonly env?: NodeJS.ProcessEnv
  /** Without privileges, even if this process has some. */
  readonly ordinary?: boolean
  readonly umask?: string
  readonly cwd?: string
  /** After so many ms it is killed; a minute by default. */
  readonly timeout?: number
  /** On this processor only. */
  readonly processor?: number
}

/** What a finished child process said. */
export interface Finished {
  /** Null if a signal ended it. */
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** False, or which of the programs are missing: the reason to skip a test. */
export function missing(...programs: string[]): false | string {
  const absent = programs.filter(
    program =>
      spawnSync('sh', ['-c', 'command -v "$0"', program], { timeout, stdio: 'ignore' })
        .status !== 0,
  )
  return absent.length > 0 && `needs ${absent.join(', ')}`
}

/** False, or why umoci can't be run, `--rootless` or not. */
export function umociMissing(rootless: boolean): false | string {
  const absent = missing('umoci')
  if (absent !== false) return absent
  return (
    rootless && !existsSync('/etc/resolv.conf') && 'needs /etc/resolv.conf: umoci --rootless'
  )
}

/** False, or why koci can't be run without privileges. */
export function ordinaryMissing(): false | string {
  if (!isRoot) return false
  const absent = missing('setpriv')
  if (absent !== false) return absent
  const { status } = finish(process.execPath, [kociChild, '[]'], { ordinary: true })
  return status !== 0 && 'needs sources and node that other users may read'
}

/** Runs a program to its end, whatever that is; throws only if it can't be run or takes too long. */
export function finish(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Finished {
  let command = [program, ...args]
  if (options.umask !== undefined)
    command = ['sh', '-c', `umask ${options.umask}; exec "$@"`, 'sh', ...command]
  if (options.processor !== undefined)
    command = ['taskset', '-c', String(options.processor), ...command]
  if (options.ordinary === true && isRoot) {
    const { uid, gid } = ordinary
    command = [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', '--', ...command]
    command.unshift('setpriv')
  }
  const [first = '', ...rest] = command
  const { error, status, stdout, stderr } = spawnSync(first, rest, {
    timeout: options.timeout ?? timeout,
    killSignal: 'SIGKILL',
    encoding: 'utf8',
    maxBuffer: 64 << 20,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...options.env },
    cwd: options.cwd ?? '/',
  })
  if (error) throw error
  return { status, stdout, stderr }
}

/** Runs a program that has to succeed, and returns what it printed. */
export function run(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): string {
  const { status, stdout, stderr } = finish(program, args, options)
  if (status === 0) return stdout
  throw new Error(`${program} ${args.join(' ')}: ${status ?? 'killed'}: ${stderr}${stdout}`)
}

/** Runs koci in a process of its own: a list of calls, one after the other; returns what each of them tells. */
export function runKoci(calls: readonly KociCall[], options: RunOptions = {}): KociAnswer[] {
  const args = [kociChild, JSON.stringify(calls)]
  return JSON.parse(run(process.execPath, args, options))
}

/** The arguments of node for the same, to start it in another way. */
export function kociArguments(calls: readonly KociCall[]): string[] {
  return [kociChild, JSON.stringify(calls)]
}

/** What a child process is to do: the method, and its options. */
export type KociCall = readonly ['unpack' | 'repack', Record<string, unknown>]

export interface KociAnswer {
  /** Of a repack, as `M etc/motd`. */
  readonly changes: string[]
  /** Of the manifest that was made. */
  readonly manifest?: string
  /** Digests of all its layers. */
  readonly layers?: string[]
}

interface Test {
  teardown(undo: () => unknown): void
}

/** A directory that everybody may use, removed after the test, whatever modes the files in it got. */
export function temporary(t: Test, name = 'peers', parent: string = tmpdir()): string {
  const directory = mkdtempSync(path.join(parent, `koci-${name}-`))
  chmodSync(directory, 0o755)
  t.teardown(() => {
    if (!isRoot) finish('chmod', ['-R', 'u+rwX', directory])
    run('rm', ['-rf', '--one-file-system', directory])
  })
  return directory
}

/** Hands a tree to the user without privileges. */
export function giveToOrdinary(directory: string): void {
  if (!isRoot) return
  chownSync(directory, ordinary.uid, ordinary.gid)
  run('chown', ['-R', `${ordinary.uid}:${ordinary.gid}`, directory])
}

/** How many layers an image has. */
export async function countLayers(images: string, refName: string): Promise<number> {
  await using layout = await ImageLayout.open(images)
  return (await layout.resolve(refName)).layers.length
}

/** The entries of the layers from `first` on, as `file etc/motd`, in their order; the root is `.`. */
export async function entriesOf(
  images: string,
  refName: string,
  first: number,
): Promise<string[]> {
  await using layout = await ImageLayout.open(images)
  const image = { layout, ...(await layout.resolve(refName)) }
  const found: string[] = []
  for (const layer of layersOf(image).slice(first))
    for await (const { header } of layer.entries())
      found.push(
        `${header.type} ${header.rawPath
          .toString('latin1')
          .replace(/\/$/, '')
          .replace(/^\.\//, '')}`,
      )
  return found
}
