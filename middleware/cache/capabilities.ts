// What this process may do, as far as it decides what extraction can make: a layer that lost something for want of a
// capability is no answer for a process that has it.
import { readFileSync } from 'node:fs'
import { readPrivileges } from '../../lib/fs/privileges.ts'

const CAP_SYS_ADMIN = 21n
/** CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN (trusted attributes), MKNOD, SETFCAP. */
const relevant = [0n, 1n, 3n, 4n, CAP_SYS_ADMIN, 27n, 31n].reduce(
  (mask, bit) => mask | (1n << bit),
  0n,
)

let known: bigint | undefined

/** Those of the effective capabilities that matter here. */
export function effectiveCapabilities(): bigint {
  known ??= read() & relevant
  return known
}

/** Whether this process can set `trusted.*` attributes. */
export function storesTrusted(): boolean {
  const isCapable = ((effectiveCapabilities() >> CAP_SYS_ADMIN) & 1n) === 1n
  return isCapable && !readPrivileges().inUserNamespace
}

function read(): bigint {
  try {
    const text = readFileSync('/proc/self/status', 'latin1')
    return BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(text)?.[1] ?? '0'}`)
  } catch {
    return 0n
  }
}
