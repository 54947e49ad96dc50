// Which kernel this is, for tests of what older ones lack.
import { release } from 'node:os'

/** Whether the kernel is older than a version. */
export function isKernelBefore(wantedMajor: number, wantedMinor: number): boolean {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  return major < wantedMajor || (major === wantedMajor && minor < wantedMinor)
}
