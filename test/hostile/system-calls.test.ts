// What the kernel is told by the whole program (unpack with its record, its users and its configuration; repack and
// refresh; what a dead run and a failed one left): inside a rootfs never more than one component, and never `..`.
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { program } from '../bin/run-koci.ts'
import { makeImage, type TestImage } from '../support/image.ts'
import { finish, isRoot, missing, temporary, type Finished } from '../support/peers.ts'
import { xattrRecord, type TarMember } from '../support/tar-builder.ts'

const skip = missing('strace')
const rootless = isRoot ? [] : ['--rootless']
const pax = [xattrRecord('user.k', 'v')]

/** Names that begin with XX occur in the rootfs only. */
const layers: TarMember[][] = [
  [
    { name: 'XXd/XXe/XXf/XXg/XXa', body: 'x', pax },
    { name: 'XXup', type: 'symlink', linkname: '../../XXd/XXe' },
    { name: 'XXup/XXf/XXb', body: 'y' },
    { name: 'XXp', type: 'fifo', mode: 0o600 },
    { name: 'XXd/XXe', type: 'directory', mode: 0o755, pax },
    { name: 'XXh', type: 'hardlink', linkname: '/XXup/XXf/XXg/XXa' },
    { name: 'XXabs', type: 'symlink', linkname: '/XXd/XXe/XXf' },
    { name: 'etc', type: 'symlink', linkname: 'XXconf/../XXconf/XXetc' },
    { name: 'XXconf/XXetc/passwd', type: 'symlink', linkname: '../XXpasswd' },
    { name: 'XXconf/XXpasswd', body: 'app:x:1000:1000::/home/app:/bin/sh\n' },
    { name: 'XXconf/XXetc/group', body: 'app:x:1000:app\n' },
  ],
  [
    { name: 'XXup/XXf/XXnew', body: 'new' },
    { name: 'XXabs/XXg/XXa' },
    { name: 'XXd/XXe/XXf/.wh.XXb' },
    { name: 'XXd/XXe/XXf/XXg/.wh..wh..opq' },
    { name: 'XXh/XXunder/XXdeep' },
    { name: 'XXshut', type: 'directory', mode: 0o700 },
    { name: 'XXshut/XXin', body: 'in', mode: 0o400 },
  ],
]
const image: TestImage = { layers, config: { User: 'app' } }

interface Traced extends Finished {
  readonly calls: readonly string[]
}

/** Runs the program under strace. */
function traced(base: string, args: readonly string[]): Traced {
  const log = path.join(base, 'trace')
  const flags = ['-f', '-y', '-s', '4096', '-e', 'trace=%file,chdir,fchdir', '-o', log]
  const outcome = finish('strace', [...flags, process.execPath, program, ...args], {
    env: { NODE_OPTIONS: '', HOME: base, XDG_CACHE_HOME: path.join(base, 'cache') },
    cwd: base,
  })
  const calls = readFileSync(log, 'utf8').split('\n')
  rmSync(log)
  return { ...outcome, calls }
}

/** Calls that say more than one component of something in the rootfs, or `..` there. */
function forbidden(calls: readonly string[], rootfs: string): string[] {
  return calls.filter(call => {
    if (/ (execve|openat2)\(/.test(call)) return false
    // a symlink's text is stored or read, not followed; results of calls are no arguments
    const text = call
      .replace(/ symlinkat\("[^"]*", /, ' symlinkat(')
      .replace(/( readlinkat\([^,]*, "[^"]*"), .*/, '$1')
      .replace(/( readlink\("[^"]*"), .*/, '$1')
    const argument = /(?:(?:\d+|AT_FDCWD)<((?:[^>\\]|\\.)*)>, )?"([^"]*)"/g
    return [...text.matchAll(argument)].some(([whole, directory = '', name = '']) => {
      const isRelative = whole.startsWith('"') ? false : !name.startsWith('/')
      const isInside = directory === rootfs || directory.startsWith(`${rootfs}/`)
      if (isRelative && isInside && !/^[^/]*$/.test(name)) return true
      if (isRelative && isInside && name === '..') return true
      if (name.startsWith(`${rootfs}/`)) return true
      const through = /^\/proc\/self\/fd\/\d+\/(.*)$/.exec(name)?.[1]
      if (through !== undefined && (through.includes('/') || through === '..')) return true
      // whatever the directory: nothing of the rootfs is ever one of several components
      return name.includes('XX') && name.includes('/') && through === undefined
    })
  })
}

interface Test {
  strictSame(found: unknown, wanted: unknown, text: string): unknown
  ok(found: unknown, text: string): unknown
}

function check(t: Test, { calls, status, stderr }: Traced, rootfs: string, wanted = 0): void {
  t.strictSame(status, wanted, stderr)
  const inside = calls.filter(call => call.includes(`<${rootfs}`) && call.includes('XX'))
  t.ok(inside.length > 20, `${inside.length} calls name something in the rootfs`)
  t.strictSame(forbidden(calls, rootfs), [], 'one component at a time')
}

await t.test('the check itself notices', t => {
  const rootfs = '/tmp/x/rootfs'
  for (const [call, isBad] of [
    [`1 openat(5<${rootfs}>, "XXa", O_RDONLY) = 6<${rootfs}/XXa>`, false],
    [`1 openat(5<${rootfs}>, "XXa/XXb", O_RDONLY) = 6`, true],
    [`1 openat(5<${rootfs}/XXa>, "..", O_RDONLY) = 6`, true],
    [`1 openat(AT_FDCWD</tmp>, "${rootfs}/XXa", O_RDONLY) = 6`, true],
    [`1 openat(AT_FDCWD</tmp>, "${rootfs}", O_RDONLY) = 6`, false],
    [`1 lsetxattr("/proc/self/fd/5/XXa", "user.a", "v/w", 3, 0) = 0`, false],
    [`1 lsetxattr("/proc/self/fd/5/XXa/XXb", "user.a", "v", 1, 0) = 0`, true],
    [`1 symlinkat("../../XXd/XXe", 5<${rootfs}>, "XXup") = 0`, false],
    [`1 linkat(5<${rootfs}>, "XXa", 6<${rootfs}/XXd>, "XXd/XXe", 0) = 0`, true],
    [`1 lstat("${rootfs}/etc/passwd", {}) = 0`, true],
    ['1 unlinkat(5</tmp/other>, "XXa/b", 0) = 0', true],
  ] as const)
    t.equal(forbidden([call], rootfs).length, isBad ? 1 : 0, call)
  t.end()
})

await t.test(
  'unpack, repack, refresh, and what dead and failed runs left',
  { skip },
  async t => {
    const base = temporary(t, 'strace')
    const images = path.join(base, 'images')
    await makeImage(images, 'test', image)
    const bundle = path.join(base, 'bundle')
    const rootfs = path.join(bundle, 'rootfs')

    check(t, traced(base, ['unpack', ...rootless, '--image', `${images}:test`, bundle]), rootfs)
    const config = JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8'))
    t.equal(config.process.user.uid, 1000, 'the user was looked up through links')

    for (const name of ['XXd/XXe/XXf/XXg/XXa', 'XXd/XXe/XXf/XXfresh', 'XXconf/XXetc/group'])
      writeFileSync(path.join(rootfs, name), '# changed\n')
    rmSync(path.join(rootfs, 'XXh'), { recursive: true })
    mkdirSync(path.join(rootfs, 'XXmade/XXdeep'), { recursive: true })
    symlinkSync('../../../XXd/XXe', path.join(rootfs, 'XXmade/XXdeep/XXlink'))
    const repack = ['repack', '--refresh-bundle', '--image', `${images}:next`, bundle]
    check(t, traced(base, repack), rootfs)

    // as if the unpack had been killed before its end
    const state = {
      version: 1,
      state: 'unpacking',
      created: readdirSync(bundle).filter(name => name !== 'koci.json'),
    }
    writeFileSync(path.join(bundle, 'koci.json'), JSON.stringify(state))
    const again = traced(base, ['unpack', ...rootless, '--image', `${images}:next`, bundle])
    check(t, again, rootfs)
    t.ok(
      again.calls.some(call => /unlinkat\(.*"XXlink"/.test(call)),
      'what the dead run left is removed',
    )

    renameSync(bundle, `${bundle}-kept`)
    await makeImage(images, 'bad', {
      ...image,
      layers: [...layers, [{ name: '../XXout' }]],
    })
    const failing = traced(base, ['unpack', ...rootless, '--image', `${images}:bad`, bundle])
    check(t, failing, rootfs, 1)
    t.match(failing.stderr, /XXout/)
    t.ok(
      failing.calls.some(call => /unlinkat\(.*"XXe", AT_REMOVEDIR/.test(call)),
      'what the failed run made is removed',
    )

    const gc = traced(base, ['gc', '--layout', images])
    t.equal(gc.status, 0, gc.stderr)
    t.strictSame(forbidden(gc.calls, rootfs), [], 'gc knows no rootfs')
  },
)
