import { execFileSync, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import * as fs from 'node:fs'
import t from 'tap'
import { flagsOf } from '../../../lib/bundle/rootless-config.ts'
import {
  encodeRuntimeConfig,
  toRuntimeConfig,
  type ConversionOptions,
  type RuntimeConfig,
} from '../../../lib/bundle/runtime-config.ts'
import { openRooted } from '../../../lib/fs/rooted.ts'
import type { ExecutionConfig, ImageConfig } from '../../../lib/oci/image-config.ts'
import { withoutUmoci } from '../../support/umoci.ts'

const isRoot = process.getuid?.() === 0
const defaultPath = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

function image(config: ExecutionConfig = {}, more: Partial<ImageConfig> = {}): ImageConfig {
  return {
    os: 'linux',
    architecture: 'amd64',
    config,
    rootfs: { type: 'layers', diff_ids: [] },
    ...more,
  }
}

function convert(
  config: ExecutionConfig = {},
  options: Omit<ConversionOptions, 'rootfs'> & { root?: string } = {},
): RuntimeConfig {
  const { root, ...rest } = options
  if (root === undefined) return toRuntimeConfig(image(config), rest)
  const rootfs = openRooted(root)
  try {
    return toRuntimeConfig(image(config), { ...rest, rootfs })
  } finally {
    rootfs.close()
  }
}

await t.test('an empty image config gives the template', async t => {
  const config = convert()
  t.equal(config.ociVersion, '1.3.0')
  t.same(config.process.args, ['sh'])
  t.same(config.process.user, { uid: 0, gid: 0 })
  t.equal(config.process.cwd, '/')
  t.equal(config.root.path, '.')
  t.same(config.annotations, {
    'org.opencontainers.image.architecture': 'amd64',
    'org.opencontainers.image.created': '0001-01-01T00:00:00Z',
    'org.opencontainers.image.os': 'linux',
  })
  t.same(
    config.linux.namespaces.map(({ type }) => type),
    ['cgroup', 'pid', 'network', 'ipc', 'uts', 'mount'],
  )
  config.mounts.length = 0
  t.not(convert().mounts.length, 0, 'the template is a fresh copy')
})

await t.test('process', async t => {
  const cases: Array<[config: ExecutionConfig, process: Record<string, unknown>]> = [
    [{ Entrypoint: ['a'], Cmd: ['b', 'c'] }, { args: ['a', 'b', 'c'] }],
    [{ Cmd: ['b'] }, { args: ['b'] }],
    [{ Entrypoint: [], Cmd: [] }, { args: ['sh'] }],
    [{ WorkingDir: '/w d' }, { cwd: '/w d' }],
    [{ WorkingDir: 'w' }, { cwd: '/w' }],
    [{ WorkingDir: '' }, { cwd: '/' }],
    [{ User: '5:6' }, { user: { uid: 5, gid: 6 } }],
    [
      { Env: ['A=1', 'TERM=dumb', 'A=2=3', 'B='] },
      { env: [defaultPath, 'TERM=dumb', 'A=2=3', 'B='] },
    ],
  ]
  for (const [config, process] of cases) t.match(convert(config).process, process)
  for (const bad of ['NOEQUALS', '=x', '', 'A=\0'])
    t.throws(() => convert({ Env: [bad] }), { code: 'ERR_KOCI_INVALID_CONFIG' }, bad)
  t.throws(() => convert({ Cmd: ['a\0b'] }), { code: 'ERR_KOCI_INVALID_CONFIG' })
})

await t.test('users come from the rootfs, and HOME unless it is set', async t => {
  const root = t.testdir({
    etc: { passwd: 'app:x:5:6::/home/app:', group: 'more:x:7:app\nother:x:8:' },
  })
  const { process } = convert({ User: 'app' }, { root })
  t.same(process.user, { uid: 5, gid: 6, additionalGids: [7] })
  t.same(process.env.at(-1), 'HOME=/home/app')
  t.notOk(
    convert({ User: 'app', Env: ['HOME=/set'] }, { root }).process.env.includes(
      'HOME=/home/app',
    ),
  )
  t.same(convert({ User: 'app:8' }, { root }).process.user, { uid: 5, gid: 8 })
  t.equal(convert({}, { root }).root.path, 'rootfs')
  t.throws(() => convert({ User: 'nobody' }, { root }), { code: 'ERR_KOCI_USER_NOT_FOUND' })
  const warnings: string[] = []
  const guessed = convert({ User: 'nobody' }, { warn: message => warnings.push(message) })
  t.same(guessed.process.user, { uid: 0, gid: 0 })
  t.match(warnings, [/nobody.*root/])
})

await t.test('only Linux', async t => {
  for (const os of ['windows', '', 'Linux'])
    t.throws(() => toRuntimeConfig(image({}, { os })), {
      code: 'ERR_KOCI_UNSUPPORTED_PLATFORM',
    })
})

await t.test('annotations: what the image says, then its labels', async t => {
  const config = toRuntimeConfig(
    image(
      {
        StopSignal: 'SIGINT',
        ExposedPorts: { '80/tcp': {}, '443': {} },
        Labels: { z: '', 'org.opencontainers.image.author': 'label', ['__proto__']: 'x' },
      },
      { author: 'image', variant: 'v8', created: '2020-01-02T03:04:05.120000000+00:00' },
    ),
  )
  t.same(Object.entries(config.annotations), [
    ['__proto__', 'x'],
    ['org.opencontainers.image.architecture', 'amd64'],
    ['org.opencontainers.image.author', 'label'],
    ['org.opencontainers.image.created', '2020-01-02T03:04:05.12Z'],
    ['org.opencontainers.image.exposedPorts', '443,80/tcp'],
    ['org.opencontainers.image.os', 'linux'],
    ['org.opencontainers.image.stopSignal', 'SIGINT'],
    ['org.opencontainers.image.variant', 'v8'],
    ['z', ''],
  ])
  for (const [created, shown] of [
    ['2020-01-02T03:04:05.000Z', '2020-01-02T03:04:05Z'],
    ['2020-01-02T03:04:05Z', '2020-01-02T03:04:05Z'],
    ['2020-01-02T03:04:00.5+02:00', '2020-01-02T03:04:00.5+02:00'],
    ['2020-01-02T03:04:05.123456789Z', '2020-01-02T03:04:05.123456789Z'],
  ] as const)
    t.equal(
      toRuntimeConfig(image({}, { created })).annotations['org.opencontainers.image.created'],
      shown,
    )
})

await t.test('CVE-2022-23648: volumes are mounts of nothing, inside the rootfs', async t => {
  const { mounts } = convert({ Volumes: { '/b': {}, 'a/./c/': {}, '/../../etc': {} } })
  t.same(
    mounts.slice(-3),
    ['/a/c', '/b', '/etc'].map(destination => ({
      destination,
      type: 'tmpfs',
      source: 'none',
      options: ['rw', 'nosuid', 'nodev', 'noexec', 'relatime'],
    })),
  )
  for (const volume of ['/', '', '..', '/a\0'])
    t.throws(() => convert({ Volumes: { [volume]: {} } }), { code: 'ERR_KOCI_INVALID_CONFIG' })
})

const uidMap = [{ containerID: 0, hostID: 1000, size: 1 }]
const gidMap = [{ containerID: 0, hostID: 1001, size: 1 }]

await t.test('id maps mean a user namespace, which comes last', async t => {
  const { linux } = convert({}, { uidMap, gidMap })
  t.same(linux.uidMappings, uidMap)
  t.same(linux.gidMappings, gidMap)
  t.same(linux.namespaces.at(-1), { type: 'user' })
  t.equal(linux.namespaces.length, 7)
  t.equal(convert({}, { uidMap }).linux.gidMappings, undefined)
  t.equal(convert({}, { uidMap: [] }).linux.namespaces.length, 6)
})

await t.test('rootless', async t => {
  const root = t.testdir({ etc: { passwd: 'root:x:0:0::/root:', group: 'more:x:7:root' } })
  const hostResolvConf = { path: '/etc/resolv.conf', lockedFlags: ['ro', 'nosuid'] }
  const volumes = { Volumes: { '/sys/x': {}, '/system': {} } }
  const config = convert(volumes, { root, rootless: true, uidMap, gidMap, hostResolvConf })
  t.same(config.process.user, { uid: 0, gid: 0 })
  t.same(
    config.linux.namespaces.map(({ type }) => type),
    ['cgroup', 'pid', 'ipc', 'uts', 'mount', 'user'],
  )
  t.equal(config.linux.resources, undefined)
  t.same(
    config.mounts.map(({ destination }) => destination),
    [
      '/proc',
      '/dev',
      '/dev/pts',
      '/dev/shm',
      '/dev/mqueue',
      '/system',
      '/sys',
      '/etc/resolv.conf',
    ],
  )
  t.notOk(config.mounts[2]?.options?.some(option => option.startsWith('gid=')))
  t.same(config.mounts.at(-2)?.options, ['rbind', 'nosuid', 'noexec', 'nodev', 'ro'])
  t.same(config.mounts.at(-1)?.options, ['rbind', 'ro', 'nosuid'])

  await t.test('a host without resolv.conf loses that mount and no other', async t => {
    const { mounts } = convert({}, { root, rootless: true, uidMap, gidMap })
    t.equal(mounts.at(-1)?.destination, '/sys')
  })
})

await t.test('locked flags are those of the mount that holds the file', async t => {
  const mountinfo = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda rw
23 22 0:5 / /run rw,nosuid,nodev,noexec,noatime - tmpfs tmpfs rw
24 22 0:6 / /runner ro - tmpfs tmpfs rw
25 22 0:7 / /run/a\\040b ro,nodiratime - tmpfs tmpfs rw
`
  t.same(flagsOf('/run/x/resolv.conf', mountinfo), ['nosuid', 'nodev', 'noexec', 'noatime'])
  t.same(flagsOf('/etc/resolv.conf', mountinfo), ['relatime'])
  t.same(flagsOf('/run/a b/c', mountinfo), ['ro', 'nodiratime'])
  t.same(flagsOf('/runner', mountinfo), ['ro'])
  t.same(flagsOf('/x', ''), [])
})

await t.test('written as Go writes it', async t => {
  const text = encodeRuntimeConfig(convert({ Cmd: ['a<b>&\u2028é"'] }))
  t.ok(text.startsWith('{\n\t"ociVersion": "1.3.0",\n\t"process": {\n\t\t"terminal": true,'))
  t.ok(text.endsWith('\n}\n'))
  t.match(text, String.raw`"a\u003cb\u003e\u0026\u2028é\""`)
  t.same(JSON.parse(text), convert({ Cmd: ['a<b>&\u2028é"'] }))
})

await t.test(
  'the same as umoci 0.4.7, but for what changed since',
  { skip: withoutUmoci },
  async t => {
    const dir = t.testdir({})
    const umoci = (...args: string[]) => {
      execFileSync('umoci', args, { cwd: dir, stdio: 'pipe', timeout: 60_000 })
    }
    umoci('init', '--layout', 'image')
    umoci('new', '--image', 'image:t')
    const flags = ['--config.cmd', 'c', '--config.entrypoint', 'e', '--config.env', 'A=1']
    const more = [
      '--config.env',
      'PATH=/x',
      '--config.volume',
      '/v',
      '--config.volume',
      '/a',
      '--config.user',
      '5:6',
    ]
    const rest = [
      '--config.workingdir',
      '/w',
      '--config.label',
      'l=m',
      '--config.stopsignal',
      'SIGHUP',
    ]
    umoci(
      'config',
      '--image',
      'image:t',
      ...flags,
      ...more,
      ...rest,
      '--config.exposedports',
      '80',
      '--author',
      'me',
    )
    const config = {
      Cmd: ['c'],
      Entrypoint: ['e'],
      Env: ['A=1', 'PATH=/x'],
      Volumes: { '/v': {}, '/a': {} },
      User: '5:6',
      WorkingDir: '/w',
      Labels: { l: 'm' },
      StopSignal: 'SIGHUP',
      ExposedPorts: { '80': {} },
    }
    for (const rootless of isRoot ? [false, true] : [true]) {
      const bundle = rootless ? 'rootless' : 'bundle'
      umoci('unpack', ...(rootless ? ['--rootless'] : []), '--image', 'image:t', bundle)
      const theirs = JSON.parse(
        fs.readFileSync(`${dir}/${bundle}/config.json`, 'utf8'),
      ) as RuntimeConfig
      const root = openRooted(`${dir}/${bundle}/rootfs`)
      const { annotations } = theirs
      const created = annotations['org.opencontainers.image.created'] ?? ''
      const ours = toRuntimeConfig(image(config, { author: 'me', created }), {
        rootfs: root,
        rootless,
        uidMap: theirs.linux.uidMappings,
        gidMap: theirs.linux.gidMappings,
        hostResolvConf: { path: '/etc/resolv.conf', lockedFlags: [] },
      })
      root.close()
      // since 0.4.7: the spec's version, and a cgroup namespace
      t.equal(theirs.ociVersion, '1.0.0')
      theirs.ociVersion = ours.ociVersion
      theirs.linux.namespaces.unshift({ type: 'cgroup' })
      // and an order of the volumes that isn't left to chance
      const isVolume = ({ destination }: { destination: string }) =>
        destination in config.Volumes
      const volumes = theirs.mounts.filter(isVolume)
      volumes.sort((a, b) => (a.destination < b.destination ? -1 : 1))
      theirs.mounts = theirs.mounts.map(mount =>
        isVolume(mount) ? (volumes.shift() ?? mount) : mount,
      )
      const hostMounts = theirs.mounts.filter(
        ({ destination }) => destination === '/etc/resolv.conf',
      )
      if (rootless && hostMounts.length === 0) ours.mounts.pop()
      t.same(ours, theirs, bundle)
      t.same(keysOf(ours), keysOf(theirs), `${bundle}: in the same order`)
    }
  },
)

/** All keys in their order; labels are sorted among the annotations by both. */
function keysOf(value: unknown): unknown[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) => [key, ...keysOf(inner)])
}

const withoutRunc = !isRoot
  ? 'needs root: runc'
  : spawnSync('runc', ['--version']).status !== 0
    ? 'needs runc'
    : spawnSync('cc', ['--version']).status !== 0 && 'needs a C compiler'

await t.test('runc runs it', { skip: withoutRunc }, async t => {
  const bundle = t.testdir({ rootfs: { bin: {}, etc: { passwd: 'app:x:5:6::/home/app:' } } })
  const source = `#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
  char cwd[99];
  printf("%d:%d %s %s\\n", getuid(), getgid(), getcwd(cwd, 99), getenv("HOME"));
  return access("/vol", F_OK);
}`
  execFileSync('cc', ['-static', '-x', 'c', '-o', `${bundle}/rootfs/bin/sh`, '-'], {
    input: source,
    timeout: 60_000,
  })
  const config = convert(
    { User: 'app', WorkingDir: '/w', Volumes: { '/vol': {} } },
    { root: `${bundle}/rootfs` },
  )
  config.process.terminal = false
  fs.writeFileSync(`${bundle}/config.json`, encodeRuntimeConfig(config))
  const id = `koci-test-${randomUUID()}`
  const { stdout, stderr, status } = spawnSync('runc', ['run', '-b', bundle, id], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  if (status !== 0) spawnSync('runc', ['delete', '-f', id], { timeout: 30_000 })
  t.equal(status, 0, stderr)
  t.equal(stdout, '5:6 /w /home/app\n')
})
