// A tree that nobody may touch or read, with names that an attacked rootfs has, too; and whether somebody did.
import { chmodSync, linkSync, lstatSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { cstring } from '../../lib/fs/libc.ts'
import { setxattr } from '../../lib/fs/xattr-calls.ts'
import { describeTree } from './tree.ts'

/** In the content, in an attribute and in a name of every file of a canary tree. */
export const secret = 'BYTES-NOBODY-MAY-READ'

export interface Canary {
  readonly directory: string
  /** Everything about it but the times of access, inode times (ctime) included. */
  snapshot(): string[]
}

/** Makes a canary tree: in the directory and in each of these subdirectories the same file names. */
export function makeCanary(
  directory: string,
  directories: readonly string[],
  files: readonly string[],
): Canary {
  for (const name of ['', ...directories]) {
    const at = path.join(directory, name)
    mkdirSync(at, { recursive: true })
    for (const file of [...files, secret]) {
      writeFileSync(path.join(at, file), `${secret}\nroot:x:666:666::/:\napp:x:666:666::/:\n`)
      setxattr(cstring(path.join(at, file)), cstring('user.canary'), Buffer.from(secret))
    }
    linkSync(path.join(at, secret), path.join(at, `${secret}-2`))
    chmodSync(at, 0o751)
  }
  return {
    directory,
    snapshot: () => [...describeTree(directory), ...inodeTimes(directory)],
  }
}

function inodeTimes(directory: string): string[] {
  return ['', ...readdirSync(directory, { recursive: true, encoding: 'utf8' })]
    .sort()
    .map(name => {
      const { ino, nlink, ctimeNs } = lstatSync(path.join(directory, name), { bigint: true })
      return `${name} ${ino} ${nlink} ${ctimeNs}`
    })
}
