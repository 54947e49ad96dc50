// Has umoci apply the same layers, to compare what it makes of them.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { tarBytes, type TarMember } from './tar-builder.ts'

/** False, or why a test with umoci is skipped. */
export const withoutUmoci: false | string =
  spawnSync('umoci', ['--version']).status === 0 ? false : 'needs umoci'

/** Unpacks layers, base first, into a new directory in `dir`; returns its path. Throws what umoci says if it fails. */
export function umociUnpack(
  dir: string,
  layers: ReadonlyArray<readonly TarMember[]>,
  flags: readonly string[] = [],
): string {
  const layout = join(dir, 'layout')
  const umoci = (...args: string[]) => {
    execFileSync('umoci', args, { stdio: 'pipe', timeout: 60_000 })
  }
  mkdirSync(dir, { recursive: true })
  umoci('init', '--layout', layout)
  umoci('new', '--image', `${layout}:t`)
  layers.forEach((members, index) => {
    const path = join(dir, `umoci-${index}.tar`)
    writeFileSync(path, tarBytes(members))
    umoci('raw', 'add-layer', '--image', `${layout}:t`, path)
  })
  const rootfs = join(dir, 'umoci-rootfs')
  umoci('raw', 'unpack', ...flags, '--image', `${layout}:t`, rootfs)
  return rootfs
}
