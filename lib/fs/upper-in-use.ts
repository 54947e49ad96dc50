// Whether some overlay, in whatever mount namespace, writes to a directory. The kernel knows, and tells only who mounts with
// `index=on`: others it warns in its own log. So a mount is asked for that can't come to be, because its upper and its work
// directory are one; a directory that is in use is refused before that is found out. Nothing is written.
import { close, cstring, errno, O_DIRECTORY, O_NOFOLLOW, O_PATH, open } from './libc.ts'
import * as calls from './mount-calls.ts'
import { wrapError } from '../errors.ts'

/**
 * Whether a directory is the upper or the work directory of an overlay. `lower` is any other directory. False also where
 * this process can't mount at all.
 * @throws {SystemError} ERR_KOCI_IO
 */
export function isUpperInUse(upper: string, lower: string): boolean {
  const context = calls.fsopen(cstring('overlay'))
  if (context < 0) return false
  const opened: number[] = []
  const set = (key: string, directory: string): void => {
    const fd = open(directory, O_PATH | O_DIRECTORY | O_NOFOLLOW)
    opened.push(fd)
    calls.setString(context, cstring(key), cstring(`/proc/self/fd/${fd}`))
  }
  try {
    calls.setString(context, cstring('index'), cstring('on'))
    set('upperdir', upper)
    set('workdir', upper)
    set('lowerdir', lower)
    return calls.createFileSystem(context) === -errno.EBUSY
  } catch (error) {
    throw wrapError(error, upper)
  } finally {
    for (const fd of opened) close(fd)
    close(context)
  }
}
