// Removes the snapshots of a btrfs() store: read-only ones `rm -r` can't remove.
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { destroySubvolume } from '../../lib/fs/btrfs.ts'

/** `dir` is the option of that name. */
export function destroySnapshots(dir: string): void {
  const snapshots = path.join(dir, 'btrfs-v1/snapshots')
  if (!existsSync(snapshots)) return
  for (const name of readdirSync(snapshots)) destroySubvolume(path.join(snapshots, name))
}
