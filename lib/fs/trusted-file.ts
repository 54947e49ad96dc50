// Files that decide what code runs. They count only if nobody but root and the user can have put them there: every directory
// on the way, every symlink, and the file itself is checked on its own descriptor, so that what was checked is what is used.
import path from 'node:path'
import { createError, wrapError } from '../errors.ts'
import {
  close,
  cstring,
  errno,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_PATH,
  O_RDONLY,
  open,
  openat,
  read,
  readlinkat,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  statx,
  SystemCallError,
  type Stat,
} from './libc.ts'

const maxLinks = 40 // as the kernel
const sticky = 0o1000
const writableByGroup = 0o020
const writableByAll = 0o002

/**
 * Opens a regular file for reading; the caller owns the descriptor.
 *
 * **Guarantees** that the file, every directory and every symlink on the way to it belong to root or to the user, and that
 * nobody else can write them. A directory that everybody can write to, such as /tmp, is fine on the way if it is sticky.
 * **Does not protect against** what root or the user's own programs do.
 * @throws {UsageError} ERR_KOCI_UNTRUSTED; {SystemError} ERR_KOCI_IO
 */
export function openTrusted(file: string): number {
  let fd = -1
  try {
    const parent = openTrustedParent(file)
    try {
      fd = openat(parent.fd, parent.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
      const stat = statx(fd)
      if ((stat.mode & S_IFMT) !== S_IFREG)
        throw createError('UNTRUSTED', { subject: file, reason: 'it is not a regular file' })
      assertOurs(file, parent.shown, stat)
      return fd
    } finally {
      close(parent.fd)
    }
  } catch (error) {
    if (fd >= 0) close(fd)
    throw wrapError(error, file)
  }
}

/**
 * The content of such a file.
 * @throws what {@link openTrusted} throws; {LimitError} ERR_KOCI_LIMIT_EXCEEDED for one of more than `maxBytes`
 */
export function readTrusted(file: string, maxBytes: number = 2 ** 20): Buffer {
  const fd = openTrusted(file)
  try {
    const { size } = statx(fd)
    if (size > maxBytes)
      throw createError('LIMIT_EXCEEDED', {
        subject: file,
        limit: 'size of a file to be read',
        value: size,
        maximum: maxBytes,
      })
    const content = Buffer.alloc(size)
    return content.subarray(0, read(fd, content, 0))
  } catch (error) {
    throw wrapError(error, file)
  } finally {
    close(fd)
  }
}

/** The directory that a path ends in, links followed, and the name there, which is no link. */
function openTrustedParent(file: string): {
  fd: number
  name: ReturnType<typeof cstring>
  shown: string
} {
  const names = partsOf(path.resolve(file))
  let links = 0
  let shown = '/'
  let fd = openRoot(file)
  try {
    for (let name = names.shift(); name !== undefined; name = names.shift()) {
      const at = cstring(name)
      const next = openat(fd, at, O_PATH | O_NOFOLLOW)
      try {
        const stat = statx(next)
        const type = stat.mode & S_IFMT
        const where = path.join(shown, name)
        if (type === S_IFLNK) {
          if (++links > maxLinks) throw new SystemCallError(-errno.ELOOP, 'openat', file)
          assertOurs(file, where, stat)
          const target = readlinkat(fd, at).toString()
          names.unshift(...partsOf(target))
          if (!target.startsWith('/')) continue
          close(fd)
          fd = openRoot(file)
          shown = '/'
          continue
        }
        if (names.length === 0) return { fd, name: at, shown: where }
        if (type !== S_IFDIR) throw new SystemCallError(-errno.ENOTDIR, 'openat', where)
        assertOurs(file, where, stat)
        const former = fd
        fd = openat(former, at, O_PATH | O_NOFOLLOW | O_DIRECTORY)
        close(former)
        // what was checked is what we are in now
        assertOurs(file, where, statx(fd))
        shown = where
      } finally {
        close(next)
      }
    }
    throw createError('UNTRUSTED', { subject: file, reason: 'it is not a regular file' })
  } catch (error) {
    close(fd)
    throw error
  }
}

function openRoot(file: string): number {
  const fd = open('/', O_PATH | O_DIRECTORY)
  try {
    assertOurs(file, '/', statx(fd))
    return fd
  } catch (error) {
    close(fd)
    throw error
  }
}

function assertOurs(file: string, where: string, { mode, uid }: Stat): void {
  const refuse = (reason: string): never => {
    throw createError('UNTRUSTED', { subject: file, reason: `${where} ${reason}` })
  }
  if (uid !== 0 && uid !== process.geteuid?.()) refuse(`belongs to user ${uid}`)
  const type = mode & S_IFMT
  // the mode of a link says nothing, and in a sticky directory nobody can replace what isn't theirs
  if (type === S_IFLNK || (type === S_IFDIR && (mode & sticky) !== 0)) return
  if ((mode & writableByAll) !== 0) refuse('can be written by everybody')
  if ((mode & writableByGroup) !== 0) refuse('can be written by its group')
}

function partsOf(text: string): string[] {
  return text.split('/').filter(part => part !== '' && part !== '.')
}
