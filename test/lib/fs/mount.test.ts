// Real mounts, in mount namespaces of the test's own.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chdir } from 'node:process'
import * as fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import {
  mountOverlay,
  openOverlay,
  overlayObstacle,
  unmount,
  type OverlayMount,
} from '../../../lib/fs/mount.ts'
import {
  countLowers,
  findMounts,
  holdersOf,
  isMountPoint,
  mountAt,
  mountsWithin,
  superOption,
} from '../../../lib/fs/mount-table.ts'
import { isKernelBefore } from '../../support/kernel.ts'
import { namespace, runInNamespaces } from '../../support/namespaces.ts'

const userxattr = namespace === 'user'
const isOld = isKernelBefore(6, 7)
const lacksNew = isOld && 'needs Linux 6.7: lowerdir+'
const apis = isOld ? (['classic'] as const) : (['new', 'classic'] as const)
type Refusal = { code: string; cause?: { code: string }; [field: string]: unknown }
type Testdir = Pick<typeof t, 'testdir'>

/** Lower directories (topmost first), upper, work and target; each lower has a file named by its number. */
function setUp(t: Testdir, count: number, name: Buffer | string = 'stack') {
  const base = t.testdir()
  const at = (each: string): Buffer =>
    Buffer.concat([Buffer.from(`${base}/`), Buffer.from(name), Buffer.from(`/${each}`)])
  const lowers = Array.from({ length: count }, (_, index) => at(`${index}`))
  const [upper, work, target] = [at('upper'), at('work'), path.join(base, 'target')]
  for (const dir of [...lowers, upper, work, target]) fs.mkdirSync(dir, { recursive: true })
  for (const [index, dir] of lowers.entries())
    fs.writeFileSync(Buffer.concat([dir, Buffer.from(`/file-${index}`)]), '')
  return { base, lowers, upper, work, target, userxattr }
}

async function inNamespace(): Promise<void> {
  await t.test('the new calls', { skip: lacksNew }, async t => t.same(apis, ['new', 'classic']))

  for (const api of apis) {
    for (const count of [1, 2, 30])
      await t.test(`${api} api, ${count} lower directories`, async t => {
        const stack = setUp(t, count)
        const mount = mountOverlay({ ...stack, api })
        t.equal(countLowers(mount), count)
        t.equal(fs.readdirSync(stack.target).length, count)
        fs.writeFileSync(path.join(stack.target, 'new'), 'new')
        t.equal(fs.readFileSync(path.join(String(stack.upper), 'new'), 'utf8'), 'new')
        t.ok(isMountPoint(stack.target))
        unmount(stack.target)
        t.notOk(isMountPoint(stack.target))
        t.strictSame(fs.readdirSync(stack.target), [])
      })

    const odd: [string, Buffer | string][] = [
      ['colon', 'a:b'],
      ['two colons', 'a::b:'],
      ['comma', 'a,b'],
      ['backslash', 'a\\b\\\\c\\'],
      ['space, newline and tab', 'a b\nc\td'],
      ['equals and hash', 'a=b#c'],
      ['octal look-alike', 'a\\054b\\072'],
      ['not UTF-8', Buffer.from([0x61, 0xff, 0xfe, 0x0a])],
      ['250 bytes', 'x'.repeat(250)],
      ['250 separators', ',:'.repeat(125)],
    ]
    for (const [what, name] of odd)
      await t.test(`${api} api, a path with ${what}`, async t => {
        const stack = setUp(t, 2, name)
        const mount = mountOverlay({ ...stack, api })
        t.strictSame(fs.readdirSync(stack.target).sort(), ['file-0', 'file-1'])
        fs.writeFileSync(path.join(stack.target, 'new'), '')
        t.strictSame(fs.readdirSync(stack.upper), ['new'])
        t.equal(countLowers(mount), 2)
        unmount(stack.target)
      })

    await t.test(`${api} api, an overlay that hangs nowhere`, async t => {
      const stack = setUp(t, 2)
      const { target, upper } = stack
      const fd = openOverlay({ ...stack, subject: 'it', spare: () => target, api })
      try {
        t.strictSame(mountsWithin(stack.base), [])
        const at = `/proc/self/fd/${fd}/.`
        t.strictSame(fs.readdirSync(at).sort(), ['file-0', 'file-1'])
        fs.writeFileSync(path.join(at, 'new'), 'new')
        t.strictSame(fs.readdirSync(upper), ['new'])
      } finally {
        fs.closeSync(fd)
      }
      t.throws(
        () =>
          openOverlay({
            ...stack,
            lowers: ['/nowhere'],
            subject: 'it',
            spare: () => target,
            api,
          }),
        {
          code: 'ERR_KOCI_MOUNT_FAILED',
        },
      )
      t.strictSame(mountsWithin(stack.base), [])
    })

    await t.test(`${api} api, the first lower directory is the topmost`, async t => {
      const stack = setUp(t, 3)
      for (const [index, dir] of stack.lowers.entries())
        fs.writeFileSync(path.join(String(dir), 'same'), `${index}`)
      mountOverlay({ ...stack, api })
      t.equal(fs.readFileSync(path.join(stack.target, 'same'), 'utf8'), '0')
      unmount(stack.target)
    })

    await t.test(`${api} api, without an upper directory it can't be written to`, async t => {
      const { upper, work, ...stack } = setUp(t, 2)
      mountOverlay({ ...stack, api })
      t.throws(() => fs.writeFileSync(path.join(stack.target, 'new'), ''), { code: 'EROFS' })
      unmount(stack.target)
      t.strictSame([fs.readdirSync(upper), fs.readdirSync(work)], [[], []])
    })
  }

  for (const count of [100, 500])
    await t.test(`${count} lower directories`, { skip: lacksNew }, async t => {
      const stack = setUp(t, count)
      const mount = mountOverlay(stack)
      t.equal(countLowers(mount), count)
      t.equal(fs.readdirSync(stack.target).length, count)
      unmount(stack.target)
    })

  await t.test('501 lower directories are refused before anything is done', async t => {
    const stack = setUp(t, 501)
    t.throws(() => mountOverlay(stack), { code: 'ERR_KOCI_LIMIT_EXCEEDED' })
    t.notOk(isMountPoint(stack.target))
    t.strictSame(fs.readdirSync(stack.work), [])
  })

  await t.test('options that mount(2) would cut are refused', async t => {
    const stack = setUp(t, 200)
    t.throws(() => mountOverlay({ ...stack, api: 'classic' }), {
      code: 'ERR_KOCI_MOUNT_FAILED',
      message: /its options have \d+ bytes, this kernel takes 4000/,
    })
    t.notOk(isMountPoint(stack.target))
  })

  const wrong: [string, (stack: ReturnType<typeof setUp>) => Partial<OverlayMount>, Refusal][] =
    [
      [
        'a lower that is missing',
        () => ({ lowers: ['/nowhere'] }),
        { code: 'ERR_KOCI_MOUNT_FAILED', cause: { code: 'ENOENT' } },
      ],
      [
        'a lower that is a file',
        ({ lowers }) => ({ lowers: [String(lowers[0]) + '/file-0'] }),
        { code: 'ERR_KOCI_MOUNT_FAILED' },
      ],
      ['no work directory', () => ({ work: undefined }), { code: 'ERR_KOCI_MOUNT_FAILED' }],
      [
        'upper and work the same',
        ({ upper }) => ({ work: upper }),
        { code: 'ERR_KOCI_MOUNT_FAILED' },
      ],
      ['no lower directory', () => ({ lowers: [] }), { code: 'ERR_KOCI_MOUNT_FAILED' }],
      [
        'a target that is missing',
        ({ base }) => ({ target: path.join(base, 'none') }),
        { code: 'ERR_KOCI_IO', cause: { code: 'ENOENT' } },
      ],
      [
        'a target that is a symlink',
        ({ base }) => ({ target: path.join(base, 'link') }),
        { code: 'ERR_KOCI_IO', cause: { code: 'ENOTDIR' } },
      ],
    ]
  for (const api of apis)
    for (const [what, change, error] of wrong)
      await t.test(`${api} api, refused: ${what}`, async t => {
        const stack = setUp(t, 1)
        fs.symlinkSync('target', path.join(stack.base, 'link'))
        const before = fs.readdirSync('/proc/self/fd').length
        t.throws(() => mountOverlay({ ...stack, api, ...change(stack) }), error)
        t.notOk(isMountPoint(stack.target))
        t.equal(fs.readdirSync('/proc/self/fd').length, before, 'no descriptor is left')
      })

  await t.test('volatile mounts say so', async t => {
    const stack = setUp(t, 1)
    const mount = mountOverlay({ ...stack, volatile: true })
    t.match(mount.superOptions.join(), /\bvolatile\b/)
    unmount(stack.target)
  })

  await t.test(
    'a rename across layers is refused: nothing of it would be in the upper directory',
    async t => {
      const stack = setUp(t, 2)
      fs.mkdirSync(String(stack.lowers[1]) + '/dir')
      mountOverlay(stack)
      const from = path.join(stack.target, 'dir')
      const { status } = spawnSync('python3', [
        '-c',
        'import os,sys; os.rename(*sys.argv[1:])',
        from,
        `${from}2`,
      ])
      t.equal(status, 1)
      unmount(stack.target)
    },
  )

  await t.test('a mount that is in use is kept, and the user named', async t => {
    const stack = setUp(t, 1)
    mountOverlay(stack)
    const child = spawn('sleep', ['60'], { cwd: stack.target })
    try {
      await once(child, 'spawn')
      t.throws(() => unmount(stack.target), {
        code: 'ERR_KOCI_MOUNT_BUSY',
        message: new RegExp(`in use by .*${child.pid} \\((sleep|node|MainThread)\\)`),
      })
      t.ok(isMountPoint(stack.target))
    } finally {
      child.kill()
      await once(child, 'exit')
    }
    unmount(stack.target)
    t.throws(() => unmount(stack.target), { code: 'ERR_KOCI_IO', cause: { code: 'EINVAL' } })
  })

  await t.test('mounts on top of each other', async t => {
    const stack = setUp(t, 1)
    const first = mountOverlay(stack)
    const [upper, work] = ['upper2', 'work2'].map(name => path.join(stack.base, name))
    for (const dir of [upper, work]) fs.mkdirSync(dir ?? '')
    const top = mountOverlay({ ...stack, upper, work })
    t.strictSame(
      findMounts(stack.target).map(({ id }) => id),
      [first.id, top.id],
    )
    t.equal(mountAt(stack.target)?.id, top.id)
    unmount(stack.target)
    t.equal(mountAt(stack.target)?.id, first.id)
    unmount(stack.target)
    t.strictSame(findMounts(stack.target), [])
  })

  await t.test('whoever else has the file system is found', async t => {
    const stack = setUp(t, 1)
    const mount = mountOverlay(stack)
    t.strictSame(holdersOf(mount), [])
    // a namespace of its own, with a copy of the mount
    const child = spawn('unshare', ['-m', '--propagation', 'private', 'sleep', '60'])
    try {
      await until(() => holdersOf(mount).length > 0)
      t.match(holdersOf(mount), [{ pid: String(child.pid), mountpoint: stack.target }])
      unmount(stack.target)
      t.match(holdersOf(mount), [{ pid: String(child.pid) }], 'also after we let go')
    } finally {
      child.kill()
      await once(child, 'exit')
    }
    t.strictSame(holdersOf(mount), [])
  })

  await t.test('copies that unmounting reaches do not count', async t => {
    const stack = setUp(t, 1)
    const { target } = stack
    const shared = path.join(stack.base, 'shared')
    fs.mkdirSync(shared)
    const run = (...args: string[]) =>
      t.equal(spawnSync(args[0] ?? '', args.slice(1)).status, 0)
    run('mount', '--bind', stack.base, stack.base)
    run('mount', '--make-shared', stack.base)
    const child = spawn('unshare', ['-m', '--propagation', 'slave', 'sleep', '60'])
    try {
      const namespaceOf = (pid: number | string = '') => fs.readlinkSync(`/proc/${pid}/ns/mnt`)
      await until(() => namespaceOf(child.pid) !== namespaceOf('self'))
      await until(() => fs.readFileSync(`/proc/${child.pid}/comm`, 'utf8').trim() === 'sleep')
      const mount = mountOverlay(stack)
      t.ok(fs.readFileSync(`/proc/${child.pid}/mountinfo`, 'utf8').includes(target))
      t.strictSame(holdersOf(mount), [])
      unmount(target)
      t.notOk(fs.readFileSync(`/proc/${child.pid}/mountinfo`, 'utf8').includes(target))
    } finally {
      child.kill()
      await once(child, 'exit')
      run('umount', stack.base)
    }
  })

  await t.test('a bind mount elsewhere counts, too', async t => {
    const stack = setUp(t, 1)
    const other = path.join(stack.base, 'other')
    fs.mkdirSync(other)
    const mount = mountOverlay(stack)
    t.equal(spawnSync('mount', ['--bind', stack.target, other]).status, 0)
    t.match(holdersOf(mount), [{ pid: String(process.pid), mountpoint: other }])
    t.equal(superOption(mount, 'upperdir'), stack.upper.toString('latin1'))
    unmount(other)
    unmount(stack.target)
  })

  await t.test('one whose name is not UTF-8', async t => {
    const base = t.testdir()
    const at = Buffer.concat([Buffer.from(`${base}/`), Buffer.from([0xff])])
    fs.mkdirSync(at)
    const script = 'mount -t tmpfs koci "$(printf \'%s/\\377\' "$1")"'
    t.equal(spawnSync('sh', ['-c', script, 'sh', base]).status, 0)
    const [mount, ...rest] = mountsWithin(base)
    t.strictSame(rest, [])
    t.match(mount, { source: 'koci', mountpoint: at.toString('latin1') })
    unmount(at)
    t.strictSame(mountsWithin(base), [])
    t.throws(() => unmount(at), { code: 'ERR_KOCI_IO', message: /\\xff/ })
  })

  await t.test('relative names', async t => {
    const stack = setUp(t, 1)
    const before = process.cwd()
    chdir(stack.base)
    try {
      mountOverlay({
        lowers: ['stack/0'],
        upper: 'stack/upper',
        work: 'stack/work',
        target: 'target',
        userxattr,
      })
      unmount('target')
    } finally {
      chdir(before)
    }
    t.notOk(isMountPoint(stack.target))
  })
}

async function until(holds: () => boolean): Promise<void> {
  for (const end = Date.now() + 10_000; !holds();) {
    if (Date.now() > end) throw new Error('waited for 10 s in vain')
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

if (namespace) {
  t.equal(overlayObstacle(), undefined)
  await inNamespace()
} else {
  await runInNamespaces(t, import.meta.filename)

  await t.test(
    'whoever lacks the privilege is told',
    { skip: process.geteuid?.() === 0 && 'needs an ordinary user' },
    async t => {
      t.match(overlayObstacle(), /CAP_SYS_ADMIN/)
      t.throws(() => mountOverlay(setUp(t, 1)), {
        code: 'ERR_KOCI_MOUNT_FAILED',
        cause: { code: 'EPERM' },
      })
    },
  )
}
