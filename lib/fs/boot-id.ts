// Which boot of the machine this is.
import { readFileSync } from 'node:fs'

let boot: string | undefined

/** Of this boot; empty where the kernel doesn't say. */
export function bootID(): string {
  if (boot !== undefined) return boot
  try {
    boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
  } catch {
    boot = ''
  }
  return boot
}
