// A process that extracts layers in overlay dialect, has the kernel merge them, and describes what that looks like.
// To be run where mounting is allowed and leaves nothing behind: in a mount namespace of its own.
// Reads `Stack[]` as JSON from its standard input, writes `Merged[]`.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Control } from '../../lib/layer/control.ts'
import { extractBlob } from '../../lib/layer/extract.ts'
import type { StackingReport } from '../../lib/layer/layer.ts'
import { digestOf } from '../../lib/oci/digest.ts'
import { describeTree } from './tree.ts'

/** Layers to extract alone and to merge. */
export interface Stack {
  /** An empty directory; its path has no colon, comma or backslash. */
  readonly dir: string
  readonly dialect: 'overlay-trusted' | 'overlay-user'
  /** Uncompressed tars, base first. */
  readonly layers: readonly string[]
}

export interface Merged {
  readonly reports: readonly StackingReport[]
  readonly view: readonly string[]
  /** The code of the error that an extraction ended with. */
  readonly error?: string
}

if (import.meta.main) {
  const stacks = JSON.parse(readFileSync(0, 'utf8')) as Stack[]
  process.stdout.write(JSON.stringify(stacks.map(merge)))
}

function merge({ dir, dialect, layers }: Stack): Merged {
  const reports: StackingReport[] = []
  const lowers = ['base']
  mkdirSync(join(dir, 'base'))
  for (const [index, path] of layers.entries()) {
    const target = join(dir, String(index))
    mkdirSync(target)
    const bytes = readFileSync(path)
    const digest = digestOf(bytes)
    const blob = { path, offset: 0, size: bytes.length, digest, compression: 'none' as const }
    try {
      const job = { blob, diffID: digest, target, dialect }
      const { stacking } = extractBlob(job, new Control())
      if (stacking) reports.push(stacking)
      // overlayfs doesn't look whether a lower root is opaque
      if (stacking?.opaque === true) lowers.splice(0, lowers.length, 'base')
      lowers.unshift(String(index))
    } catch (error) {
      return { reports, view: [], error: (error as { code: string }).code }
    }
  }
  mkdirSync(join(dir, 'view'))
  const options = [`lowerdir=${lowers.join(':')}`]
  if (dialect === 'overlay-user') options.push('userxattr')
  command(dir, 'mount', '-t', 'overlay', 'overlay', '-o', options.join(','), 'view')
  try {
    return { reports, view: describeTree(join(dir, 'view'), { root: false }) }
  } finally {
    command(dir, 'umount', 'view')
  }
}

function command(cwd: string, name: string, ...args: string[]): void {
  const { status, stderr, error } = spawnSync(name, args, {
    cwd,
    timeout: 20_000,
    encoding: 'utf8',
  })
  if (status !== 0) throw error ?? new Error(`${name}: ${stderr}`)
}
