// Where tests that make and remove thousands of files do so: in memory, if that can be had, and keeps attributes.
import { accessSync, constants, mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { cstring } from '../../lib/fs/libc.ts'
import { setxattr } from '../../lib/fs/xattr-calls.ts'

const memory = '/dev/shm'

/** Makes an empty directory; whoever asked removes it. */
export function makeMemoryDir(prefix: string): string {
  return mkdtempSync(join(memoryParent(), prefix))
}

/** An existing directory for those: `/dev/shm` if it has a gigabyte to spare, or where temporary files belong. */
export function memoryParent(): string {
  try {
    accessSync(memory, constants.W_OK)
    if (room() < 2 ** 30) return tmpdir()
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

/** Makes a directory in memory if gigabytes have room there; removed with the test. What takes seconds takes minutes on a disk. */
export function roomyDirectory(t: {
  testdir(): string
  teardown(run: () => void): void
}): string {
  try {
    if (room() < 6 * 2 ** 30) return t.testdir()
    const directory = mkdtempSync(join(memory, 'koci-test-'))
    t.teardown(() => rmSync(directory, { recursive: true, force: true }))
    return directory
  } catch {
    return t.testdir()
  }
}

/** Free bytes of memory's file system. */
function room(): number {
  const { bavail, bsize } = statfsSync(memory)
  return bavail * bsize
}
