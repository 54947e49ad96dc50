// One run of a command, bounded in time and in what it may say, in a clean room: its own session and process group, a fixed
// directory and umask, no environment and no descriptors but those named here. Nothing it does can make koci hang: when its
// time is over the whole group is killed, and pipes that somebody else keeps open are closed all the same.
import { spawn, type ChildProcess } from 'node:child_process'
import { createError } from '../../lib/errors.ts'
import { closeOnExec } from '../../lib/fs/close-on-exec.ts'
import { assertRunnable, type HookCommand } from './hooks-file.ts'
import { declined, hookKinds } from './hook-names.ts'

/** What a command is given, and where its output goes. */
export interface HookCall {
  /** After the command's own arguments. */
  readonly args: readonly string[]
  /** One JSON document. */
  readonly input: unknown
  readonly signal: AbortSignal
  /** Gets standard output in order; the command waits for it. */
  readonly output: (chunk: Buffer) => Promise<void> | void
  /** The most bytes of it. */
  readonly maxOutput: number
}

/** After SIGTERM, and after the command's end for whoever still holds its pipes. */
const graceMs = 1000
const keptErrorBytes = 4096
const shownErrorLines = 5
/** What every command has; what else it gets is named in the file. */
const ownEnvironment = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' }
/** Node can't set the umask of a child alone. The words after it reach the command unchanged. */
const launcher: readonly [string, ...string[]] = [
  '/bin/sh',
  '-c',
  'umask 022 && exec "$@"',
  'koci-hook',
]

/**
 * Runs a command to its end.
 * @returns whether it answered; false if it declined, where it may
 * @throws {SystemError} ERR_KOCI_HOOK_FAILED with its status and the end of its standard error, also after a timeout;
 * {LimitError} ERR_KOCI_LIMIT_EXCEEDED if it says too much; {UsageError} ERR_KOCI_UNTRUSTED; what `output` throws
 */
export async function runHook(hook: HookCommand, call: HookCall): Promise<boolean> {
  call.signal.throwIfAborted()
  await assertRunnable(hook)
  return new HookRun(hook, call).result
}

class HookRun {
  readonly result: Promise<boolean>
  readonly #hook: HookCommand
  readonly #call: HookCall
  readonly #child: ChildProcess
  readonly #timers: NodeJS.Timeout[] = []
  /** What went wrong first; the command's own failure is only a consequence then. */
  #failure: { readonly error: unknown } | undefined
  #stderr = Buffer.alloc(0)

  constructor(hook: HookCommand, call: HookCall) {
    this.#hook = hook
    this.#call = call
    closeOnExec()
    const [shell, ...words] = launcher
    words.push(...hook.command, ...call.args)
    try {
      this.#child = spawn(shell, words, {
        cwd: '/',
        env: environmentOf(hook),
        detached: true,
        stdio: 'pipe',
      })
    } catch (error) {
      throw this.#failed(`could not be run: ${(error as Error).message}`, error)
    }
    this.result = this.#follow()
  }

  async #follow(): Promise<boolean> {
    const child = this.#child
    const { signal, input } = this.#call
    const ended = new Promise<void>(resolve => {
      child.on('error', error => {
        this.#failure ??= { error: this.#failed(`could not be run: ${error.message}`, error) }
        resolve()
      })
      child.on('exit', () => resolve())
    })
    const { timeoutMs } = this.#hook
    this.#after(timeoutMs, () =>
      this.#stop(this.#failed(`was stopped after ${timeoutMs / 1000} seconds`)),
    )
    const onAbort = (): void => this.#stop(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    // it need not read all of it, or any
    child.stdin?.on('error', () => {})
    child.stdin?.end(JSON.stringify(input))
    const reading = Promise.all([this.#readOutput(), this.#readErrors()])
    try {
      await ended
      if (this.#failure || child.exitCode !== 0) this.#kill('SIGKILL')
      await this.#drained(reading)
      return this.#verdict()
    } finally {
      signal.removeEventListener('abort', onAbort)
      for (const timer of this.#timers) clearTimeout(timer)
      for (const stream of child.stdio) stream?.destroy()
    }
  }

  #verdict(): boolean {
    if (this.#failure) throw this.#failure.error
    const { exitCode, signalCode } = this.#child
    if (exitCode === 0) return true
    if (exitCode === declined && hookKinds[this.#hook.hook].canDecline) return false
    throw this.#failed(
      signalCode === null ? `exited with status ${exitCode}` : `was ended by ${signalCode}`,
    )
  }

  async #readOutput(): Promise<void> {
    const { maxOutput, output } = this.#call
    let length = 0
    try {
      for await (const chunk of this.#child.stdout ?? []) {
        length += (chunk as Buffer).length
        if (length > maxOutput)
          throw createError('LIMIT_EXCEEDED', {
            subject: this.#hook.command[0],
            limit: 'output of a hook',
            value: length,
            maximum: maxOutput,
          })
        await output(chunk as Buffer)
      }
    } catch (error) {
      // a pipe that we closed has no end
      if (!isPremature(error)) this.#stop(error)
    }
  }

  async #readErrors(): Promise<void> {
    try {
      for await (const chunk of this.#child.stderr ?? [])
        this.#stderr = Buffer.concat([this.#stderr, chunk as Buffer]).subarray(-keptErrorBytes)
    } catch {
      // closed by us
    }
  }

  /** What the command wrote is all there; what others who hold its pipes may still write isn't waited for. */
  async #drained(reading: Promise<unknown>): Promise<void> {
    let seen = bytesRead(this.#child)
    for (;;) {
      let timer: NodeJS.Timeout | undefined
      const patience = new Promise<'late'>(resolve => {
        timer = setTimeout(() => resolve('late'), graceMs)
      })
      const outcome = await Promise.race([reading, patience])
      clearTimeout(timer)
      const read = bytesRead(this.#child)
      if (outcome !== 'late' || read === seen || this.#failure) break
      seen = read
    }
    for (const stream of this.#child.stdio) stream?.destroy()
    await reading
  }

  /** Ends the whole group, politely first. */
  #stop(error: unknown): void {
    this.#failure ??= { error }
    this.#kill('SIGTERM')
    this.#after(graceMs, () => this.#kill('SIGKILL'))
  }

  #kill(signal: NodeJS.Signals): void {
    const { pid } = this.#child
    if (pid === undefined) return
    try {
      process.kill(-pid, signal)
    } catch {
      // there is nobody left
    }
  }

  #after(ms: number, run: () => void): void {
    this.#timers.push(setTimeout(run, ms))
  }

  #failed(outcome: string, cause?: unknown): Error {
    const { hook, command } = this.#hook
    const lines = this.#stderr.toString().trim().split('\n').slice(-shownErrorLines)
    const said = lines.join('; ') || 'it said nothing on standard error'
    const { exitCode: status, signalCode } = (this.#child as ChildProcess | undefined) ?? {}
    return createError(
      'HOOK_FAILED',
      { subject: command[0], hook, outcome, said, status, signal: signalCode },
      cause,
    )
  }
}

function environmentOf({ env, hook }: HookCommand): NodeJS.ProcessEnv {
  const named = env.flatMap(name => {
    const value = process.env[name]
    return value === undefined ? [] : [[name, value]]
  })
  return { ...ownEnvironment, ...Object.fromEntries(named), KOCI_HOOK: hook }
}

function bytesRead({ stdout, stderr }: ChildProcess): number {
  const count = (stream: unknown): number =>
    (stream as { bytesRead?: number } | null)?.bytesRead ?? 0
  return count(stdout) + count(stderr)
}

function isPremature(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE'
}
