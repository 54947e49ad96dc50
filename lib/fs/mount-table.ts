// The kernel's table of mounts, of this process and of others. Lines may be longer than any buffer one would think of
// (500 lower directories are in one), and names are bytes: everything here is latin1 text that stands for bytes.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { close, O_DIRECTORY, O_NOFOLLOW, O_PATH, open, statx } from './libc.ts'

/** A line of mountinfo; paths and options are latin1 text of bytes, unescaped. */
export interface Mount {
  readonly id: number
  readonly parent: number
  /** `major:minor` of the file system, one for all mounts of it in all namespaces. */
  readonly device: string
  /** What of the file system is mounted. */
  readonly root: string
  readonly mountpoint: string
  readonly options: readonly string[]
  /** Such as `shared:1` and `master:1`. */
  readonly propagation: readonly string[]
  readonly type: string
  readonly source: string
  /** Each still escaped by the kernel, since they are separated by commas. */
  readonly superOptions: readonly string[]
}

/** Somebody who keeps a file system mounted. */
export interface Holder {
  /** A process in the namespace. */
  readonly pid: string
  /** Its mount namespace, as `mnt:[number]`. */
  readonly namespace: string
  /** Where it has the file system, as it sees it (latin1). */
  readonly mountpoint: string
}

/** The mounts of a process, in the order in which they were made. Throws where /proc can't be read. */
export function readMounts(process: string = 'self'): Mount[] {
  const text = readFileSync(`/proc/${process}/mountinfo`, 'latin1')
  return text
    .split('\n')
    .filter(line => line !== '')
    .map(parse)
}

/** The mounts at a directory, bottom first; none if nothing is mounted there. The path's last component isn't followed. */
export function findMounts(target: string): Mount[] {
  const at = realPath(target)
  return readMounts().filter(mount => mount.mountpoint === at)
}

/** The mounts at a directory and beneath it, the ones that have to be taken down first in front. */
export function mountsWithin(target: string): Mount[] {
  const at = realPath(target)
  return readMounts()
    .filter(({ mountpoint }) => mountpoint === at || mountpoint.startsWith(`${at}/`))
    .reverse()
}

/** Where something is mounted beneath a directory, relative to it; latin1 text of bytes. */
export function mountedInside(target: string): string[] {
  const within = `${realPath(target)}/`
  return readMounts()
    .filter(({ mountpoint }) => mountpoint.startsWith(within))
    .map(({ mountpoint }) => mountpoint.slice(within.length))
}

/** Whether something is mounted at a directory. */
export function isMountPoint(target: string): boolean {
  return mountAt(target) !== undefined
}

/** The topmost mount at a directory; undefined if nothing is mounted there. */
export function mountAt(target: string): Mount | undefined {
  const fd = open(target, O_PATH | O_DIRECTORY | O_NOFOLLOW)
  try {
    const { mountID } = statx(fd)
    const at = descriptorPath(fd)
    return readMounts().find(({ id, mountpoint }) => id === mountID && mountpoint === at)
  } finally {
    close(fd)
  }
}

/** The value of an option `name=value` of the file system, bytes as latin1. */
export function superOption({ superOptions }: Mount, name: string): string | undefined {
  const option = superOptions.find(each => each.startsWith(`${name}=`))
  return option === undefined ? undefined : unescape(option.slice(name.length + 1))
}

/** How many lower directories an overlay has, whichever way it was mounted. */
export function countLowers(mount: Mount): number {
  const single = mount.superOptions.filter(option => option.startsWith('lowerdir+=')).length
  const joined = superOption(mount, 'lowerdir')
  // in this one the caller's own escapes are kept
  const parts = joined?.replaceAll(/\\[^]/g, '').split(':') ?? []
  return single + parts.length
}

/**
 * Who else has the file system of a mount: other mount points of ours, and other mount namespaces. Left out are copies
 * that go away together with the mount, because unmounting propagates to them. Processes that we may not look at,
 * and namespaces without a process, aren't seen.
 */
export function holdersOf(mount: Mount): Holder[] {
  const tables = [...namespaces()].map(({ pid, namespace }) => ({
    pid,
    namespace,
    mounts: tryReadMounts(pid),
  }))
  const groups = groupsBelow(
    mount,
    tables.map(({ mounts }) => mounts),
  )
  const own = namespaceOf('self')
  return tables.flatMap(({ pid, namespace, mounts }) =>
    mounts
      .filter(({ device, type }) => device === mount.device && type === mount.type)
      .filter(({ id }) => namespace !== own || id !== mount.id)
      .filter(each => !follows(each, mounts, groups))
      .map(({ mountpoint }) => ({ pid, namespace, mountpoint })),
  )
}

/** Mounts of overlays with an upper directory of this path, in whichever namespace; where what is seen ends, so does this. */
export function usersOfUpper(upper: string): Holder[] {
  const path = Buffer.from(upper).toString('latin1')
  return [...namespaces()].flatMap(({ pid, namespace }) =>
    tryReadMounts(pid)
      .filter(mount => mount.type === 'overlay' && superOption(mount, 'upperdir') === path)
      .map(({ mountpoint }) => ({ pid, namespace, mountpoint })),
  )
}

/**
 * The mount tables of all namespaces that can be seen, as the kernel writes them: for looking up whether a name that nothing
 * else has is in them anywhere. Processes that we may not look at, and namespaces without a process, aren't seen.
 */
export function mountTexts(): string[] {
  return Array.from(namespaces(), ({ pid }) => readText(`/proc/${pid}/mountinfo`))
}

/** All other processes that use something beneath a path: for messages. At most `limit`, as `pid (command)`. */
export function usersOf(target: string | Uint8Array, limit = 5): string[] {
  const at = realPath(target)
  const users: string[] = []
  for (const pid of processes()) {
    if (users.length >= limit) break
    if (pid === String(process.pid)) continue
    if (!openPaths(pid).some(path => path === at || path.startsWith(`${at}/`))) continue
    users.push(`${pid} (${readText(`/proc/${pid}/comm`).trim()})`)
  }
  return users
}

/** One process for each mount namespace that can be seen, the own one first. */
function* namespaces(): Generator<{ pid: string; namespace: string }> {
  const seen = new Set<string>()
  for (const pid of ['self', ...processes()]) {
    const namespace = namespaceOf(pid)
    if (namespace === undefined || seen.has(namespace)) continue
    seen.add(namespace)
    yield { pid: pid === 'self' ? String(process.pid) : pid, namespace }
  }
}

/** The peer groups to which unmounting propagates from where `mount` hangs. */
function groupsBelow(mount: Mount, tables: readonly (readonly Mount[])[]): Set<string> {
  const parent = tables[0]?.find(({ id }) => id === mount.parent)
  const groups = new Set(parent ? membership(parent, 'shared') : [])
  for (let size = -1; size !== groups.size;) {
    size = groups.size
    for (const each of tables.flat())
      if (membership(each, 'master').some(group => groups.has(group)))
        for (const group of membership(each, 'shared')) groups.add(group)
  }
  return groups
}

/** Whether a mount goes away when its original does: what it hangs on gets what happens there. */
function follows(mount: Mount, mounts: readonly Mount[], groups: ReadonlySet<string>): boolean {
  const parent = mounts.find(({ id }) => id === mount.parent)
  if (!parent || mount.root !== '/') return false
  return [...membership(parent, 'shared'), ...membership(parent, 'master')].some(group =>
    groups.has(group),
  )
}

function membership({ propagation }: Mount, kind: 'shared' | 'master'): string[] {
  return propagation
    .filter(tag => tag.startsWith(`${kind}:`))
    .map(tag => tag.slice(kind.length + 1))
}

function parse(line: string): Mount {
  const [own = '', rest = ''] = splitOnce(line, ' - ')
  const [id, parent, device = '', root = '', mountpoint = '', options = '', ...propagation] =
    own.split(' ')
  const [type = '', source = '', superOptions = ''] = rest.split(' ')
  return {
    id: Number(id),
    parent: Number(parent),
    device,
    root: unescape(root),
    mountpoint: unescape(mountpoint),
    options: options.split(','),
    propagation,
    type,
    source: unescape(source),
    superOptions: superOptions.split(','),
  }
}

function splitOnce(text: string, separator: string): string[] {
  const at = text.indexOf(separator)
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)]
}

function unescape(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  )
}

function realPath(target: string | Uint8Array): string {
  const fd = open(target, O_PATH | O_DIRECTORY | O_NOFOLLOW)
  try {
    return descriptorPath(fd)
  } finally {
    close(fd)
  }
}

function descriptorPath(fd: number): string {
  return readlinkSync(`/proc/self/fd/${fd}`, 'latin1')
}

function processes(): string[] {
  return readdirSync('/proc').filter(name => /^\d+$/.test(name))
}

function namespaceOf(pid: string): string | undefined {
  return tryReadLink(`/proc/${pid}/ns/mnt`)
}

function tryReadMounts(pid: string): Mount[] {
  try {
    return readMounts(pid)
  } catch {
    return []
  }
}

function openPaths(pid: string): string[] {
  const links = ['cwd', 'root', 'exe', ...tryReadDirectory(`/proc/${pid}/fd`)]
  return links.flatMap((link, at) => {
    const path = tryReadLink(`/proc/${pid}/${at < 3 ? link : `fd/${link}`}`)
    return path === undefined ? [] : [path]
  })
}

function tryReadLink(path: string): string | undefined {
  try {
    return readlinkSync(path, 'latin1')
  } catch {
    return undefined
  }
}

function tryReadDirectory(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}
