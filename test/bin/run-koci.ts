// Runs the real program in a child process, as a shell would.
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

/** The program's source, which Node runs as it is. */
export const program: string = path.resolve(import.meta.dirname, '../../bin/koci.ts')

/** What came of a run; of one that was killed the code is null. */
export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** How to run it. */
export interface RunOptions {
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  /** Another program than the source: what is built. */
  readonly file?: string
  /** Another Node. */
  readonly node?: string
  /** Gets the child as soon as it runs. */
  readonly started?: (child: ReturnType<typeof spawn>) => void
}

/** Where the children's compiled code goes; removed when the tests end. */
export const home: string = mkdtempSync(path.join(tmpdir(), 'koci-test-home-'))
process.on('exit', () => rmSync(home, { recursive: true, force: true }))

/**
 * A command without tap's loader, which tap puts into the environment of every child: too slow, and for `tsc` too much.
 * `env` becomes the command, so signals reach it.
 */
export function plainly(
  command: string,
  args: readonly string[],
): [command: string, args: string[]] {
  return ['/usr/bin/env', ['-u', 'NODE_OPTIONS', command, ...args]]
}

/** The environment of a child: without tap's settings, and with a home of its own. */
export function childEnvironment(extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(NODE_|TAP|_TAPJS_|XDG_|SOURCE_DATE_EPOCH$)/.test(name),
  )
  return { ...Object.fromEntries(kept), HOME: home, ...extra }
}

/** Runs `koci ...args`; ends with it, after five minutes at the latest. */
export function koci(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const { cwd, env, file = program, node = process.execPath, started } = options
  return new Promise((resolve, reject) => {
    const child = spawn(...plainly(node, [file, ...args]), {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 300_000,
      killSignal: 'SIGKILL',
      env: childEnvironment(env),
      ...(cwd === undefined ? {} : { cwd }),
    })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk))
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk))
    child.on('error', reject)
    child.on('close', code => resolve({ code, stdout, stderr }))
    started?.(child)
  })
}

/** Whether this machine has user namespaces for `inUserNamespace()`: the reason to skip what needs them, or false. */
export const noUserNamespace: string | false =
  spawnSync('unshare', ['-Urm', 'true'], { timeout: 10_000 }).status !== 0 &&
  'needs unshare -Urm'

/** Runs `koci ...args` as root of a new user namespace. */
export function inUserNamespace(
  args: readonly string[],
  options: Pick<RunOptions, 'cwd' | 'env'> = {},
): Promise<Outcome> {
  return koci([process.execPath, program, ...args], {
    ...options,
    node: 'unshare',
    file: '-Urm',
  })
}

/** Does something for all items, a few at a time; outcomes in the order of the items. */
export async function several<T, R>(
  items: readonly T[],
  each: (item: T) => Promise<R>,
): Promise<R[]> {
  const outcomes: R[] = []
  const rest = items.entries()
  const work = async (): Promise<void> => {
    for (const [at, item] of rest) outcomes[at] = await each(item)
  }
  await Promise.all([work(), work(), work()])
  return outcomes
}
