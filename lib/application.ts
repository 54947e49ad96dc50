// The application: an ordered chain of drivers, and the two things one does with it. Nothing here knows storage.
import Emittery from 'emittery'
import { compose, type Middleware, type Next } from './compose.ts'
import type { LayerContext } from './context.ts'
import { membersOf, toDriver, type Driver, type Step, type Steps } from './driver.ts'
import { createError } from './errors.ts'
import type { KociEvents } from './events.ts'
import type { RepackOptions, RepackResult } from './repack.ts'
import type { Run } from './run.ts'
import { unpack, type UnpackOptions, type UnpackResult } from './unpack.ts'

/** Settings of an application. */
export interface KociOptions {
  /** Warnings become errors. @default false */
  readonly strict?: boolean
}

/**
 * Unpacks images and packs changes, the way its middleware says.
 *
 * First used is outermost, so decorators come before what they decorate. The chain is fixed by its first run;
 * runs of one application may overlap.
 * @example
 * const app = new Koci().use(mtree())
 * await app.unpack({ image: 'images:alpine', bundle: 'bundle' })
 */
export class Koci extends Emittery<KociEvents> {
  readonly strict: boolean
  readonly #drivers: Driver[] = []
  #frozen = false

  constructor(options: KociOptions = {}) {
    super()
    this.strict = options.strict ?? false
  }

  /** The drivers, outermost first. */
  get drivers(): readonly Driver[] {
    return this.#drivers
  }

  /** The drivers' names, for errors and records. */
  get chain(): readonly string[] {
    return this.#drivers.map(driver => driver.name)
  }

  /**
   * Adds a driver, or a function as middleware for `layer`, inside of all that were added before.
   * @throws {UsageError} ERR_KOCI_INVALID_MIDDLEWARE, or ERR_KOCI_FROZEN after the first run
   */
  use(middleware: Driver | Middleware<LayerContext>): this {
    const driver = toDriver(middleware, this.#drivers.length)
    if (this.#frozen) throw createError('FROZEN', { subject: driver.name })
    this.#drivers.push(driver)
    return this
  }

  /**
   * Unpacks an image into a new bundle. On failure nothing of it remains, and what was there before is untouched.
   * @throws {KociError} any; ERR_KOCI_CLOBBER if the bundle directory is in use as a bundle already
   */
  unpack(options: UnpackOptions): Promise<UnpackResult> {
    return unpack(this, options)
  }

  /**
   * Packs what changed in a bundle into a new image. An unchanged rootfs makes no layer.
   * On failure the layout has no new tag; blobs that nothing refers to may remain in it.
   * @throws {KociError} any; ERR_KOCI_NO_DELTA_LISTER if nobody in the chain can tell what changed
   */
  async repack(options: RepackOptions): Promise<RepackResult> {
    this.freeze()
    return (await import('./repack.ts')).repack(this, options)
  }

  /** For the runner: fixes the chain, and holds drivers to what they require. */
  freeze(): void {
    if (this.#frozen) return
    for (const { name, requires = [] } of this.#drivers)
      for (const required of requires)
        if (!this.chain.includes(required))
          throw createError('DRIVER_REQUIRED', {
            subject: name,
            wanted: required,
            chain: this.describeChain(),
          })
    this.#frozen = true
  }

  /** For the runner: runs the onion of a step. */
  step<S extends Step>(step: S, run: Run, context: Steps[S], end?: Next): Promise<void> {
    return compose(membersOf(this.#drivers, step), { step, abort: run.abort })(context, end)
  }

  /** For the runner: emits without waiting; a listener that fails is only warned about. */
  tell<E extends keyof KociEvents>(name: E, data: KociEvents[E]): void {
    this.emit(name, data).catch(error => process.emitWarning(error))
  }

  /** The chain for people. */
  describeChain(): string {
    return this.#drivers.length === 0 ? 'empty' : this.chain.join(', ')
  }
}
