// Which image of an index is for which machine. Names are Go's; variants are ordered (an arm v7 runs v6),
// and arm64 without a variant is v8, amd64 without one v1.
import { endianness } from 'node:os'
import { createError } from '../errors.ts'
import type { Platform } from './descriptor.ts'

export type { Platform }

const aliases: Record<string, readonly [architecture: string, variant?: string]> = {
  x86_64: ['amd64'],
  'x86-64': ['amd64'],
  i386: ['386'],
  aarch64: ['arm64'],
  armhf: ['arm', 'v7'],
  armel: ['arm', 'v6'],
}

/**
 * Parses `os/architecture[/variant]`.
 * @throws {UsageError} ERR_KOCI_INVALID_OPTION
 */
export function parsePlatform(text: string): Platform {
  const parts = text.split('/', 4)
  const [os = '', given = '', variant] = parts
  if (parts.length > 3 || parts.length < 2 || !parts.every(part => /^[\w.-]{1,64}$/.test(part)))
    throw createError('INVALID_OPTION', {
      subject: `platform ${text.slice(0, 100)}`,
      reason: 'expected os/architecture[/variant], such as linux/arm64',
    })
  const name = given.toLowerCase()
  const [architecture, implied] = (Object.hasOwn(aliases, name) && aliases[name]) || [name]
  const full = variant?.toLowerCase() ?? implied
  return {
    os: os.toLowerCase(),
    architecture,
    ...(full === undefined ? {} : { variant: full }),
  }
}

/** `os/architecture[/variant]` for messages. */
export function formatPlatform(platform: Platform | undefined): string {
  if (!platform) return 'no platform'
  const { os, architecture, variant } = platform
  const version = platform['os.version']
  const parts = [os || 'unknown', architecture || 'unknown', ...(variant ? [variant] : [])]
  return `${parts.join('/')}${version ? ` (${version})` : ''}`
}

/** The platform of the running Node. Of the arm family the variant is given, too: as compiled for, v7 at least. */
export function hostPlatform(): Platform {
  const architecture = goNames[process.arch] ?? process.arch
  const os = process.platform === 'win32' ? 'windows' : process.platform
  if (architecture === 'ppc64' && endianness() === 'LE') return { os, architecture: 'ppc64le' }
  if (architecture === 'arm64') return { os, architecture, variant: 'v8' }
  if (architecture !== 'arm') return { os, architecture }
  const version = (process.config.variables as { arm_version?: string }).arm_version ?? '7'
  return { os, architecture, variant: `v${version}` }
}

const goNames: Record<string, string> = {
  x64: 'amd64',
  ia32: '386',
  mipsel: 'mipsle',
}

/** Whether an image of the offered platform runs on the wanted one. */
export function matches(wanted: Platform, offered: Platform): boolean {
  return matchRank(wanted, offered) !== undefined
}

/** How well an offered platform fits: undefined not at all, otherwise the higher the better. */
export function matchRank(wanted: Platform, offered: Platform): number | undefined {
  if (wanted.os !== offered.os || wanted.architecture !== offered.architecture) return undefined
  const version = wanted['os.version']
  if (version !== undefined && version !== offered['os.version']) return undefined
  const { architecture } = wanted
  const most = level(wanted.variant) ?? (wanted.variant ? undefined : defaults[architecture])
  const needed = level(offered.variant) ?? (offered.variant ? undefined : lowest[architecture])
  if (most !== undefined && needed !== undefined) return needed <= most ? needed : undefined
  if (!offered.variant) return 0
  return offered.variant === wanted.variant ? 1 : undefined
}

const defaults: Partial<Record<string, number>> = { arm: 7, arm64: 8, amd64: 1 }
// arm images without a variant say nothing about what they need: they fit, but any other fits better
const lowest: Partial<Record<string, number>> = { arm: 0, arm64: 8, amd64: 1 }

function level(variant: string | undefined): number | undefined {
  const match = variant === undefined ? null : /^v(\d{1,3}(?:\.\d{1,3})?)$/.exec(variant)
  return match ? Number(match[1]) : undefined
}
