// Where tests that make and remove thousands of files do so: in memory, if that can be had, and keeps attributes.
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cstring } from '../../lib/fs/libc.ts'
import { setxattr } from '../../lib/fs/syscall.ts'

const memory = '/dev/shm'

/** Makes an empty directory; whoever asked removes it. */
export function makeMemoryDir(prefix: string): string {
  return mkdtempSync(join(memoryParent(), prefix))
}

/** An existing directory for those: `/dev/shm`, or where temporary files belong. */
export function memoryParent(): string {
  try {
    accessSync(memory, constants.W_OK)
    const probe = mkdtempSync(join(memory, 'koci-'))
    try {
      const code = setxattr(cstring(probe), cstring('user.probe'), Buffer.from('1'))
      return code === 0 ? memory : tmpdir()
    } finally {
      rmSync(probe, { recursive: true })
    }
  } catch {
    return tmpdir()
  }
}
