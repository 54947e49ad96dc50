// What somebody has to do who changes a snapshot behind a store's back.
import { closeSync, openSync } from 'node:fs'
import { setReadOnly } from '../../lib/fs/btrfs-calls.ts'

/** Makes a snapshot writable, or read-only again. */
export function setWritable(snapshot: string, isWritable: boolean): void {
  const fd = openSync(snapshot, 'r')
  try {
    const code = setReadOnly(fd, !isWritable)
    if (code < 0) throw new RangeError(`${snapshot}: ${code}`)
  } finally {
    closeSync(fd)
  }
}
