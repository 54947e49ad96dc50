// Paths whose changes are not packed: those the user names, and the image's volumes. As umoci does it.
import type { ChangeList } from '../change-list.ts'
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
export function dropMasked(changes: ChangeList, masks: readonly Uint8Array[]): ChangeList {
  // latin1 keeps every byte, and makes keys of them
  const masked = new Set(
    masks.map(mask => Buffer.from(mask).toString('latin1')).filter(key => key !== ''),
  )
  if (masked.size === 0) return dropIdleAliases(changes)
  const kept = changes.filter(({ rawPath }) => !isMasked(rawPath.toString('latin1'), masked))
  const whole = dropIdleAliases(kept)
  if (whole !== kept) kept[Symbol.dispose]()
  return whole
}

/** The changes without aliases of what isn't among them (any more). */
function dropIdleAliases(changes: ChangeList): ChangeList {
  if (!changes.hasAliases) return changes
  const wanted = new Set<string>()
  for (const { aliasOf } of changes)
    for (const path of aliasOf ?? []) wanted.add(path.toString('latin1'))
  const packed = new Set<string>()
  for (const { rawPath } of changes) {
    const key = rawPath.toString('latin1')
    if (wanted.has(key)) packed.add(key)
  }
  return changes.filter(
    ({ aliasOf }) => aliasOf?.some(path => packed.has(path.toString('latin1'))) ?? true,
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
