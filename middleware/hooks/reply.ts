// What a command answers: nothing, or one JSON document with the version, of which every field is checked. A path in it is
// the command's own; it is looked at before it is used, because a script's mistake must not become a layer's content.
import { lstat, readdir } from 'node:fs/promises'
import path from 'node:path'
import type { RuntimeConfig } from '../../lib/bundle/runtime-config.ts'
import { createError } from '../../lib/errors.ts'
import type { Dialect } from '../../lib/layer/extraction.ts'
import type { LayerReport } from '../../lib/layer/layer.ts'
import { parseJson } from '../../lib/oci/json.ts'
import { hookKinds } from './hook-names.ts'
import type { HookCommand } from './hooks-file.ts'
import { protocolVersion } from './request.ts'

/** The fields that some hook's reply has. */
export interface Reply {
  /** An existing directory with the layer. */
  readonly dir?: string
  /** The layer is in the rootfs. */
  readonly rootfs?: true
  /** The command vouches that what is there has the DiffID. */
  readonly verified?: boolean
  /** What koci reported when the layer was extracted, kept by the command. */
  readonly report?: LayerReport
  /** An existing, empty directory to extract into. */
  readonly target?: string
  readonly dialect?: Dialect
  readonly runtimeConfig?: RuntimeConfig
}

/** The most bytes of a reply. */
export const maxReplyBytes: number = 8 * 2 ** 20

/**
 * Reads a reply; an empty one is an empty object.
 * @throws {FormatError} ERR_KOCI_INVALID_REPLY
 */
export async function readReply(hook: HookCommand, bytes: Buffer): Promise<Reply> {
  if (bytes.toString('latin1').trim() === '') return {}
  const reply = parse(hook, bytes)
  const { version, ...fields } = reply
  if (version !== protocolVersion)
    throw refused(hook, `its version is ${String(version)}, not ${protocolVersion}`)
  const known = hookKinds[hook.hook].reply
  for (const [key, value] of Object.entries(fields)) {
    if (!known.includes(key)) {
      const choices = known.length === 0 ? 'nothing but version' : known.join(', ')
      throw refused(hook, `it has ${key}, but this hook's may have ${choices}`)
    }
    const check = checks[key]
    if (!check?.test(value)) throw refused(hook, `its ${key} is not ${check?.what}`)
  }
  if (typeof fields['dir'] === 'string') await assertDirectory(hook, 'dir', fields['dir'])
  if (typeof fields['target'] === 'string')
    await assertDirectory(hook, 'target', fields['target'])
  return fields
}

/** @throws {FormatError} ERR_KOCI_INVALID_REPLY for a target that has something in it */
export async function assertEmpty(hook: HookCommand, target: string): Promise<void> {
  const entries = await readdir(target)
  if (entries.length > 0) throw refused(hook, `its target ${target} is not empty`)
}

/** The error for a reply that isn't one. */
export function refused({ hook, command }: HookCommand, reason: string): Error {
  return createError('INVALID_REPLY', { subject: command[0], hook, reason })
}

const isPath = (value: unknown): boolean =>
  typeof value === 'string' && path.isAbsolute(value) && !value.includes('\0')
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isBoolean = (value: unknown): boolean => typeof value === 'boolean'

const checks: Readonly<
  Record<string, { readonly what: string; test(value: unknown): boolean }>
> = {
  dir: { what: 'an absolute path', test: isPath },
  target: { what: 'an absolute path', test: isPath },
  rootfs: { what: 'true', test: value => value === true },
  verified: { what: 'true or false', test: isBoolean },
  dialect: {
    what: 'plain, overlay-trusted or overlay-user',
    test: value => ['plain', 'overlay-trusted', 'overlay-user'].includes(value as string),
  },
  report: { what: 'a report as koci made it', test: isReport },
  runtimeConfig: {
    what: 'a runtime configuration with an ociVersion',
    test: value => isObject(value) && typeof value['ociVersion'] === 'string',
  },
}

/** Of what a store kept, all that koci acts on. */
function isReport(value: unknown): boolean {
  if (!isObject(value)) return false
  const isCount = (count: unknown): boolean =>
    count === undefined || (Number.isSafeInteger(count) && (count as number) >= 0)
  const isNames = (names: unknown): boolean =>
    names === undefined ||
    (Array.isArray(names) && names.every(name => typeof name === 'string'))
  const { entries, bytes, fileBytes, degraded, stacking } = value
  if (entries === undefined || bytes === undefined) return false
  if (![entries, bytes, fileBytes].every(isCount)) return false
  if (degraded !== undefined && !(Array.isArray(degraded) && degraded.every(isObject)))
    return false
  if (stacking === undefined) return true
  if (!isObject(stacking) || !isBoolean(stacking['root']) || !isBoolean(stacking['opaque']))
    return false
  const { implied, missing, hollow, entries: listed } = stacking
  return (
    [implied, missing, hollow].every(Array.isArray) &&
    [implied, missing, hollow, listed].every(isNames)
  )
}

function parse(hook: HookCommand, bytes: Buffer): Record<string, unknown> {
  let value: unknown
  try {
    value = parseJson(bytes, 'it', { maxBytes: maxReplyBytes })
  } catch (error) {
    throw refused(hook, (error as Error).message)
  }
  if (isObject(value)) return value
  throw refused(hook, 'it is not a JSON object')
}

async function assertDirectory(hook: HookCommand, key: string, dir: string): Promise<void> {
  const found = await lstat(dir).catch(() => undefined)
  if (!found?.isDirectory()) throw refused(hook, `its ${key} ${dir} is not a directory`)
}
