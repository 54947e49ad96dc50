// The image config: what runs, and the DiffIDs of the layers. image-spec v1.1.1, config.md.
// Known fields are checked; what Docker and others add is kept through every edit.
import { createError } from '../errors.ts'
import { describe, type Descriptor } from './descriptor.ts'
import { parseDigest, type Digest } from './digest.ts'
import { checkFields, type Fields } from './document.ts'
import { parseJson } from './json.ts'
import type { Manifest } from './manifest.ts'

/** How the process of a container is started by default. */
export interface ExecutionConfig {
  User?: string
  ExposedPorts?: Record<string, unknown>
  Env?: string[]
  Entrypoint?: string[]
  Cmd?: string[]
  Volumes?: Record<string, unknown>
  WorkingDir?: string
  Labels?: Record<string, string>
  StopSignal?: string
  ArgsEscaped?: boolean
  [unknown: string]: unknown
}

/** One step of how an image was made; those with `empty_layer` made no layer. */
export interface History {
  created?: string
  created_by?: string
  author?: string
  comment?: string
  empty_layer?: boolean
  [unknown: string]: unknown
}

/** The document that a manifest's `config` points to. `rootfs.diff_ids` are base-first, as the manifest's layers. */
export interface ImageConfig {
  created?: string
  author?: string
  architecture: string
  os: string
  'os.version'?: string
  'os.features'?: string[]
  variant?: string
  config?: ExecutionConfig
  rootfs: { type: 'layers'; diff_ids: Digest[]; [unknown: string]: unknown }
  history?: History[]
  [unknown: string]: unknown
}

const configFields = {
  created: 'string',
  author: 'string',
  architecture: 'string',
  os: 'string',
  'os.version': 'string',
  'os.features': 'strings',
  variant: 'string',
  config: 'object',
  rootfs: 'object',
  history: 'objects',
} as const satisfies Fields

const executionFields = {
  User: 'string',
  ExposedPorts: 'set',
  Env: 'strings',
  Entrypoint: 'strings',
  Cmd: 'strings',
  Volumes: 'set',
  WorkingDir: 'string',
  Labels: 'stringMap',
  StopSignal: 'string',
  ArgsEscaped: 'boolean',
} as const satisfies Fields

const historyFields = {
  created: 'string',
  created_by: 'string',
  author: 'string',
  comment: 'string',
  empty_layer: 'boolean',
} as const satisfies Fields

const rootfsFields = { type: 'string', diff_ids: 'strings' } as const satisfies Fields

/**
 * Parses an image config that belongs to this manifest: as many DiffIDs as layers.
 * Known fields that are null are left out; an absent os or architecture is empty.
 * @throws {FormatError} ERR_KOCI_INVALID_CONFIG, ERR_KOCI_INVALID_JSON, ERR_KOCI_INVALID_DIGEST
 */
export function parseImageConfig(
  bytes: Uint8Array,
  descriptor: Descriptor,
  manifest: Pick<Manifest, 'layers'>,
): ImageConfig {
  const subject = describe(descriptor)
  const fields = checkFields(parseJson(bytes, subject), configFields, subject, 'INVALID_CONFIG')
  const rootfs = checkFields(
    fields['rootfs'],
    rootfsFields,
    `${subject}: rootfs`,
    'INVALID_CONFIG',
  )
  if (rootfs['type'] !== 'layers') throw invalid(subject, 'rootfs.type is not "layers"')
  const diffIDs = ((rootfs['diff_ids'] ?? []) as string[]).map((text, at) =>
    parseDigest(text, `${subject}: diff_ids[${at}]`),
  )
  if (diffIDs.length !== manifest.layers.length)
    throw invalid(subject, `${diffIDs.length} diff_ids for ${manifest.layers.length} layers`)
  const config: ImageConfig = {
    ...fields,
    architecture: (fields['architecture'] as string | undefined) ?? '',
    os: (fields['os'] as string | undefined) ?? '',
    rootfs: { ...rootfs, type: 'layers', diff_ids: diffIDs },
  }
  if (config.config)
    config.config = checkFields(
      config.config,
      executionFields,
      `${subject}: config`,
      'INVALID_CONFIG',
    )
  if (config.history)
    config.history = config.history.map((entry, at) =>
      checkFields(entry, historyFields, `${subject}: history[${at}]`, 'INVALID_CONFIG'),
    )
  return config
}

function invalid(subject: string, reason: string): Error {
  return createError('INVALID_CONFIG', { subject, reason })
}
