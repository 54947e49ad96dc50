// Tests on a real btrfs: on a loop device that is mounted in a mount namespace of the test's own, so that both are gone with
// the test's process, whatever becomes of it.
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type t from 'tap'
import { makeMemoryDir } from './memory-dir.ts'

type Tap = Pick<typeof t, 'spawn' | 'test' | 'teardown'>

/** Where the file system is mounted, in the test that {@link onFileSystem} runs; undefined in the one that calls it. */
export const mountpoint: string | undefined = process.env['KOCI_TEST_MOUNTPOINT']

/** Runs the test file again, with a new file system of this type mounted for it. */
export async function onFileSystem(
  t: Tap,
  file: string,
  { type = 'btrfs', bytes = 400 << 20 }: { type?: 'btrfs' | 'xfs'; bytes?: number } = {},
): Promise<void> {
  const base = makeMemoryDir(`koci-${type}-`)
  t.teardown(() => rmSync(base, { recursive: true }))
  const image = path.join(base, 'image')
  const target = path.join(base, 'mount')
  writeFileSync(image, '')
  truncateSync(image, bytes)
  mkdirSync(target)
  // for tests of other users
  chmodSync(base, 0o711)
  const namespace = ['-m', '--propagation', 'private']
  const mount = 'mount -o loop "$1" "$2"'
  const obstacle =
    failureOf(`mkfs.${type}`, ['-q', image]) ??
    failureOf('unshare', [...namespace, 'sh', '-c', mount, 'sh', image, target])
  if (obstacle !== undefined) {
    await t.test(`on ${type}`, { skip: obstacle }, async () => {})
    return
  }
  const env = { ...process.env, KOCI_TEST_MOUNTPOINT: target }
  const script = `${mount} && chmod 755 "$2" && exec "$3" "$4"`
  const args = [...namespace, 'sh', '-c', script, 'sh', image, target, process.execPath, file]
  await t.spawn('unshare', args, { env }, `on ${type}`)
}

function failureOf(command: string, args: readonly string[]): string | undefined {
  const options = { encoding: 'utf8', timeout: 30_000 } as const
  const { status, error, stderr } = spawnSync(command, args, options)
  if (status === 0) return undefined
  return `${command}: ${error?.message ?? stderr.trim().split('\n')[0]}`
}
