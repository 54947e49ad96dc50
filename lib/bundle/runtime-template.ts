// The runtime configuration that every bundle starts from: umoci's. runtime-spec v1.3.0, config.md and config-linux.md.
import type { IdMap } from '../oci/idmap.ts'

/** An entry of `mounts`. */
export interface Mount {
  destination: string
  type: string
  source: string
  options?: string[]
}

/** What koci writes to config.json, and whatever middleware adds. */
export interface RuntimeConfig {
  ociVersion: string
  process: {
    terminal: boolean
    user: { uid: number; gid: number; additionalGids?: number[]; [field: string]: unknown }
    args: string[]
    env: string[]
    cwd: string
    capabilities: Record<string, string[]>
    rlimits: Array<{ type: string; hard: number; soft: number }>
    noNewPrivileges: boolean
    [field: string]: unknown
  }
  root: { path: string; readonly?: boolean; [field: string]: unknown }
  hostname: string
  mounts: Mount[]
  annotations: Record<string, string>
  linux: {
    uidMappings?: IdMap[]
    gidMappings?: IdMap[]
    resources?: {
      devices?: Array<{ allow: boolean; access: string }>
      [field: string]: unknown
    }
    namespaces: Array<{ type: string; path?: string }>
    maskedPaths: string[]
    readonlyPaths: string[]
    [field: string]: unknown
  }
  [field: string]: unknown
}

const capabilitySets = ['bounding', 'effective', 'inheritable', 'permitted', 'ambient']
const capabilities = ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE']

/** A fresh copy of the template. */
export function runtimeTemplate(): RuntimeConfig {
  return {
    ociVersion: '1.3.0',
    process: {
      terminal: true,
      user: { uid: 0, gid: 0 },
      args: ['sh'],
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'TERM=xterm'],
      cwd: '/',
      capabilities: Object.fromEntries(capabilitySets.map(set => [set, [...capabilities]])),
      rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
    },
    root: { path: 'rootfs' },
    hostname: 'umoci-default',
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      mount('/dev', 'tmpfs', 'tmpfs', 'nosuid,strictatime,mode=755,size=65536k'),
      mount(
        '/dev/pts',
        'devpts',
        'devpts',
        'nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5',
      ),
      mount('/dev/shm', 'tmpfs', 'shm', 'nosuid,noexec,nodev,mode=1777,size=65536k'),
      mount('/dev/mqueue', 'mqueue', 'mqueue', 'nosuid,noexec,nodev'),
      mount('/sys', 'sysfs', 'sysfs', 'nosuid,noexec,nodev,ro'),
      mount('/sys/fs/cgroup', 'cgroup', 'cgroup', 'nosuid,noexec,nodev,relatime,ro'),
    ],
    annotations: {},
    linux: {
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      namespaces: ['cgroup', 'pid', 'network', 'ipc', 'uts', 'mount'].map(type => ({ type })),
      maskedPaths: [
        '/proc/kcore',
        '/proc/latency_stats',
        '/proc/timer_list',
        '/proc/timer_stats',
        '/proc/sched_debug',
        '/sys/firmware',
        '/proc/scsi',
      ],
      readonlyPaths: [
        '/proc/asound',
        '/proc/bus',
        '/proc/fs',
        '/proc/irq',
        '/proc/sys',
        '/proc/sysrq-trigger',
      ],
    },
  }
}

function mount(destination: string, type: string, source: string, options: string): Mount {
  return { destination, type, source, options: options.split(',') }
}
