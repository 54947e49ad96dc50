// runc runs the bundles that koci makes, and crun where the machine's cgroups are such as it takes.
import {
  copyFileSync,
  existsSync,
  readFileSync,
  readdirSync,
  realpathSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { unmount } from '../../lib/fs/mount.ts'
import { isMountPoint } from '../../lib/fs/mount-table.ts'
import { Koci, unmountBundle } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { overlay } from '../../middleware/overlay/index.ts'
import { namespace, runInNamespaces } from '../support/namespaces.ts'
import { makeImage } from '../support/image.ts'
import { finish, isRoot, missing, run, temporary, type Finished } from '../support/peers.ts'
import type { TarMember } from '../support/tar-builder.ts'

/** The machine's shell and the libraries it needs: enough of a system to run something. */
function shell(): TarMember[] {
  const program = realpathSync('/bin/sh')
  const { stdout } = finish('ldd', [program])
  const libraries = [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, name = '']) => name)
  return [
    ['bin/sh', program] as const,
    ...libraries.map(name => [name.slice(1), realpathSync(name)] as const),
  ].map(([name, from]) => ({ name, body: readFileSync(from), mode: 0o755 }))
}

type Test = Parameters<typeof temporary>[0] & Pick<typeof t, 'match' | 'strictSame' | 'equal'>

let count = 0

const directories: TarMember[] = ['./', 'bin/', 'etc/', 'tmp/', 'proc/', 'sys/', 'dev/'].map(
  name => ({ name, type: 'directory', mode: name === 'tmp/' ? 0o1777 : 0o755 }),
)

function canRun(runtime: 'runc' | 'crun' = 'runc'): false | string {
  if (!isRoot) return 'needs root: containers'
  const absent = missing(runtime, 'ldd')
  if (absent !== false) return absent
  if (finish(runtime, ['list']).status !== 0) return `needs a ${runtime} that works here`
  if (runtime === 'crun' && existsSync('/sys/fs/cgroup/unified'))
    return 'needs cgroups of one version: crun takes no mixture'
  const controllers = existsSync('/sys/fs/cgroup') && readdirSync('/sys/fs/cgroup').length > 0
  return !controllers && 'needs cgroups'
}

if (namespace === 'host') await t.test('stacked', stackedBundle)
else {
  await t.test(
    'a bundle runs: command, environment, directory, user and exit code are those of the image',
    { skip: canRun() },
    async t => {
      const base = temporary(t, 'runc')
      const images = path.join(base, 'images')
      const bundle = path.join(base, 'bundle')
      const image = await makeImage(images, 'test', {
        layers: [
          [
            ...directories,
            ...shell(),
            {
              name: 'etc/passwd',
              body: 'root:x:0:0::/:/bin/sh\nrunner:x:1234:4321::/tmp:/bin/sh\n',
            },
            { name: 'etc/group', body: 'runners:x:4321:\n' },
            { name: 'etc/motd', body: 'from the lower layer\n' },
            { name: 'etc/gone', body: '' },
          ],
          [{ name: 'etc/motd', body: 'from the upper layer\n' }, { name: 'etc/.wh.gone' }],
        ],
        config: {
          User: 'runner',
          Env: ['GREETING=hello world'],
          WorkingDir: '/etc',
          Entrypoint: ['/bin/sh', '-c'],
          Cmd: [
            'read line < motd; echo "$GREETING $line $PWD"; while read key ids; do case $key in Uid:|Gid:) echo $key $ids;; esac; done < /proc/self/status; test ! -e gone || echo wrong; exit 42',
          ],
        },
      })
      const app = new Koci().use(mtree())
      await app.unpack({ image, bundle })
      withoutTerminal(bundle)
      const { status, stdout, stderr } = runContainer(t, base, bundle)
      t.equal(stderr, '')
      t.equal(
        stdout,
        'hello world from the upper layer /etc\nUid: 1234 1234 1234 1234\nGid: 4321 4321 4321 4321\n',
      )
      t.equal(status, 42)

      const { changes } = await app.repack({ image: `${images}:after`, bundle })
      t.strictSame(
        [...changes].filter(({ path }) => !/^(dev|proc|sys)(\/|$)/.test(path)),
        [],
        'having run it changed nothing but mount points',
      )
    },
  )

  for (const runtime of ['runc', 'crun'] as const)
    await t.test(
      `what is packed runs again: ${runtime}`,
      { skip: canRun(runtime) },
      async t => {
        const base = temporary(t, 'runc')
        const images = path.join(base, 'images')
        const bundle = path.join(base, 'bundle')
        const image = await makeImage(images, 'test', {
          layers: [[...directories, ...shell()]],
          config: { Entrypoint: ['/bin/tool'], Cmd: ['argument'] },
        })
        const app = new Koci().use(mtree())
        const { rootfs } = await app.unpack({ image, bundle })
        copyFileSync(path.join(rootfs, 'bin/sh'), path.join(rootfs, 'bin/interpreter'))
        const tool = '#!/bin/interpreter\necho "$0 $*"\n'
        writeFileSync(path.join(rootfs, 'bin/tool'), tool, { mode: 0o755 })
        await app.repack({ image: `${images}:packed`, bundle })
        const again = path.join(base, 'again')
        await app.unpack({ image: `${images}:packed`, bundle: again })
        withoutTerminal(again)
        const { status, stdout, stderr } = runContainer(t, base, again, runtime)
        t.match(
          { status, stdout, stderr },
          { status: 0, stdout: '/bin/tool argument\n', stderr: '' },
        )
      },
    )

  const reason = canRun()
  const what =
    'a bundle of stacked layers runs as it is, and is taken down when nothing runs any more'
  await t.test(what, { skip: reason }, t => runInNamespaces(t, import.meta.filename, ['host']))
}

/** In a mount namespace of its own, so that no other test's namespace can hold the mount. */
async function stackedBundle(t: Test): Promise<void> {
  const base = temporary(t, 'runc')
  const images = path.join(base, 'images')
  const bundle = path.join(base, 'bundle')
  const image = await makeImage(images, 'test', {
    layers: [
      [...directories, ...shell()],
      [{ name: 'etc/motd', body: 'from a lower directory\n' }],
    ],
    config: {
      Entrypoint: ['/bin/sh', '-c'],
      Cmd: ['read line < /etc/motd; echo "$line"; echo written > /etc/new; exit 7'],
    },
  })
  const app = new Koci().use(overlay())
  const { rootfs } = await app.unpack({ image, bundle })
  t.teardown(() => {
    if (isMountPoint(rootfs)) unmount(rootfs)
  })
  withoutTerminal(bundle)
  const file = path.join(bundle, 'config.json')
  const config = JSON.parse(readFileSync(file, 'utf8'))
  config.root.readonly = false
  writeFileSync(file, JSON.stringify(config))
  const { status, stdout, stderr } = runContainer(t, base, bundle)
  t.match(
    { status, stdout, stderr },
    { status: 7, stdout: 'from a lower directory\n', stderr: '' },
  )

  const { changes } = await app.repack({ image: `${images}:after`, bundle, refresh: true })
  const found = changes.map(({ kind, path }) => `${kind} ${path}`)
  t.strictSame(
    found.filter(line => !/ (dev|proc|sys)(\/|$)/.test(line)),
    ['M etc', 'A etc/new'],
  )
  t.equal(readFileSync(path.join(rootfs, 'etc/new'), 'utf8'), 'written\n')
  await unmountBundle(app, { bundle })
  t.strictSame(readdirSync(rootfs), [])
}

/** Tests have no terminal; nothing else is changed. */
function withoutTerminal(bundle: string): void {
  const file = path.join(bundle, 'config.json')
  const config = JSON.parse(readFileSync(file, 'utf8'))
  config.process.terminal = false
  writeFileSync(file, JSON.stringify(config))
}

/** Runs it under a name of its own, and deletes it in any case. */
function runContainer(
  t: { teardown(undo: () => unknown): void },
  base: string,
  bundle: string,
  runtime: 'runc' | 'crun' = 'runc',
): Finished {
  const name = `koci-test-${process.pid}-${++count}`
  const root = ['--root', path.join(base, 'runc')]
  t.teardown(() => {
    finish(runtime, [...root, 'delete', '--force', name])
  })
  const finished = finish(runtime, [...root, 'run', '--bundle', bundle, name])
  run('sh', ['-c', '! "$1" --root "$0" list -q | grep -q .', path.join(base, 'runc'), runtime])
  return finished
}
