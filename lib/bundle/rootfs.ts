// The directory that layers are applied to, before the first of them: deterministic, so that images whose layers
// say nothing about their root get the same one everywhere.
import { chmod, chown, lstat, mkdir, utimes } from 'node:fs/promises'
import { wrapError } from '../errors.ts'
import type { Extraction } from '../layer/extraction.ts'
import { toHost } from '../oci/idmap.ts'
import type { Bundle } from './bundle.ts'

/** Makes `<bundle>/rootfs`, unless a driver made it already. */
export async function makeRootfs(bundle: Bundle, extraction: Extraction): Promise<void> {
  const { rootfs } = bundle
  try {
    if (bundle.hasClaimed('rootfs') && (await isDirectory(rootfs))) return
    await bundle.claim('rootfs')
    await makeTreeRoot(rootfs, extraction)
  } catch (error) {
    throw wrapError(error, rootfs)
  }
}

/** Makes a directory that layers are applied to, for itself; throws what Node throws. */
export async function makeTreeRoot(path: string, extraction: Extraction): Promise<void> {
  await mkdir(path)
  await resetTreeRoot(path, extraction)
}

/** Gives a directory what it has before layers are applied to it; throws what Node throws. */
export async function resetTreeRoot(path: string, extraction: Extraction): Promise<void> {
  await chmod(path, 0o755)
  if (process.geteuid?.() === 0 && !extraction.rootless)
    await chown(path, toHost(extraction.uidMap, 0), toHost(extraction.gidMap, 0))
  await utimes(path, 0, 0)
}

async function isDirectory(path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => undefined)
  return found?.isDirectory() ?? false
}
