// What an ordinary user's container can't have, taken out of a runtime configuration, and what it gets instead.
import { readFileSync, realpathSync } from 'node:fs'
import type { Mount, RuntimeConfig } from './runtime-template.ts'

/** A file of the host that is bind-mounted into a container. */
export interface HostFile {
  readonly path: string
  /** Flags of the mount it is on, which a user namespace can't drop: a bind mount has to repeat them. */
  readonly lockedFlags: readonly string[]
}

/**
 * Changes a runtime configuration for an ordinary user: no additional groups (it can't set them), no network
 * namespace (it couldn't configure it), the host's /sys instead of a new one, no cgroup settings.
 * Needs id maps to run: those are the caller's.
 */
export function toRootless(config: RuntimeConfig, resolvConf?: HostFile): void {
  delete config.process.user.additionalGids
  const others = config.linux.namespaces.filter(
    ({ type }) => type !== 'network' && type !== 'user',
  )
  config.linux.namespaces = [...others, { type: 'user' }]
  config.mounts = [...config.mounts.filter(isOutsideSys).map(withoutOwners), hostSys()]
  if (resolvConf)
    config.mounts.push({
      destination: '/etc/resolv.conf',
      type: 'bind',
      source: resolvConf.path,
      options: [...new Set(['rbind', 'ro', ...resolvConf.lockedFlags])],
    })
  delete config.linux.resources
}

/** The host's /etc/resolv.conf with the flags of its mount; undefined if the host has none. */
export function hostResolvConf(): HostFile | undefined {
  const path = '/etc/resolv.conf'
  try {
    const target = realpathSync(path)
    return { path, lockedFlags: flagsOf(target, readFileSync('/proc/self/mountinfo', 'utf8')) }
  } catch {
    // none, or it can't be told what it is mounted from: the container does without
    return undefined
  }
}

const lockable = new Set([
  'ro',
  'nosuid',
  'nodev',
  'noexec',
  'noatime',
  'nodiratime',
  'relatime',
])

/** The lockable flags of the mount that holds a path; `mountinfo` as in proc(5). */
export function flagsOf(path: string, mountinfo: string): string[] {
  let best = ''
  let flags: string[] = []
  for (const line of mountinfo.split('\n')) {
    const fields = line.split(' ')
    const point = (fields[4] ?? '').replaceAll(/\\(\d{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    )
    if (point === '' || !isAtOrBelow(path, point) || point.length < best.length) continue
    best = point
    flags = (fields[5] ?? '').split(',').filter(flag => lockable.has(flag))
  }
  return flags
}

function isAtOrBelow(path: string, point: string): boolean {
  return point === '/' || path === point || path.startsWith(`${point}/`)
}

function isOutsideSys({ destination }: Mount): boolean {
  return !isAtOrBelow(destination, '/sys')
}

/** Owners of mounts are ids that the container may not have. */
function withoutOwners(mount: Mount): Mount {
  if (!mount.options) return mount
  return { ...mount, options: mount.options.filter(option => !/^[ug]id=/.test(option)) }
}

function hostSys(): Mount {
  return {
    destination: '/sys',
    type: 'bind',
    source: '/sys',
    options: ['rbind', 'nosuid', 'noexec', 'nodev', 'ro'],
  }
}
