import * as fc from 'fast-check'
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import * as libc from '../../../lib/fs/libc.ts'
import { openRooted, type Rooted } from '../../../lib/fs/rooted.ts'
import { removeTree } from '../../../lib/fs/walk.ts'
import { makeMemoryDir } from '../../support/memory-dir.ts'
import { describeTree } from '../../support/tree.ts'
import '../../support/seed.ts'

const { cstring } = libc
const maxLinks = 255

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}

await t.test('symlinks are resolved inside the tree, whatever they say', async t => {
  const dir = t.testdir({
    canary: { secret: 'x' },
    root: { etc: { passwd: 'root' }, usr: { lib: {} } },
  })
  const root = join(dir, 'root')
  symlinkSync('/etc', join(root, 'abs'))
  symlinkSync('../../../etc', join(root, 'usr', 'up'))
  symlinkSync('/abs/../usr/./lib//', join(root, 'chain'))
  symlinkSync('../canary', join(root, 'escape'))
  symlinkSync('loop', join(root, 'loop'))
  symlinkSync('nowhere', join(root, 'dangling'))
  using rooted = openRooted(root)
  const inode = (path: string) => lstatSync(join(root, path), { bigint: true }).ino
  const cases: Array<[path: string, same: string] | [path: string, code: { code: string }]> = [
    ['', '.'],
    ['etc', 'etc'],
    ['/etc/', 'etc'],
    ['abs', 'etc'],
    ['usr/up', 'etc'],
    ['chain', 'usr/lib'],
    ['..', '.'],
    ['../../usr/../etc', 'etc'],
    ['chain/..', 'usr'],
    ['escape', { code: 'ENOENT' }],
    ['loop', { code: 'ELOOP' }],
    ['loop/x', { code: 'ELOOP' }],
    ['dangling', { code: 'ENOENT' }],
    ['etc/passwd', { code: 'ENOTDIR' }],
    ['etc/passwd/x', { code: 'ENOTDIR' }],
  ]
  for (const [path, expected] of cases) {
    const find = () => rooted.directory(Buffer.from(path)).stat.ino
    if (typeof expected === 'string') t.equal(find(), inode(expected), path)
    else t.throws(find, expected, path)
  }
})

await t.test('255 links are followed, 256 are too many', async t => {
  const root = t.testdir({ end: {} })
  let target = 'end'
  for (let i = 1; i <= maxLinks + 1; i += 1) {
    symlinkSync(target, join(root, `l${i}`))
    target = `l${i}`
  }
  using rooted = openRooted(root)
  t.doesNotThrow(() => rooted.directory(Buffer.from(`l${maxLinks}`)))
  t.throws(() => rooted.directory(Buffer.from(`l${maxLinks + 1}`)), { code: 'ELOOP' })
})

await t.test('aliases share one node, and it is the real place', async t => {
  const root = t.testdir({ a: { b: {} } })
  symlinkSync('/a/b', join(root, 'l'))
  using rooted = openRooted(root)
  const node = rooted.directory(Buffer.from('l'))
  t.equal(node, rooted.directory(Buffer.from('a/b')))
  t.equal(node.parent, rooted.directory(Buffer.from('a')))
  t.notOk(rooted.root.children.has('l'))
})

await t.test(
  'a replaced directory is not found under its old descriptor (CVE-2025-47290)',
  async t => {
    const dir = t.testdir({ outside: {}, root: { a: { b: {} } } })
    const root = join(dir, 'root')
    using rooted = openRooted(root)
    const old = rooted.directory(Buffer.from('a/b'))
    removeTree(rooted.fdOf(rooted.root), cstring('a'))
    rooted.forget(rooted.root, 'a')
    t.ok(old.dropped)
    symlinkSync('../outside', join(root, 'a'))
    t.throws(() => rooted.directory(Buffer.from('a/b')), { code: 'ENOENT' })
    t.throws(() => rooted.fdOf(old), { code: 'ESTALE' })
    t.equal(rooted.openDescriptors, 1)
  },
)

await t.test('a replaced symlink is not remembered by the last path', async t => {
  const root = t.testdir({ one: {}, two: {} })
  symlinkSync('one', join(root, 'l'))
  using rooted = openRooted(root)
  const path = Buffer.from('l')
  t.equal(rooted.directory(path), rooted.directory(Buffer.from('one')))
  rooted.directory(path)
  rmSync(join(root, 'l'))
  symlinkSync('two', join(root, 'l'))
  rooted.forget(rooted.root, 'l')
  t.equal(rooted.directory(path), rooted.directory(Buffer.from('two')))
})

await t.test(
  'a directory that was exchanged behind our back is noticed when it is opened again',
  async t => {
    const dir = t.testdir({ root: { a: {} }, other: {} })
    const root = join(dir, 'root')
    using rooted = openRooted(root)
    const node = rooted.directory(Buffer.from('a'))
    for (let i = 0; i < 300; i += 1) {
      mkdirSync(join(root, `d${i}`))
      rooted.directory(Buffer.from(`d${i}`))
    }
    t.equal(node.fd, -1, 'closed meanwhile')
    renameSync(join(root, 'a'), join(dir, 'gone'))
    renameSync(join(dir, 'other'), join(root, 'a'))
    t.throws(() => rooted.fdOf(node), { code: 'ESTALE' })
  },
)

await t.test('descriptors are bounded, and all are closed in the end', async t => {
  const root = mkdtempSync(join(tmpdir(), 'koci-rooted-'))
  const before = openDescriptors()
  const rooted = openRooted(root)
  t.teardown(() => {
    const fd = libc.open(tmpdir(), libc.O_RDONLY)
    removeTree(fd, cstring(root.slice(root.lastIndexOf('/') + 1)))
    libc.close(fd)
  })
  // 1000 deep and 300 wide
  const nodes = [rooted.root]
  for (let i = 0; i < 1000; i += 1) {
    const parent = nodes[i] as typeof rooted.root
    libc.mkdirat(rooted.fdOf(parent), cstring('d'), 0o755)
    nodes.push(rooted.child(parent, cstring('d'), 'd') as typeof rooted.root)
  }
  for (let i = 0; i < 300; i += 1) {
    mkdirSync(join(root, `w${i}`))
    rooted.directory(Buffer.from(`w${i}`))
  }
  t.ok(rooted.openDescriptors <= 65)
  t.ok(nodes.every(node => libc.statx(rooted.fdOf(node)).ino === node.stat.ino))
  t.equal(
    rooted.pinned(nodes[3] as typeof rooted.root, fd => {
      for (const node of nodes.slice(500)) rooted.fdOf(node)
      return libc.statx(fd).ino
    }),
    nodes[3]?.stat.ino,
  )
  t.equal(rooted.directory(Buffer.from(Array(1000).fill('d').join('/'))), nodes[1000])
  rooted.close()
  t.equal(openDescriptors(), before)
})

await t.test(
  'directories that their owner cannot enter',
  {
    skip: process.getuid?.() === 0 && 'needs an ordinary user: root can enter anything',
  },
  async t => {
    const root = makeMemoryDir('koci-rooted-')
    mkdirSync(join(root, 'a', 'b', 'c'), { recursive: true })
    chmodSync(join(root, 'a', 'b'), 0)
    chmodSync(join(root, 'a'), 0o400)
    t.teardown(() => {
      chmodSync(join(root, 'a'), 0o700)
      chmodSync(join(root, 'a', 'b'), 0o700)
      rmSync(root, { recursive: true })
    })
    const path = Buffer.from('a/b/c')
    {
      using rooted = openRooted(root)
      t.throws(() => rooted.directory(path), { code: 'EACCES' })
    }
    using rooted = openRooted(root, { widen: true })
    rooted.directory(path)
    rooted.restoreModes()
    t.equal(lstatSync(join(root, 'a')).mode & 0o7777, 0o400)
    chmodSync(join(root, 'a'), 0o700)
    t.equal(lstatSync(join(root, 'a', 'b')).mode & 0o7777, 0)
  },
)

// The oracle: resolves by path strings, asking the file system about every component every time, remembering nothing.
class NaiveTree {
  readonly root: string

  constructor(root: string) {
    this.root = root
  }

  directory(path: string): string {
    let at = ''
    const rest = path.split('/')
    for (let links = 0; rest.length > 0;) {
      const part = rest.shift() as string
      if (part === '' || part === '.') continue
      if (part === '..') {
        at = at.slice(0, Math.max(0, at.lastIndexOf('/')))
        continue
      }
      const stat = lstatSync(this.root + at + '/' + part)
      if (stat.isSymbolicLink()) {
        links += 1
        if (links > maxLinks) throw Object.assign(new Error('loop'), { code: 'ELOOP' })
        const target = readlinkSync(this.root + at + '/' + part)
        if (target.startsWith('/')) at = ''
        rest.unshift(...target.split('/'))
      } else if (stat.isDirectory()) at += '/' + part
      else throw Object.assign(new Error('not a directory'), { code: 'ENOTDIR' })
    }
    return this.root + at
  }

  apply(op: Operation): void {
    const dir = this.directory(op.dir)
    const path = `${dir}/${op.name}`
    if (op.replace || op.kind === 'remove') rmSync(path, { recursive: true, force: true })
    if (op.kind === 'mkdir') mkdirSync(path, { mode: 0o755 })
    if (op.kind === 'file') writeFileSync(path, '', { flag: 'wx', mode: 0o644 })
    if (op.kind === 'symlink') symlinkSync(op.target, path)
  }
}

interface Operation {
  readonly kind: 'mkdir' | 'file' | 'symlink' | 'remove'
  readonly dir: string
  readonly name: string
  readonly target: string
  readonly replace: boolean
}

function applyRooted(rooted: Rooted, op: Operation): void {
  const node = rooted.directory(Buffer.from(op.dir))
  const fd = rooted.fdOf(node)
  const name = cstring(op.name)
  if (op.replace || op.kind === 'remove') {
    removeTree(fd, name)
    rooted.forget(node, op.name)
  }
  if (op.kind === 'mkdir') libc.mkdirat(fd, name, 0o755)
  if (op.kind === 'file')
    libc.close(
      libc.openat(
        fd,
        name,
        libc.O_CREAT | libc.O_EXCL | libc.O_WRONLY | libc.O_NOFOLLOW,
        0o644,
      ),
    )
  if (op.kind === 'symlink') libc.symlinkat(cstring(op.target), fd, name)
}

await t.test(
  'any sequence of operations gives the tree that a resolver without memory gives',
  async t => {
    const base = makeMemoryDir('koci-rooted-')
    t.teardown(() => {
      rmSync(base, { recursive: true })
    })
    const component = fc.constantFrom('a', 'b')
    const path = fc.array(component, { maxLength: 3 }).map(parts => parts.join('/'))
    const target = fc
      .array(fc.constantFrom('a', 'b', 'a', 'b', '..', '.', 'canary'), {
        minLength: 1,
        maxLength: 3,
      })
      .chain(parts =>
        fc.constantFrom(parts.join('/'), `/${parts.join('/')}`, `../../../${parts.join('/')}`),
      )
    const operation: fc.Arbitrary<Operation> = fc.record({
      kind: fc.constantFrom('mkdir', 'mkdir', 'mkdir', 'file', 'symlink', 'symlink', 'remove'),
      dir: path,
      name: component,
      target,
      replace: fc.boolean(),
    })
    const code = (run: () => void) => {
      try {
        run()
        return 'done'
      } catch (error) {
        return (error as NodeJS.ErrnoException).code
      }
    }
    let run = 0
    let deep = 0
    fc.assert(
      fc.property(fc.array(operation, { minLength: 5, maxLength: 60 }), operations => {
        const dir = join(base, String(run++))
        for (const name of ['ours', 'naive', 'canary'])
          mkdirSync(join(dir, name), { recursive: true })
        writeFileSync(join(dir, 'canary', 'a'), 'untouched')
        const canary = describeTree(join(dir, 'canary'))
        using rooted = openRooted(join(dir, 'ours'))
        const naive = new NaiveTree(join(dir, 'naive'))
        for (const dir of ['', 'a', 'a/b', 'b'])
          for (const name of ['a', 'b'])
            operations.unshift({ kind: 'mkdir', dir, name, target: '', replace: false })
        operations.splice(0, 8, ...operations.slice(0, 8).reverse())
        for (const op of operations) {
          const expected = code(() => naive.apply(op))
          const found = code(() => applyRooted(rooted, op))
          if (found !== expected)
            t.fail(`${JSON.stringify(op)}: ${found}, expected ${expected}`)
          if (found === 'done' && op.dir.includes('/')) deep += 1
          if (found !== expected) return false
        }
        const same = (name: string) =>
          describeTree(join(dir, name), { times: false }).join('\n')
        const equal =
          same('ours') === same('naive') &&
          describeTree(join(dir, 'canary')).join('\n') === canary.join('\n')
        rmSync(dir, { recursive: true })
        return equal
      }),
      { numRuns: 300, interruptAfterTimeLimit: 80_000, markInterruptAsFailure: true },
    )
    t.ok(deep > 100, `${deep} operations went through several components`)
  },
)
