// Tests that mount run in mount namespaces of their own, so that nothing can stay behind whatever happens: once as we are
// with the host's privilege, if we have it, and once as root of a user namespace, which everybody can be.
import { spawnSync } from 'node:child_process'
import type t from 'tap'

type Tap = Pick<typeof t, 'spawn' | 'test'>

/** Whether the process is in one of them: `user` where only `user.*` attributes can be had. */
export const namespace: 'host' | 'user' | undefined = namespaceOf(
  process.env['KOCI_TEST_NAMESPACE'],
)

/** As tap would start it. */
const nodeFlags = ['--import', new URL('plain-workers.js', import.meta.url).href]

const kinds = [
  ['host', ['-m', '--propagation', 'private']],
  ['user', ['-Urm']],
] as const

/**
 * Runs the test file again in each kind of namespace that can be had; what it does there is its own business. `wanted`: in
 * these only.
 */
export async function runInNamespaces(
  t: Tap,
  file: string,
  wanted: readonly (typeof kinds)[number][0][] = ['host', 'user'],
): Promise<void> {
  for (const [kind, flags] of kinds) {
    if (!wanted.includes(kind)) continue
    const { status, error, stderr } = spawnSync('unshare', [...flags, 'true'], {
      encoding: 'utf8',
      timeout: 10_000,
    })
    if (status === 0) {
      const env = { ...process.env, KOCI_TEST_NAMESPACE: kind }
      await t.spawn(
        'unshare',
        [...flags, process.execPath, ...nodeFlags, file],
        { env },
        `namespace: ${kind}`,
      )
    } else
      await t.test(
        `namespace: ${kind}`,
        { skip: `unshare ${flags[0]}: ${error?.message ?? stderr.trim()}` },
        async () => {},
      )
  }
}

function namespaceOf(value: string | undefined): 'host' | 'user' | undefined {
  return value === 'host' || value === 'user' ? value : undefined
}
