import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { makeImage } from '../support/image.ts'
import { withoutUmoci } from '../support/umoci.ts'
import { device } from '../support/members.ts'
import { childEnvironment, koci, plainly, program, type Outcome } from './run-koci.ts'

const rootless = process.geteuid?.() === 0 ? [] : ['--rootless']
const silent: Outcome = { code: 0, stdout: '', stderr: '' }

/** Runs a command line that is to succeed in silence. */
async function quietly(t: Test, cwd: string, ...args: string[]): Promise<void> {
  t.same(await koci(args, { cwd }), silent, args.join(' '))
}

async function tagsOf(cwd: string): Promise<string[]> {
  const { stdout } = await koci(['ls', '--layout', 'images'], { cwd })
  return stdout.split('\n').slice(0, -1)
}

await t.test('from nothing to a repacked image, as the manual has it', async t => {
  const cwd = t.testdir()
  const rootfs = path.join(cwd, 'bundle/rootfs')
  await quietly(t, cwd, 'init', '--layout', 'images')
  await quietly(t, cwd, 'new', '--image', 'images:scratch')
  await quietly(t, cwd, 'unpack', ...rootless, 'bundle', '--image', 'images:scratch')
  t.ok(existsSync(path.join(cwd, 'bundle/config.json')))
  writeFileSync(path.join(rootfs, 'hello'), 'hello\n')
  await quietly(t, cwd, 'repack', '--refresh-bundle', '--image', 'images:one', 'bundle')
  mkdirSync(path.join(rootfs, 'sub'))
  await quietly(t, cwd, 'repack', '--image=images', 'bundle')
  t.same(await tagsOf(cwd), ['scratch', 'one', 'latest'])
  await quietly(t, cwd, 'unpack', ...rootless, '--image', 'images', '--', '-again')
  t.equal(readFileSync(path.join(cwd, '-again/rootfs/hello'), 'utf8'), 'hello\n')
  t.ok(statSync(path.join(cwd, '-again/rootfs/sub')).isDirectory())
})

await t.test('a tag is given, moved, and removed; a missing one is removed, too', async t => {
  const cwd = t.testdir()
  for (const refName of ['a', 'b'])
    await makeImage(path.join(cwd, 'images'), refName, {
      layers: [],
      config: { User: refName },
    })
  await quietly(t, cwd, 'tag', '--image', 'images:a', 'c')
  t.same(await tagsOf(cwd), ['a', 'b', 'c'])
  await quietly(t, cwd, 'tag', '--image', 'images:b', 'a')
  t.same(await tagsOf(cwd), ['b', 'c', 'a'])
  await quietly(t, cwd, 'rm', '--image', 'images:b')
  await quietly(t, cwd, 'remove', '--image', 'images:b')
  await quietly(t, cwd, 'rm', '--image', 'images')
  t.same(await tagsOf(cwd), ['c', 'a'])
  const stat = await koci(['stat', '--json', '--image', 'images:a'], { cwd })
  t.equal(JSON.parse(stat.stdout).config.blob.config.User, 'b')
})

await t.test('gc removes what no tag leads to', async t => {
  const cwd = t.testdir()
  const layers = [[{ name: 'x' }]]
  await makeImage(path.join(cwd, 'images'), 'a', { layers })
  await makeImage(path.join(cwd, 'images'), 'b', { layers, config: { User: 'b' } })
  await quietly(t, cwd, 'rm', '--image', 'images:b')
  const blobs = (): number => readdirSync(path.join(cwd, 'images/blobs/sha256')).length
  t.equal(blobs(), 5)
  const { stdout } = await koci(['gc', '--json', '--layout', 'images'], { cwd })
  t.match(JSON.parse(stdout), { removed: [/^sha256:/, /^sha256:/], staging: [] })
  t.equal(blobs(), 3)
  await quietly(t, cwd, 'gc', '--layout', 'images')
  t.equal(blobs(), 3)
})

await t.test('new replaces a tag, and is reproducible with SOURCE_DATE_EPOCH', async t => {
  const cwd = t.testdir()
  const env = { SOURCE_DATE_EPOCH: '1700000000' }
  await quietly(t, cwd, 'init', '--layout', 'images')
  t.same(await koci(['new', '--image', 'images:a'], { cwd, env }), silent)
  const { stdout: first } = await koci(['ls', '--json', '--layout', 'images'], { cwd })
  t.same(await koci(['new', '--image', 'images:a'], { cwd, env }), silent)
  const { stdout: second } = await koci(['ls', '--json', '--layout', 'images'], { cwd })
  t.equal(first, second)
  t.match(JSON.parse(first), [{ refName: 'a', descriptor: { digest: /^sha256:/ } }])
  const wrong = { SOURCE_DATE_EPOCH: 'noon' }
  const { code, stderr } = await koci(['new', '--image', 'images:a'], { cwd, env: wrong })
  t.equal(code, 1)
  t.match(stderr, /SOURCE_DATE_EPOCH: "noon" is not a number/)
})

await t.test('new makes the image that umoci makes', { skip: withoutUmoci }, async t => {
  const cwd = t.testdir()
  await quietly(t, cwd, 'init', '--layout', 'images')
  await quietly(t, cwd, 'new', '--image', 'images:a')
  const umoci = (...args: string[]) => spawnSync('umoci', args, { cwd, encoding: 'utf8' })
  t.equal(umoci('new', '--image', 'images:b').status, 0)
  t.equal(umoci('ls', '--layout', 'images').stdout, 'a\nb\n')
  const configs = ['a', 'b'].map(async tag => {
    const { stdout } = await koci(['stat', '--json', '--image', `images:${tag}`], { cwd })
    const { created: _, ...config } = JSON.parse(stdout).config.blob
    return config
  })
  t.same(await configs[0], await configs[1])
})

await t.test('unpack and repack print what they did as JSON', async t => {
  const cwd = t.testdir()
  await makeImage(path.join(cwd, 'images'), 'a', { layers: [[{ name: 'x', body: 'x' }]] })
  const unpacked = await koci(['unpack', '--json', ...rootless, '--image', 'images:a', 'b'], {
    cwd,
  })
  t.equal(unpacked.stderr, '')
  t.match(JSON.parse(unpacked.stdout), {
    bundle: path.join(cwd, 'b'),
    rootfs: path.join(cwd, 'b/rootfs'),
    layers: [
      {
        index: 0,
        digest: /^sha256:/,
        diffID: /^sha256:/,
        placed: { by: 'koci', verified: true },
      },
    ],
  })
  rmSync(path.join(cwd, 'b/rootfs/x'))
  writeFileSync(Buffer.from(`${cwd}/b/rootfs/n\xe4h`, 'latin1'), 'latin1')
  const repacked = await koci(['repack', '--json', '--image', 'images:b', 'b'], { cwd })
  const { tag, manifest, layers, changes } = JSON.parse(repacked.stdout)
  t.equal(tag, 'b')
  t.match(manifest, { mediaType: String, digest: /^sha256:/, size: Number })
  t.equal(layers.length, 2)
  t.same(changes.slice(1), [
    { kind: 'A', path: 'n\\xe4h', rawPath: Buffer.from('n\xe4h', 'latin1').toString('base64') },
    { kind: 'D', path: 'x' },
  ])
})

await t.test('repack says in the history what it was told to, byte for byte', async t => {
  const cwd = t.testdir()
  await makeImage(path.join(cwd, 'images'), 'a', { layers: [] })
  await quietly(t, cwd, 'unpack', ...rootless, '--image', 'images:a', 'b')
  const history = {
    author: '-me',
    comment: '"quoted", and\ttabbed',
    created: '2026-01-31T12:00:00.5+02:00',
    created_by: 'true',
  }
  const flags = Object.entries(history).flatMap(([name, value]) => [`--history.${name}`, value])
  await quietly(t, cwd, 'repack', ...flags, '--image', 'images:b', 'b')
  const { stdout } = await koci(['stat', '--json', '--image', 'images:b'], { cwd })
  t.same(JSON.parse(stdout).history, [
    { layer: null, diff_id: '', ...history, empty_layer: true },
  ])
  await quietly(t, cwd, 'repack', '--no-history', '--image', 'images:c', 'b')
  const none = await koci(['stat', '--json', '--image', 'images:c'], { cwd })
  t.same(JSON.parse(none.stdout).history, [])
})

await t.test('repack leaves out masked paths and volumes, unless told not to', async t => {
  const cwd = t.testdir()
  const config = { Volumes: { '/data': {} } }
  await makeImage(path.join(cwd, 'images'), 'a', { layers: [], config })
  await quietly(t, cwd, 'unpack', ...rootless, '--image', 'images:a', 'b')
  for (const name of ['data', 'tmp', 'a,b', 'kept']) mkdirSync(path.join(cwd, 'b/rootfs', name))
  const changes = async (...flags: string[]): Promise<string[]> => {
    const { stdout } = await koci(['repack', '--json', '--image', 'images:b', ...flags, 'b'], {
      cwd,
    })
    const listed: { path: string }[] = JSON.parse(stdout).changes
    return listed.map(change => change.path).filter(Boolean)
  }
  t.same(await changes(), ['a,b', 'kept', 'tmp'])
  t.same(await changes('--no-mask-volumes'), ['a,b', 'data', 'kept', 'tmp'])
  t.same(await changes('--no-mask-volumes=false'), ['a,b', 'kept', 'tmp'])
  t.same(await changes('--mask-path', '/tmp', '--mask-path=/a,b'), ['kept'])
})

for (const [how, suffix] of [
  ['none', ''],
  ['', ''],
  ['gzip', '+gzip'],
  ['zstd', '+zstd'],
  ['auto', '+gzip'],
])
  await t.test(`--compress=${how} makes a layer of type tar${suffix}`, async t => {
    const cwd = t.testdir()
    await makeImage(path.join(cwd, 'images'), 'a', { layers: [] })
    await quietly(t, cwd, 'unpack', ...rootless, '--image', 'images:a', 'b')
    writeFileSync(path.join(cwd, 'b/rootfs/x'), 'x')
    await quietly(t, cwd, 'repack', `--compress=${how}`, '--image', 'images:b', 'b')
    const { stdout } = await koci(['stat', '--json', '--image', 'images:b'], { cwd })
    const [layer] = JSON.parse(stdout).manifest.blob.layers
    t.equal(layer.mediaType, `application/vnd.oci.image.layer.v1.tar${suffix}`)
  })

await t.test('id maps and --rootless are recorded as umoci records them', async t => {
  const cwd = t.testdir()
  await makeImage(path.join(cwd, 'images'), 'a', { layers: [] })
  const mapsOf = async (...flags: string[]): Promise<unknown> => {
    rmSync(path.join(cwd, 'b'), { recursive: true, force: true })
    await quietly(t, cwd, 'unpack', ...flags, '--image', 'images:a', 'b')
    return JSON.parse(readFileSync(path.join(cwd, 'b/umoci.json'), 'utf8')).map_options
  }
  const uid = process.geteuid?.()
  const gid = process.getegid?.()
  t.match(await mapsOf('--rootless'), {
    uid_mappings: [{ containerID: 0, hostID: uid, size: 1 }],
    gid_mappings: [{ containerID: 0, hostID: gid, size: 1 }],
    rootless: true,
  })
  const maps = ['--uid-map', `0:${uid}:1`, '--uid-map', '1:100000:65535', `--gid-map=0:${gid}`]
  t.match(await mapsOf('--rootless', ...maps), {
    uid_mappings: [
      { containerID: 0, hostID: uid, size: 1 },
      { containerID: 1, hostID: 100_000, size: 65_535 },
    ],
    gid_mappings: [{ containerID: 0, hostID: gid, size: 1 }],
  })
})

await t.test('--keep-dirlinks keeps a symlink where a layer has a directory', async t => {
  const cwd = t.testdir()
  await makeImage(path.join(cwd, 'images'), 'a', {
    layers: [
      [
        { name: 'usr/bin/', type: 'directory' },
        { name: 'bin', type: 'symlink', linkname: 'usr/bin' },
      ],
      [
        { name: 'bin/', type: 'directory' },
        { name: 'bin/sh', body: '#!' },
      ],
    ],
  })
  await quietly(t, cwd, 'unpack', ...rootless, '--keep-dirlinks', '--image', 'images:a', 'kept')
  await quietly(t, cwd, 'unpack', ...rootless, '--image', 'images:a', 'replaced')
  t.ok(existsSync(path.join(cwd, 'kept/rootfs/usr/bin/sh')))
  t.notOk(existsSync(path.join(cwd, 'replaced/rootfs/usr/bin/sh')))
})

await t.test('warnings are lines on standard error, and errors with --strict', async t => {
  const cwd = t.testdir()
  await makeImage(path.join(cwd, 'images'), 'a', {
    layers: [[{ name: 'dev/null', type: 'char', devmajor: 1, devminor: 3 }]],
  })
  const args = ['unpack', '--rootless', '--image', 'images:a', 'b']
  const loud = await koci(args, { cwd })
  t.equal(loud.code, 0)
  t.match(
    loud.stderr,
    /^koci: warning: layer sha256:[0-9a-f]{12}: dev\/null: .*\[DEVICE_AS_FILE\]\n$/,
  )
  rmSync(path.join(cwd, 'b'), { recursive: true })
  t.same(await koci(['--log=error', ...args], { cwd }), silent)
  rmSync(path.join(cwd, 'b'), { recursive: true })
  const strict = await koci([...args, '--strict'], { cwd })
  t.equal(strict.code, 1)
  t.match(strict.stderr, /\[ERR_KOCI_STRICT\]\n$/)
  t.notOk(existsSync(path.join(cwd, 'b')))
})

await t.test('--verbose says what layers took', async t => {
  const cwd = t.testdir()
  await makeImage(path.join(cwd, 'images'), 'a', { layers: [[{ name: 'x' }]] })
  const { code, stderr } = await koci(
    ['--verbose', 'unpack', ...rootless, '--image', 'images:a', 'b'],
    { cwd },
  )
  t.equal(code, 0)
  t.match(stderr, /^koci: koci placed sha256:[0-9a-f]{64} in \d+\.\d\d s$/m)
})

await t.test(
  'a lack of privilege hints at --rootless',
  { skip: process.geteuid?.() === 0 && 'needs to be an ordinary user: root lacks nothing' },
  async t => {
    const cwd = t.testdir()
    await makeImage(path.join(cwd, 'images'), 'a', {
      layers: [[{ name: 'x', uid: 12, gid: 34 }]],
    })
    const { code, stderr } = await koci(['unpack', '--image', 'images:a', 'b'], { cwd })
    t.equal(code, 1)
    t.match(stderr, /\nkoci: hint: .*--rootless\n$/)
    t.notOk(existsSync(path.join(cwd, 'b')))
  },
)

const capability = ['--bounding-set', '-mknod', '--inh-caps', '-mknod']
await t.test(
  'root without a capability gets the same hint',
  {
    skip:
      (process.geteuid?.() !== 0 && 'needs root') ||
      (spawnSync('setpriv', [...capability, 'true']).status !== 0 && 'needs setpriv'),
  },
  async t => {
    const cwd = t.testdir()
    await makeImage(path.join(cwd, 'images'), 'a', { layers: [[device('null')]] })
    const unpack = ['unpack', '--image', 'images:a', 'b']
    const args = [...capability, process.execPath, program, ...unpack]
    const { status, stderr } = spawnSync(...plainly('setpriv', args), {
      cwd,
      encoding: 'utf8',
      env: childEnvironment(),
      timeout: 60_000,
    })
    t.equal(status, 1)
    t.match(stderr, /EPERM.*\nkoci: hint: .*--rootless\n$/s)
  },
)

await t.test('a reader that goes away ends the program quietly', async t => {
  const cwd = t.testdir()
  await makeImage(path.join(cwd, 'images'), 'a', { layers: [] })
  const { code, stderr } = await koci(['ls', '--layout', 'images'], {
    cwd,
    started: child => child.stdout?.destroy(),
  })
  t.ok(code === 141 || code === 0, `exit status ${code}`)
  t.equal(stderr, '')
})
