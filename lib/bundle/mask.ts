// Paths whose changes are not packed: those the user names, and the image's volumes. As umoci does it.
import { dropIdleAliases, type Change } from '../change.ts'
import type { ImageConfig } from '../oci/image-config.ts'

/** What not to pack. */
export interface MaskOptions {
  /** Paths inside the rootfs; each covers everything beneath it. Text is taken as UTF-8. */
  readonly maskPaths?: ReadonlyArray<string | Uint8Array> | undefined
  /** Whether the volumes of the image config are masked, too. @default true */
  readonly maskVolumes?: boolean | undefined
}

/** The masks of a repack, as raw paths without leading slash; lexical, links mean nothing. */
export function masksOf(imageConfig: ImageConfig, options: MaskOptions = {}): Buffer[] {
  const { maskPaths = [], maskVolumes = true } = options
  const volumes = maskVolumes ? Object.keys(imageConfig.config?.Volumes ?? {}) : []
  return [...maskPaths, ...volumes].map(cleanMask)
}

/** The changes that are neither at nor beneath a mask, nor aliases of such. The root can't be masked. */
export function dropMasked(changes: readonly Change[], masks: readonly Uint8Array[]): Change[] {
  // latin1 keeps every byte, and makes keys of them
  const masked = new Set(
    masks.map(mask => Buffer.from(mask).toString('latin1')).filter(key => key !== ''),
  )
  if (masked.size === 0) return dropIdleAliases(changes)
  return dropIdleAliases(
    changes.filter(({ rawPath }) => !isMasked(rawPath.toString('latin1'), masked)),
  )
}

function isMasked(path: string, masked: ReadonlySet<string>): boolean {
  for (let end = path.length; end > 0; end = path.lastIndexOf('/', end - 1))
    if (masked.has(path.slice(0, end))) return true
  return false
}

/** `..` can't climb above the root. */
function cleanMask(mask: string | Uint8Array): Buffer {
  const parts: string[] = []
  for (const part of Buffer.from(mask).toString('latin1').split('/'))
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  return Buffer.from(parts.join('/'), 'latin1')
}
