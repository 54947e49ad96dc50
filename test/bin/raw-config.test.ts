import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { makeImage } from '../support/image.ts'
import { withoutUmoci } from '../support/umoci.ts'
import { koci, program as source, several } from './run-koci.ts'
import { umoci } from './umoci.ts'

const config = {
  User: 'web:staff',
  Env: ['A=<&>'],
  Entrypoint: ['/bin/server'],
  Cmd: ['--flag'],
  WorkingDir: '/srv',
  Labels: { z: '1', a: '2' },
  ExposedPorts: { '80/tcp': {}, '53/udp': {} },
  Volumes: { '/data': {} },
}

async function prepare(cwd: string): Promise<void> {
  await makeImage(path.join(cwd, 'images'), 'a', { layers: [], config })
  await makeImage(path.join(cwd, 'images'), 'numeric', {
    layers: [],
    config: { ...config, User: '5:6' },
  })
  mkdirSync(path.join(cwd, 'tree/etc'), { recursive: true })
  writeFileSync(path.join(cwd, 'tree/etc/passwd'), 'web:x:1000:50::/home/web:/bin/sh\n')
  writeFileSync(path.join(cwd, 'tree/etc/group'), 'staff:x:77:\nmore:x:88:web\n')
}

const lines = [
  ['--image', 'images:a'],
  ['--image', 'images:a', '--rootfs', 'tree'],
  ['--image', 'images:numeric', '--rootfs', 'tree'],
  ['--image', 'images:a', '--uid-map', '0:1000:10', '--gid-map', '0:2000:10'],
  ['--image', 'images:numeric', '--rootless'],
  ['--image', 'images:a', '--rootfs', 'tree/etc'],
  ['--image', 'images:b'],
]

await t.test('raw runtime-config writes what umoci writes', { skip: withoutUmoci }, async t => {
  const cwd = t.testdir()
  await prepare(cwd)
  await several([...lines.entries()], async ([at, line]) => {
    const outcome = await koci(['raw', 'runtime-config', ...line, `koci-${at}`], { cwd })
    const peer = await umoci(['raw', 'config', ...line, `umoci-${at}`], { cwd })
    t.equal(outcome.code, peer.code, line.join(' '))
    if (outcome.code === 0)
      t.same(read(cwd, `koci-${at}`), read(cwd, `umoci-${at}`), line.join(' '))
  })
  t.same(
    readdirSync(cwd).filter(name => name.startsWith('.koci')),
    [],
  )
})

await t.test('a file that was there is replaced at the end, with its mode', async t => {
  const cwd = t.testdir()
  await prepare(cwd)
  const file = path.join(cwd, 'config.json')
  writeFileSync(file, 'before')
  chmodSync(file, 0o600)
  const wrong = ['raw', 'config', '--image', 'images:a', '--rootfs', 'tree/etc', 'config.json']
  t.match(await koci(wrong, { cwd }), { code: 1, stderr: /web: no such user/ })
  t.equal(readFileSync(file, 'utf8'), 'before')
  const right = ['raw', 'config', '--image', 'images:a', '--rootfs', 'tree', 'config.json']
  t.same(await koci(right, { cwd }), { code: 0, stdout: '', stderr: '' })
  t.match(JSON.parse(readFileSync(file, 'utf8')), {
    root: { path: 'tree' },
    process: { user: { uid: 1000, gid: 77 } },
  })
  t.equal(statSync(file).mode & 0o777, 0o600)
})

await t.test('it can be printed; what had to be guessed is told', async t => {
  const cwd = t.testdir()
  await prepare(cwd)
  const args = ['raw', 'config', '--image', 'images:a', '/dev/stdout']
  // what a test reads from is a socket, which can't be opened again
  const piped = `${process.execPath} ${source} ${args.join(' ')} | cat`
  const { code, stdout, stderr } = await koci([piped], { cwd, node: 'sh', file: '-c' })
  t.equal(code, 0)
  t.match(JSON.parse(stdout), { root: { path: '.' }, process: { user: { uid: 0, gid: 0 } } })
  t.match(stderr, /^koci: warning: user web:staff: there is no rootfs .*\[USER_GUESSED\]\n$/)
  t.match(await koci(['--strict', ...args], { cwd }), { code: 1, stdout: '', stderr: /STRICT/ })
  t.match(await koci([...args, '--rootfs', 'nowhere'], { cwd }), {
    code: 1,
    stderr: /nowhere: .*ENOENT.*/,
  })
})

/** Without what newer specifications have. */
function read(cwd: string, name: string): unknown {
  const {
    ociVersion: _,
    annotations: _1,
    ...rest
  } = JSON.parse(readFileSync(path.join(cwd, name), 'utf8'))
  rest.linux.namespaces = rest.linux.namespaces.filter(
    ({ type }: { type: string }) => type !== 'cgroup',
  )
  // relatime is a flag, too, which umoci never sees
  for (const mount of rest.mounts)
    if (mount.destination === '/etc/resolv.conf')
      mount.options = mount.options.filter((flag: string) => flag !== 'relatime')
  return rest
}
