// Trees to record and compare: what they hold, as a map from path to everything that counts as a change.
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { openRooted, type Rooted } from '../../lib/fs/rooted.ts'
import { listXattrs, getXattr, xattrTarget } from '../../lib/fs/xattr.ts'
import { AT_FDCWD, close, cstring, O_DIRECTORY, O_RDONLY, openat } from '../../lib/fs/libc.ts'
import type { Change } from '../../lib/change.ts'

/** Runs with the tree open, as the tests' user needs it. */
export async function inTree<T>(
  path: string,
  use: (root: Rooted) => Promise<T> | T,
): Promise<T> {
  const root = openRooted(path, { widen: process.geteuid?.() !== 0 })
  try {
    return await use(root)
  } finally {
    root.restoreModes()
    root.close()
  }
}

/** `path` (latin1, the root is empty) to a line that says all that counts; sorted bytewise. */
export function snapshot(root: string): Map<string, string> {
  const found = new Map<string, string>()
  visit(Buffer.from(root), Buffer.alloc(0), found)
  return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)))
}

function visit(absolute: Buffer, path: Buffer, found: Map<string, string>): void {
  const stat = fs.lstatSync(absolute, { bigint: true })
  const line = [stat.mode.toString(8), stat.uid, stat.gid, stat.mtimeNs]
  if (!stat.isDirectory()) line.push(stat.size, `links ${stat.nlink}`)
  if (stat.isFile())
    line.push(createHash('sha256').update(fs.readFileSync(absolute)).digest('hex'))
  if (stat.isSymbolicLink())
    line.push(fs.readlinkSync(absolute, { encoding: 'buffer' }).toString('hex'))
  if (stat.isCharacterDevice() || stat.isBlockDevice()) line.push(stat.rdev)
  if (stat.isFile() || stat.isDirectory()) line.push(...xattrsOf(absolute))
  found.set(path.toString('latin1'), line.join(' '))
  if (!stat.isDirectory()) return
  for (const name of fs.readdirSync(absolute, { encoding: 'buffer' }))
    visit(join(absolute, name), path.length > 0 ? join(path, name) : name, found)
}

function join(parent: Buffer, name: Buffer): Buffer {
  return Buffer.concat([parent, Buffer.from('/'), name])
}

function xattrsOf(absolute: Buffer): string[] {
  const slash = absolute.lastIndexOf(0x2f)
  const name = cstring(absolute.subarray(0, slash))
  const parent = openat(AT_FDCWD, name, O_RDONLY | O_DIRECTORY)
  try {
    const target = xattrTarget(parent, cstring(absolute.subarray(slash + 1)))
    return listXattrs(target)
      .filter(name => name.toString() !== 'security.selinux')
      .map(name => `${name.toString('hex')}=${getXattr(target, name)?.toString('hex')}`)
      .sort()
  } finally {
    close(parent)
  }
}

/** The changes between two snapshots as they are to be listed: `A path`, sorted bytewise. */
export function expectedChanges(
  before: Map<string, string>,
  after: Map<string, string>,
): string[] {
  const changes: Array<[path: string, kind: string]> = []
  for (const [path, line] of before) {
    const now = after.get(path)
    if (now !== undefined) {
      if (now !== line) changes.push([path, 'M'])
    } else if (!isBelowGone(path, before, after)) changes.push([path, 'D'])
  }
  for (const path of after.keys()) if (!before.has(path)) changes.push([path, 'A'])
  return changes.sort(([a], [b]) => (a < b ? -1 : 1)).map(([path, kind]) => `${kind} ${path}`)
}

// Whether an ancestor that is gone, or no directory any more, says it already.
function isBelowGone(
  path: string,
  before: Map<string, string>,
  after: Map<string, string>,
): boolean {
  for (let end = path.lastIndexOf('/'); end > 0; end = path.lastIndexOf('/', end - 1)) {
    const ancestor = path.slice(0, end)
    if (before.has(ancestor) && !after.get(ancestor)?.startsWith('4')) return true
  }
  return false
}

/** Changes in the same form. */
export function asLines(changes: Iterable<Change>): string[] {
  return Array.from(changes, ({ kind, rawPath }) => `${kind} ${rawPath.toString('latin1')}`)
}
