// What a command has around it: where it prints, when it is to stop, and an application with its chain.
import { once } from 'node:events'
import { createError } from '../lib/errors.ts'
import type { Koci } from '../lib/application.ts'
import type { Driver } from '../lib/driver.ts'
import { printable } from '../lib/text.ts'
import type { Arguments } from './arguments.ts'
import type { Chain, ChainWishes } from './chain/compose-chain.ts'
import { programName } from './program-name.ts'
import { usageError } from './usage-error.ts'

/** How many pieces are written at once. */
const heldPieces = 1000
const levels = ['debug', 'info', 'warn', 'error', 'fatal'] as const

/** How much is said on standard error. */
export type Level = (typeof levels)[number]

export class Session {
  readonly signal: AbortSignal
  readonly level: Level
  readonly json: boolean
  readonly #strict: boolean
  readonly #progress: boolean
  #isShowing = false

  /** @throws {UsageError} ERR_KOCI_INVALID_OPTION for a level there isn't, or two */
  constructor(args: Arguments, signal: AbortSignal) {
    this.signal = signal
    this.level = parseLevel(args)
    this.json = args.has('json')
    this.#strict = args.has('strict')
    this.#progress = !args.has('no-progress') && !args.has('quiet')
  }

  /** Whether messages of this level are wanted. */
  says(level: Level): boolean {
    return levels.indexOf(level) >= levels.indexOf(this.level)
  }

  /** Prints a line on standard output; control characters are shown, not sent. */
  print(line: string): void {
    // it takes the place of what is being shown, which is drawn anew below it
    const clear = this.#isShowing && process.stdout.isTTY ? '\r\x1b[K' : ''
    process.stdout.write(`${clear}${printable(line)}\n`)
  }

  /** Prints bytes as they are; waits for whoever reads them. */
  async write(bytes: Uint8Array): Promise<void> {
    if (!process.stdout.write(bytes))
      await once(process.stdout, 'drain', { signal: this.signal })
  }

  /** Prints pieces of text or bytes, many at a time; waits for whoever reads them. */
  async writeAll(pieces: Iterable<string | Uint8Array>): Promise<void> {
    let held: Uint8Array[] = []
    for (const piece of pieces) {
      held.push(typeof piece === 'string' ? Buffer.from(piece) : piece)
      if (held.length < heldPieces) continue
      await this.write(Buffer.concat(held))
      held = []
    }
    await this.write(Buffer.concat(held))
  }

  /** Prints a value as one line of JSON. */
  printJson(value: unknown): void {
    process.stdout.write(`${JSON.stringify(value)}\n`)
  }

  /**
   * An application with its warnings on standard error, and the chain that was asked for.
   * @throws {NotFoundError} ERR_KOCI_DRIVER_NOT_FOUND and whatever else is wrong with a chain
   */
  async application(wishes: ChainWishes = {}): Promise<Koci> {
    return this.compose(await this.chain(wishes, await this.#front()))
  }

  /** Shows how far something is that may take long, where `application` would. */
  async showing<T>(text: () => string, action: () => Promise<T>): Promise<T> {
    if (!this.#progress || this.json || this.says('info')) return action()
    const { statusOn } = await import('../middleware/progress/status-line.ts')
    let result: T | undefined
    this.#isShowing = true
    await statusOn(process.stderr).during(text, async () => {
      result = await action()
    })
    return result as T
  }

  /** An application with this chain. */
  async compose({ parts, configured }: Chain): Promise<Koci> {
    const { Koci } = await import('../lib/application.ts')
    const app = new Koci({ strict: this.#strict })
    app.on('warning', ({ data }) => {
      const { code, message, layer, count = 1 } = data
      const where = layer === undefined ? '' : `layer ${layer.slice(0, 19)}: `
      const times = count > 1 ? `, ${count} times` : ''
      this.#tellWarning(`${where}${message}`, `${code}${times}`)
    })
    for (const { driver } of parts) app.use(driver)
    if (configured)
      app.onAny(({ name, data }) => configured.emit(name as 'warning', data as never))
    return app
  }

  /** The chain of `application`, and who put each driver there; without what only tells how far things are. */
  async chain(wishes: ChainWishes, front: readonly Driver[] = []): Promise<Chain> {
    const { composeChain } = await import('./chain/compose-chain.ts')
    return composeChain(front, wishes)
  }

  async #front(): Promise<Driver[]> {
    if (this.says('info')) {
      const { log } = await import('../middleware/log/index.ts')
      return [log({ write: line => note(`${programName}: ${line}`) })]
    }
    if (!this.#progress || this.json) return []
    const { progress } = await import('../middleware/progress/index.ts')
    return [progress()]
  }

  /**
   * Warns of something outside of a run of the application.
   * @throws {UsageError} ERR_KOCI_STRICT
   */
  warn(code: string, message: string): void {
    if (this.#strict) throw createError('STRICT', { subject: code, reason: message })
    this.#tellWarning(message, code)
  }

  #tellWarning(message: string, code: string): void {
    if (this.says('warn')) note(`${programName}: warning: ${message} [${code}]`)
  }
}

/** A line on standard error; on a terminal it takes the place of a progress line, which is drawn anew below it. */
export function note(line: string): void {
  const clear = process.stderr.isTTY ? '\r\x1b[K' : ''
  process.stderr.write(`${clear}${printable(line)}\n`)
}

function parseLevel(args: Arguments): Level {
  const text = args.text('log')
  if (args.has('quiet')) {
    if (text === undefined && !args.has('verbose')) return 'error'
    throw usageError('--quiet', 'means --log=error - give one of the two')
  }
  if (text === undefined) return args.has('verbose') ? 'info' : 'warn'
  if (args.has('verbose'))
    throw usageError('--verbose', 'means --log=info - give one of the two')
  const name = text.toLowerCase() === 'warning' ? 'warn' : text.toLowerCase()
  const level = levels.find(level => level === name)
  if (!level) throw usageError('--log', `${text} is not one of ${levels.join(', ')}`)
  return level
}
