// Extracts layers made of tar members into a directory with a canary beside it, as a hostile image would be.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Control } from '../../lib/layer/control.ts'
import { extractBlob, type ExtractJob, type ExtractResult } from '../../lib/layer/extract.ts'
import { digestOf } from '../../lib/oci/digest.ts'
import { tarBytes, type TarMember } from './tar-builder.ts'
import { describeTree } from './tree.ts'

export interface Sandbox {
  /** Holds `rootfs`, `canary` and the blobs. */
  readonly dir: string
  readonly rootfs: string
  /** Applies layers, base first, onto what is there; the very first finds an empty rootfs. */
  apply(
    layers: ReadonlyArray<readonly TarMember[]>,
    options?: Partial<ExtractJob>,
  ): ExtractResult[]
  /** The same for one layer, whatever bytes it has. */
  applyBytes(tar: Buffer, options?: Partial<ExtractJob>): ExtractResult
  /** Whether anything outside of the rootfs was changed. */
  escaped(): boolean
}

/** Makes `rootfs` and `canary` in an empty directory. */
export function makeSandbox(dir: string): Sandbox {
  const rootfs = join(dir, 'rootfs')
  const canary = join(dir, 'canary')
  mkdirSync(rootfs, { mode: 0o755 })
  mkdirSync(join(canary, 'sub'), { recursive: true })
  writeFileSync(join(canary, 'file'), 'safe')
  const before = describeTree(canary).join('\n')
  let count = 0
  const applyBytes: Sandbox['applyBytes'] = (tar, options = {}) => {
    const first = count === 0
    const job = makeJob(join(dir, `layer-${count++}.tar`), tar, rootfs)
    return extractBlob({ ...job, first, ...options }, new Control())
  }
  return {
    dir,
    rootfs,
    applyBytes,
    apply: (layers, options = {}) =>
      layers.map(members => applyBytes(tarBytes(members), options)),
    escaped: () => describeTree(canary).join('\n') !== before,
  }
}

/** Writes an uncompressed blob and gives the job that extracts it. */
export function makeJob(path: string, bytes: Buffer, target: string): ExtractJob {
  writeFileSync(path, bytes)
  const digest = digestOf(bytes)
  const blob = { path, offset: 0, size: bytes.length, digest, compression: 'none' as const }
  return { blob, diffID: digest, target }
}
