// What is open in this process, workers included: to see that nothing is left.
import { readdirSync, readlinkSync, realpathSync } from 'node:fs'

const node = realpathSync(process.execPath)

/**
 * The files and directories that are open, by their paths. Pipes, events and the like aren't among them: threads have
 * their own, from when they start until some time after they ended; V8 opens Node's executable when one starts.
 */
export function openFiles(): string[] {
  return readdirSync('/proc/self/fd')
    .flatMap(fd => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)]
      } catch {
        // it was the one that read the directory, or a thread's
        return []
      }
    })
    .filter(target => target.startsWith('/') && !target.startsWith('/proc/') && target !== node)
    .sort()
}

/** How many there are. */
export function openDescriptors(): number {
  return openFiles().length
}
