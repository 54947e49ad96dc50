// What changed between two read-only snapshots: the kernel says where to look, and each place is looked at.
import { randomBytes } from 'node:crypto'
import { closeSync, openSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import type { ChangeList } from '../../lib/change-list.ts'
import { isError, wrapError } from '../../lib/errors.ts'
import { sendChanges } from '../../lib/fs/btrfs.ts'
import { comparePlaces, type SnapshotPair } from './compare-places.ts'
import { replay, type Places } from './replay.ts'
import { readSendStream } from './send-stream.ts'

/** Changes, or why they can't be told this way. */
export type Answer = { readonly changes: ChangeList } | { readonly obstacle: string }

/**
 * Lists changes as `compareTree` would. `scratch` is a directory for a file that has no name any more by the time it is
 * written.
 * @throws {SystemError} ERR_KOCI_IO, ERR_KOCI_ABORTED
 */
export async function listSnapshotChanges(
  pair: SnapshotPair,
  scratch: string,
  signal: AbortSignal,
): Promise<Answer> {
  const places = await findPlaces(pair, scratch)
  signal.throwIfAborted()
  if ('obstacle' in places) return places
  const changes = await comparePlaces(pair, places, signal)
  return changes ? { changes } : { obstacle: 'a file has more names than the kernel tells of' }
}

async function findPlaces(
  { older, newer }: SnapshotPair,
  scratch: string,
): Promise<Places | { readonly obstacle: string }> {
  const file = path.join(scratch, `${randomBytes(16).toString('hex')}.stream`)
  let fd: number
  try {
    fd = openSync(file, 'wx+', 0o600)
  } catch (error) {
    throw wrapError(error, file)
  }
  try {
    rmSync(file)
    const isSent = await sendChanges(older, newer, fd)
    if (!isSent)
      return { obstacle: 'the kernel tells changes only to those with CAP_SYS_ADMIN' }
    return replay(readSendStream(readFileSync(`/proc/self/fd/${fd}`)))
  } catch (error) {
    if (isError(error, 'UNSUPPORTED_VERSION')) return { obstacle: (error as Error).message }
    throw error
  } finally {
    closeSync(fd)
  }
}
