// What this process may do, as the kernel tells it: asked once per job, never guessed from the uid alone.
import { readFileSync } from 'node:fs'

export interface Privileges {
  /** Effective ids: who owns what is created. */
  readonly uid: number
  readonly gid: number
  /** Whether the process is in a user namespace other than the first one: devices can't be made there. */
  readonly inUserNamespace: boolean
  /** May read and enter whatever the modes say (CAP_DAC_OVERRIDE). */
  readonly overridesModes: boolean
  /** May set attributes in `trusted.*` (CAP_SYS_ADMIN, and no user namespace). */
  readonly storesTrusted: boolean
  /** Lacks nothing that root has of what layers may ask for: owners, modes, devices, attributes. */
  readonly extractsAll: boolean
  /** Undefined where /proc doesn't say. */
  readonly umask: number | undefined
}

const CAP_CHOWN = 0n
const CAP_DAC_OVERRIDE = 1n
const CAP_FOWNER = 3n
const CAP_SYS_ADMIN = 21n
const CAP_MKNOD = 27n
const CAP_SETFCAP = 31n

/** Reads the privileges of this process from /proc. */
export function readPrivileges(): Privileges {
  const status = readText('/proc/self/status')
  const uid = process.geteuid?.() ?? 0
  const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1]
  const umask = /^Umask:\s*([0-7]+)$/m.exec(status)?.[1]
  const inUserNamespace = !isInitialMap(readText('/proc/self/uid_map'))
  const has = (capability: bigint): boolean =>
    capabilities === undefined
      ? uid === 0
      : ((BigInt(`0x${capabilities}`) >> capability) & 1n) === 1n
  return {
    uid,
    gid: process.getegid?.() ?? 0,
    inUserNamespace,
    overridesModes: has(CAP_DAC_OVERRIDE),
    storesTrusted: has(CAP_SYS_ADMIN) && !inUserNamespace,
    extractsAll:
      !inUserNamespace &&
      [CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_MKNOD, CAP_SETFCAP].every(has),
    umask: umask === undefined ? undefined : Number.parseInt(umask, 8),
  }
}

function isInitialMap(text: string): boolean {
  return text === '' || /^\s*0\s+0\s+4294967295\s*$/.test(text)
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
