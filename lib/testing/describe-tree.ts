// What a tree looks like, as text that can be compared: one line per name, in byte order.
import { createHash } from 'node:crypto'
import {
  check,
  close,
  cstring,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  open,
  read,
  readlinkat,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
  statx,
  type Stat,
} from '../fs/libc.ts'
import { openFile } from '../fs/open-file.ts'
import { fchmodat } from '../fs/syscall.ts'
import { openDirectory, readEntries } from '../fs/walk.ts'
import { getXattr, listXattrs, xattrTarget } from '../fs/xattr.ts'
import { printable } from '../text.ts'

/** What of a tree is described. */
export interface DescribeOptions {
  /** Times of directories, too; default true. */
  readonly directoryTimes?: boolean
  /** Times at all; default true. */
  readonly times?: boolean
  /** The owner and mode of the root, and its times and attributes; default true. */
  readonly root?: boolean
  readonly xattrs?: boolean
  /** Directories are opened up for their owner once they are described: an ordinary user couldn't look in, nor remove them. */
  readonly open?: boolean
}

const types = new Map([
  [S_IFREG, 'file'],
  [S_IFDIR, 'dir'],
  [S_IFLNK, 'link'],
  [S_IFCHR, 'char'],
  [S_IFBLK, 'block'],
  [S_IFIFO, 'fifo'],
  [S_IFSOCK, 'socket'],
])

/**
 * One line per name: path, type, mode, owner, then what applies of size and hash, link target, device numbers,
 * mtime in ns, attributes, and `=path` naming the first of several hard links.
 */
export function describeTree(path: string, options: DescribeOptions = {}): string[] {
  const lines: string[] = []
  const groups = new Map<string, string>()
  const fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  try {
    if (options.root ?? true)
      lines.push(line('.', statx(fd), listed(fd, options), options, groups, ''))
    describe(fd, '', lines, groups, options)
  } finally {
    close(fd)
  }
  return lines
}

function describe(
  dirfd: number,
  prefix: string,
  lines: string[],
  groups: Map<string, string>,
  options: DescribeOptions,
): void {
  for (const entry of readEntries(dirfd)) {
    const name = cstring(entry.name)
    const path = prefix + printable(entry.name)
    const stat = statx(dirfd, name)
    const type = stat.mode & S_IFMT
    const xattrs = listed(xattrTarget(dirfd, name), options)
    const extra =
      type === S_IFLNK
        ? `-> ${printable(readlinkat(dirfd, name))}`
        : type === S_IFREG
          ? contentOf(openFile(dirfd, name, stat), stat.size)
          : ''
    lines.push(line(path, stat, xattrs, options, groups, extra))
    if (type !== S_IFDIR) continue
    if (options.open) check(fchmodat(dirfd, name, 0o700), 'fchmodat', name)
    const fd = openDirectory(dirfd, name)
    try {
      describe(fd, `${path}/`, lines, groups, options)
    } finally {
      close(fd)
    }
  }
}

function line(
  path: string,
  stat: Stat,
  xattrs: string[],
  options: DescribeOptions,
  groups: Map<string, string>,
  extra: string,
): string {
  const type = stat.mode & S_IFMT
  const parts = [path, types.get(type) ?? '?', (stat.mode & 0o7777).toString(8)]
  parts.push(`${stat.uid}:${stat.gid}`)
  if (extra !== '') parts.push(extra)
  if (type === S_IFCHR || type === S_IFBLK) parts.push(`${stat.rdevMajor},${stat.rdevMinor}`)
  const timed =
    (options.times ?? true) && (type !== S_IFDIR || (options.directoryTimes ?? true))
  if (timed) parts.push(`@${stat.mtime}`)
  parts.push(...xattrs)
  if (type !== S_IFDIR && stat.nlink > 1) {
    const inode = `${stat.dev}:${stat.ino}`
    const first = groups.get(inode)
    if (first === undefined) groups.set(inode, path)
    else parts.push(`=${first}`)
  }
  return parts.join(' ')
}

function listed(target: Parameters<typeof listXattrs>[0], options: DescribeOptions): string[] {
  if (options.xattrs === false) return []
  return listXattrs(target)
    .map(name => {
      const value = getXattr(target, name)
      return `${printable(name)}=${value?.toString('hex')}`
    })
    .filter(text => !text.startsWith('security.selinux='))
    .sort()
}

function contentOf(fd: number, size: number): string {
  try {
    const hash = createHash('sha256')
    const buffer = Buffer.alloc(Math.min(size, 2 ** 20))
    for (let at = 0; at < size; at += buffer.length)
      hash.update(buffer.subarray(0, read(fd, buffer, at)))
    return `${size} ${hash.digest('hex').slice(0, 16)}`
  } finally {
    close(fd)
  }
}
