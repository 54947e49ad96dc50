// The runtime configuration, `config.json` of a bundle: umoci's template, filled from the image config.
// image-spec v1.1.1, conversion.md; runtime-spec v1.3.0, config.md. Objects have their fields in the order in which
// umoci writes them.
import { createError } from '../errors.ts'
import type { Rooted } from '../fs/rooted.ts'
import type { IdMap } from '../oci/idmap.ts'
import type { ExecutionConfig, ImageConfig } from '../oci/image-config.ts'
import { normalizeTime } from '../oci/source-date.ts'
import { toRootless, type HostFile } from './rootless-config.ts'
import { runtimeTemplate, type Mount, type RuntimeConfig } from './runtime-template.ts'
import { resolveUser } from './users.ts'

/** What config.json holds. */
export type { RuntimeConfig } from './runtime-template.ts'

/** What the runtime configuration depends on beside the image config. */
export interface ConversionOptions {
  /** Where users are looked up; without it names that aren't numbers become 0, with a warning. */
  readonly rootfs?: Rooted | undefined
  /** `root.path`, relative to config.json. @default 'rootfs', or '.' without a rootfs */
  readonly rootPath?: string | undefined
  /** Any map means a user namespace. */
  readonly uidMap?: readonly IdMap[] | undefined
  readonly gidMap?: readonly IdMap[] | undefined
  /** For an ordinary user: no network namespace, no cgroups, the host's /sys. */
  readonly rootless?: boolean | undefined
  /** The host's /etc/resolv.conf, for rootless containers, which share the host's network. */
  readonly hostResolvConf?: HostFile | undefined
  /** Told what had to be guessed. */
  readonly warn?: ((message: string) => void) | undefined
}

/**
 * Converts an image config. Reads /etc/passwd and /etc/group inside the rootfs, nothing else.
 * @throws {UnsupportedError} ERR_KOCI_UNSUPPORTED_PLATFORM the image isn't for Linux
 * @throws {FormatError} ERR_KOCI_INVALID_CONFIG; {NotFoundError} ERR_KOCI_USER_NOT_FOUND
 */
export function toRuntimeConfig(
  imageConfig: ImageConfig,
  options: ConversionOptions = {},
): RuntimeConfig {
  if (imageConfig.os !== 'linux')
    throw createError('UNSUPPORTED_PLATFORM', {
      subject: 'image config',
      reason: `the image is for ${imageConfig.os || 'no operating system'}, not for linux`,
    })
  const { rootfs, uidMap = [], gidMap = [] } = options
  const execution = imageConfig.config ?? {}
  const config = runtimeTemplate()
  config.root.path = options.rootPath ?? (rootfs ? 'rootfs' : '.')
  setProcess(config, execution, options)
  config.mounts.push(...volumeMounts(execution))
  config.annotations = annotationsOf(imageConfig, execution)
  if (uidMap.length > 0 || gidMap.length > 0) {
    addUserNamespace(config)
    // first, as in umoci's order
    config.linux = { ...idMappings(uidMap, gidMap), ...config.linux }
  }
  if (options.rootless) toRootless(config, options.hostResolvConf)
  return config
}

/** The content of config.json: indented by tabs, escaped as Go does it, with a line feed. */
export function encodeRuntimeConfig(config: RuntimeConfig): string {
  const text = JSON.stringify(config, undefined, '\t')
  return `${text.replaceAll(/[<>&\u2028\u2029]/g, escapeChar)}\n`
}

function escapeChar(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`
}

function setProcess(
  config: RuntimeConfig,
  execution: ExecutionConfig,
  options: ConversionOptions,
): void {
  const { process } = config
  const { User = '', Env = [], Entrypoint = [], Cmd = [], WorkingDir = '' } = execution
  const user = resolveUser(User, options.rootfs)
  if (user.isGuess)
    options.warn?.(`user ${User}: there is no rootfs to look it up in, so it runs as root`)
  process.user = {
    uid: user.uid,
    gid: user.gid,
    ...(user.additionalGids.length > 0 ? { additionalGids: [...user.additionalGids] } : {}),
  }
  const args = [...Entrypoint, ...Cmd]
  if (args.length > 0) process.args = args
  for (const entry of Env) setEnv(process.env, entry)
  const hasHome = process.env.some(entry => entry.startsWith('HOME='))
  if (user.home !== undefined && !hasHome) process.env.push(`HOME=${user.home}`)
  // the runtime insists on an absolute path
  if (WorkingDir !== '')
    process.cwd = WorkingDir.startsWith('/') ? WorkingDir : `/${WorkingDir}`
  for (const text of [...process.args, ...process.env, process.cwd])
    if (text.includes('\0')) throw invalid(`${JSON.stringify(text)} holds a NUL`)
}

/** Later entries replace earlier ones of the same name, in their place. */
function setEnv(env: string[], entry: string): void {
  const equals = entry.indexOf('=')
  if (equals < 1) throw invalid(`environment entry ${JSON.stringify(entry)} is not NAME=VALUE`)
  const name = entry.slice(0, equals + 1)
  const at = env.findIndex(old => old.startsWith(name))
  if (at === -1) env.push(entry)
  else env[at] = entry
}

function volumeMounts({ Volumes = {} }: ExecutionConfig): Mount[] {
  return [...new Set(Object.keys(Volumes).map(cleanVolume))].sort().map(destination => ({
    destination,
    type: 'tmpfs',
    source: 'none',
    options: ['rw', 'nosuid', 'nodev', 'noexec', 'relatime'],
  }))
}

/** Absolute, without `..`, so that no runtime has to make sense of it (CVE-2022-23648). */
function cleanVolume(volume: string): string {
  const parts: string[] = []
  for (const part of volume.split('/'))
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  if (parts.length === 0 || volume.includes('\0'))
    throw invalid(`volume ${JSON.stringify(volume)} is not a path below the root`)
  return `/${parts.join('/')}`
}

const prefix = 'org.opencontainers.image'

function annotationsOf(
  imageConfig: ImageConfig,
  execution: ExecutionConfig,
): Record<string, string> {
  const { os, architecture, variant, author, created } = imageConfig
  const { StopSignal, ExposedPorts = {}, Labels = {} } = execution
  const annotations: Record<string, string | undefined> = {
    [`${prefix}.os`]: os,
    [`${prefix}.architecture`]: architecture,
    [`${prefix}.variant`]: variant,
    [`${prefix}.author`]: author,
    // Go's zero time if there is none
    [`${prefix}.created`]: created ? normalizeTime(created) : '0001-01-01T00:00:00Z',
    [`${prefix}.stopSignal`]: StopSignal,
    [`${prefix}.exposedPorts`]: Object.keys(ExposedPorts).sort().join(','),
  }
  const entries = Object.entries(annotations).filter(([, value]) => value)
  const all = new Map([...entries, ...Object.entries(Labels)])
  // fromEntries, because a label may be called __proto__
  return Object.fromEntries([...all].sort(([a], [b]) => (a < b ? -1 : 1))) as Record<
    string,
    string
  >
}

/** The user namespace comes last. */
function addUserNamespace(config: RuntimeConfig): void {
  const others = config.linux.namespaces.filter(({ type }) => type !== 'user')
  config.linux.namespaces = [...others, { type: 'user' }]
}

function idMappings(
  uidMap: readonly IdMap[],
  gidMap: readonly IdMap[],
): Pick<RuntimeConfig['linux'], 'uidMappings' | 'gidMappings'> {
  const copy = ({ containerID, hostID, size }: IdMap): IdMap => ({ containerID, hostID, size })
  return {
    ...(uidMap.length > 0 ? { uidMappings: uidMap.map(copy) } : {}),
    ...(gidMap.length > 0 ? { gidMappings: gidMap.map(copy) } : {}),
  }
}

function invalid(reason: string): Error {
  return createError('INVALID_CONFIG', { subject: 'image config', reason })
}
