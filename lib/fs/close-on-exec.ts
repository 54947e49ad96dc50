// Descriptors that a child must not get. Node and koci open theirs so, but what this process was itself started with, or a
// native module opened, would go on to every child: runc's CVE-2024-21626 is what comes of that.
import { close, O_DIRECTORY, O_RDONLY, open, readDirectory } from './libc.ts'
import { setCloseOnExec } from './syscall.ts'

/** Marks every descriptor above standard error to be closed in children; those handed to one on purpose still reach it. */
export function closeOnExec(): void {
  const list = open('/proc/self/fd', O_RDONLY | O_DIRECTORY)
  try {
    for (const { name } of readDirectory(list)) {
      const fd = Number(name.toString())
      if (fd > 2) setCloseOnExec(fd)
    }
  } finally {
    close(list)
  }
}
