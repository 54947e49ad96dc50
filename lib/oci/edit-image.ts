// Editing what an image says of itself: pure functions from one draft to the next. What isn't edited stays, fields that
// nobody knows included; what is known gets the order in which Go, and so umoci, writes it.
import { createError } from '../errors.ts'
import type { ImageDraft } from './image-draft.ts'
import type { ExecutionConfig, ImageConfig } from './image-config.ts'
import { normalizeTime } from './source-date.ts'

/** Lists and maps that can be emptied, by umoci's names for them. */
export const clearable = [
  'config.labels',
  'config.exposedports',
  'config.env',
  'config.volume',
  'config.cmd',
  'config.entrypoint',
  'manifest.annotations',
] as const

/** What to empty. */
export type Clearable = (typeof clearable)[number]

/** Changes to an image. What is undefined stays; an empty text removes the field. */
export interface ImageEdits {
  /** Done before everything else. */
  readonly clear?: readonly Clearable[] | undefined
  readonly created?: string | undefined
  readonly author?: string | undefined
  readonly os?: string | undefined
  readonly architecture?: string | undefined
  readonly variant?: string | undefined
  readonly user?: string | undefined
  readonly workingDir?: string | undefined
  readonly stopSignal?: string | undefined
  /** Replaces the whole list. */
  readonly entrypoint?: readonly string[] | undefined
  /** Replaces the whole list. */
  readonly cmd?: readonly string[] | undefined
  /** `NAME=value`; takes the place of an entry of the same name, or is added. */
  readonly env?: readonly string[] | undefined
  readonly exposedPorts?: readonly string[] | undefined
  readonly volumes?: readonly string[] | undefined
  /** `name=value`. */
  readonly labels?: readonly string[] | undefined
  /** Of the manifest, `name=value`. */
  readonly annotations?: readonly string[] | undefined
}

/**
 * Changes what a draft says.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION for an entry that isn't `name=value`, and for an empty port or volume
 */
export function editImage(draft: ImageDraft, edits: ImageEdits): ImageDraft {
  const cleared = new Set(edits.clear)
  const { annotations: before, ...manifest } = draft.manifest
  const annotations = editMap(
    cleared.has('manifest.annotations') ? undefined : before,
    pairsOf('annotation', edits.annotations),
  )
  return {
    ...draft,
    manifest: annotations ? { ...manifest, annotations } : manifest,
    config: editConfig(draft.config, edits, cleared),
  }
}

function editConfig(
  config: ImageConfig,
  edits: ImageEdits,
  cleared: ReadonlySet<Clearable>,
): ImageConfig {
  const { author, os, architecture, variant } = edits
  const created = edits.created === undefined ? undefined : normalizeTime(edits.created)
  const execution = editExecution(config.config ?? {}, edits, cleared)
  const edited = {
    ...config,
    ...given({ created, author, variant }),
    // these two have to be there, be they empty
    os: os ?? config.os,
    architecture: architecture ?? config.architecture,
    config: inOrder(execution, executionOrder),
  }
  return inOrder(edited, configOrder)
}

function editExecution(
  execution: ExecutionConfig,
  edits: ImageEdits,
  cleared: ReadonlySet<Clearable>,
): ExecutionConfig {
  const { user: User, workingDir: WorkingDir, stopSignal: StopSignal } = edits
  const { Env, Entrypoint, Cmd, ExposedPorts, Volumes, Labels } = execution
  const unless = <T>(name: Clearable, value: T): T | undefined =>
    cleared.has(name) ? undefined : value
  return {
    ...execution,
    ...given({ User, WorkingDir, StopSignal }),
    Env: editEnv(unless('config.env', Env), edits.env),
    Entrypoint: unlessEmpty(edits.entrypoint ?? unless('config.entrypoint', Entrypoint)),
    Cmd: unlessEmpty(edits.cmd ?? unless('config.cmd', Cmd)),
    ExposedPorts: editMap(
      unless('config.exposedports', ExposedPorts),
      namesOf('port', edits.exposedPorts),
    ),
    Volumes: editMap(unless('config.volume', Volumes), namesOf('volume', edits.volumes)),
    Labels: editMap(unless('config.labels', Labels), pairsOf('label', edits.labels)),
  } as ExecutionConfig
}

function editEnv(
  env: readonly string[] = [],
  added: readonly string[] = [],
): readonly string[] | undefined {
  const result = [...env]
  for (const [name, value] of pairsOf('environment entry', added)) {
    const at = result.findIndex(entry => entry.startsWith(`${name}=`))
    if (at < 0) result.push(`${name}=${value}`)
    else result[at] = `${name}=${value}`
  }
  return unlessEmpty(result)
}

/** Go leaves empty lists out. */
function unlessEmpty<T>(list: readonly T[] | undefined): readonly T[] | undefined {
  return list && list.length > 0 ? list : undefined
}

/** Go writes maps sorted, and leaves empty ones out. */
function editMap<V>(
  map: Readonly<Record<string, V>> = {},
  added: ReadonlyArray<readonly [string, V]>,
): Record<string, V> | undefined {
  const entries = [...new Map([...Object.entries(map), ...added])]
  if (entries.length === 0) return undefined
  // fromEntries, because a label may be called __proto__
  return Object.fromEntries(entries.sort(([a], [b]) => compareText(a, b)))
}

/** By bytes, as Go compares. */
function compareText(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

function pairsOf(kind: string, texts: readonly string[] = []): [string, string][] {
  return texts.map(text => {
    const equals = text.indexOf('=')
    if (equals < 0) throw invalid(kind, text, 'it has no "=" - give name=value')
    if (equals === 0) throw invalid(kind, text, 'its name is empty')
    return [text.slice(0, equals), text.slice(equals + 1)]
  })
}

function namesOf(kind: string, texts: readonly string[] = []): [string, unknown][] {
  return texts.map(text => {
    if (text === '') throw invalid(kind, text, 'it is empty')
    return [text, {}]
  })
}

/** The fields that are given; those that are given empty are there as undefined. */
function given(fields: Record<string, string | undefined>): Record<string, string | undefined> {
  return Object.fromEntries(
    Object.entries(fields)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [name, value === '' ? undefined : value]),
  )
}

const configOrder = [
  'created',
  'author',
  'architecture',
  'os',
  'os.version',
  'os.features',
  'variant',
  'config',
  'rootfs',
  'history',
]

const executionOrder = [
  'User',
  'ExposedPorts',
  'Env',
  'Entrypoint',
  'Cmd',
  'Volumes',
  'WorkingDir',
  'Labels',
  'StopSignal',
  'ArgsEscaped',
]

/** Known fields in their order, then the others in that in which they were. */
function inOrder<T extends object>(object: T, order: readonly string[]): T {
  const rank = (name: string): number =>
    order.includes(name) ? order.indexOf(name) : order.length
  const entries = Object.entries(object).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries.sort(([a], [b]) => rank(a) - rank(b))) as T
}

function invalid(kind: string, text: string, reason: string): Error {
  return createError('INVALID_OPTION', {
    subject: `${kind} ${JSON.stringify(text.slice(0, 200))}`,
    reason,
  })
}
