// Trees that were unpacked are removed by rm, in a process of its own: ours stays small, and rm stays on its file system.
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { measure } from './measure.ts'
import { isRoot } from './peers.ts'

/** What stops the measuring doesn't stop the tidying up. */
const untiring = new AbortController().signal

/** Removes something that this bench made, with what a program left mounted in it; nothing there is fine. */
export async function removeTree(target: string): Promise<void> {
  if (!existsSync(target)) return
  const run = (program: string, ...args: string[]): Promise<unknown> =>
    measure({ program, args: [...args, '--', target] }, untiring)
  // what an unpacked directory allows may keep its own owner out
  if (!isRoot) await run('chmod', '-R', 'u+rwX')
  for (const point of mountsBelow(realpathSync(target)))
    await measure({ program: 'umount', args: ['--', point] }, untiring)
  await run('rm', '-rf', '--one-file-system')
}

/** Mount points in a directory, the deepest first: skopeo leaves one in each storage. */
function mountsBelow(directory: string): string[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').trimEnd().split('\n')
  return lines
    .map(line => (line.split(' ')[4] ?? '').replaceAll(/\\(\d{3})/g, fromOctal))
    .filter(point => point.startsWith(`${directory}/`))
    .toReversed()
}

function fromOctal(_: string, digits: string): string {
  return String.fromCodePoint(Number.parseInt(digits, 8))
}
