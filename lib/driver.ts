// What a storage driver is: a named object with middleware for the steps it cares about.
// A bare function is middleware for `layer`: the layer is the request.
import { nameOf, type Member, type Middleware } from './compose.ts'
import type {
  ConfigContext,
  Context,
  DeltaContext,
  LayerContext,
  PackContext,
  RefreshContext,
  RepackContext,
  UnpackContext,
} from './context.ts'
import type { DriverOption, Recipe } from './driver-options.ts'
import { createError } from './errors.ts'

/** Every step and what its middleware is given. There is one onion per step. */
export interface Steps {
  /** Once per unpack. Choose layering, limits and variants before `next()`; the rootfs is complete after it. */
  unpack: UnpackContext
  /** Once per layer, all of them before anything is extracted, base first. Whoever has it places it and doesn't call `next()`. */
  locate: LayerContext
  /** Once per layer that wasn't found. Before `next()`: not extracted yet; after it: extracted and verified. */
  layer: LayerContext
  /** Once all layers are placed, and after a refresh. */
  mount: Context
  /** Before a refresh that needs it, and when a run failed after `mount`. */
  unmount: Context
  /** Once per unpack: the image config becomes `ctx.runtimeConfig`. */
  config: ConfigContext
  /** Once per repack, around all that follows. */
  repack: RepackContext
  /** Once per repack. A lister sets `ctx.changes`, or calls `next()` to leave it to the next one. */
  delta: DeltaContext
  /** Once per new layer: changes become `ctx.entries`, which middleware may wrap. */
  pack: PackContext
  /** A repack with refresh: the bundle's state is rebased on the new image. */
  refresh: RefreshContext
}

/** The name of a step. */
export type Step = keyof Steps

/** All steps, in the order in which a run meets them. */
export const steps: readonly Step[] = [
  'unpack',
  'locate',
  'layer',
  'mount',
  'unmount',
  'config',
  'repack',
  'delta',
  'pack',
  'refresh',
]

/** Middleware for some steps, under one name. */
export type Driver = { readonly [S in Step]?: Middleware<Steps[S]> } & {
  /** Shown in errors, recorded in the bundle; equal to the factory's name. */
  readonly name: string
  /** What the factory takes, for the command line. */
  readonly options?: Readonly<Record<string, DriverOption>>
  /** Names of drivers that have to be in the chain as well. */
  readonly requires?: readonly string[]
  /** What bundles remember of it; without it, that there was one. False: nothing, it doesn't matter to a bundle. */
  readonly recipe?: Recipe | false
  /** Says in a sentence what the driver would do. Without it, `explain` says "would run". */
  explain?(context: Context): string | Promise<string>
}

const known = new Set<string>([...steps, 'name', 'options', 'requires', 'recipe', 'explain'])

/**
 * Whatever `use()` was given, as a driver; a bare function as one for `layer` under its own name, or its place in the chain.
 * @throws {UsageError} ERR_KOCI_INVALID_MIDDLEWARE without a name, for a step that is no function, a member that is no step.
 */
export function toDriver(value: Driver | Middleware<LayerContext>, index: number): Driver {
  if (typeof value === 'function') return { name: nameOf(value, index), layer: value }
  if (typeof value !== 'object' || value === null) throw invalid(`#${index + 1}`, typeof value)
  if (typeof value.name !== 'string' || value.name === '')
    throw invalid(`#${index + 1}`, 'a driver needs a name')
  for (const key of Object.keys(value))
    if (!known.has(key)) throw invalid(value.name, `${key} is not a step`)
  for (const step of steps)
    if (value[step] !== undefined && typeof value[step] !== 'function')
      throw invalid(value.name, `its step ${step} is not a function`)
  return value
}

/** The drivers' middleware for one step, outermost first. A driver's methods keep their `this`. */
export function membersOf<S extends Step>(
  drivers: readonly Driver[],
  step: S,
): Member<Steps[S]>[] {
  return drivers.flatMap(driver => {
    const run = driver[step] as Middleware<Steps[S]> | undefined
    return run ? [{ name: driver.name, run: (ctx, next) => run.call(driver, ctx, next) }] : []
  })
}

function invalid(subject: string, reason: string): Error {
  return createError('INVALID_MIDDLEWARE', { subject: `middleware ${subject}`, reason })
}
