import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import * as libc from '../../../lib/fs/libc.ts'
import { emptyDirectory, readEntries, removeTree } from '../../../lib/fs/walk.ts'

const { cstring } = libc
const isRoot = process.getuid?.() === 0

function openTest(t: TestLike, content: object): { dir: string; fd: number } {
  const dir = t.testdir(content as Record<string, string>)
  const fd = libc.open(dir, libc.O_RDONLY | libc.O_DIRECTORY)
  t.teardown(() => {
    libc.close(fd)
  })
  return { dir, fd }
}
type TestLike = Pick<typeof t, 'testdir' | 'teardown'>

await t.test('entries come in the order of their bytes', async t => {
  const { dir, fd } = openTest(t, {})
  for (const name of ['b', 'a-b', 'a', 'é', 'Z', '.wh']) writeFileSync(join(dir, name), '')
  t.strictSame(
    readEntries(fd).map(entry => entry.name.toString()),
    ['.wh', 'Z', 'a', 'a-b', 'b', 'é'],
  )
})

await t.test('removes only what one plain component names', async t => {
  const { dir, fd } = openTest(t, { inside: { tree: { file: '' } }, canary: { file: '' } })
  const inside = libc.open(join(dir, 'inside'), libc.O_RDONLY | libc.O_DIRECTORY)
  t.teardown(() => {
    libc.close(inside)
  })
  for (const name of ['../canary', join(dir, 'canary'), 'tree/file', 'tree/', '.', '..', ''])
    t.throws(() => removeTree(inside, cstring(name)), { code: 'EINVAL' }, JSON.stringify(name))
  t.strictSame(readdirSync(dir), ['canary', 'inside'])
  t.ok(existsSync(join(dir, 'canary/file')))
  t.ok(existsSync(join(dir, 'inside/tree/file')))
  removeTree(fd, cstring('...'))
})

await t.test('removes trees, files and links, and nothing through links', async t => {
  const { dir, fd } = openTest(t, {
    canary: { file: 'safe' },
    tree: { a: { b: { c: 'x' } }, d: 'y', empty: {} },
    file: 'x',
  })
  symlinkSync('../canary', join(dir, 'tree', 'out'))
  symlinkSync('canary', join(dir, 'link'))
  for (const name of ['tree', 'file', 'link', 'missing']) removeTree(fd, cstring(name))
  t.strictSame(readdirSync(dir), ['canary'])
  t.equal(readFileSync(join(dir, 'canary', 'file'), 'utf8'), 'safe')
})

await t.test('empties a directory and leaves it', async t => {
  const { dir, fd } = openTest(t, { a: { b: {} }, c: '' })
  emptyDirectory(fd)
  t.strictSame(readdirSync(dir), [])
})

await t.test('a tree deeper than any path or descriptor table is removed', async t => {
  const { dir, fd } = openTest(t, {})
  const depth = 5000
  const name = cstring('directory')
  let at = fd
  for (let i = 0; i < depth; i += 1) {
    libc.mkdirat(at, name, 0o700)
    const next = libc.openat(at, name, libc.O_RDONLY | libc.O_DIRECTORY)
    if (i % 1000 === 0) libc.close(libc.openat(next, cstring('.0'), libc.O_CREAT, 0o600))
    if (at !== fd) libc.close(at)
    at = next
  }
  libc.close(at)
  const open = readdirSync('/proc/self/fd').length
  removeTree(fd, name)
  t.strictSame(readdirSync(dir), [])
  t.equal(readdirSync('/proc/self/fd').length, open)
})

await t.test('a tree that somebody else removes, too, is gone without an error', async t => {
  const { dir, fd } = openTest(t, {})
  const tree = join(dir, 'tree')
  for (let round = 0; round < 3; round += 1) {
    for (let i = 0; i < 60; i += 1) mkdirSync(join(tree, `${i}/a/b`), { recursive: true })
    const ended = once(spawn('rm', ['-rf', tree], { stdio: 'ignore' }), 'exit')
    // without a turn of the event loop: once the other has begun, and long before it is done
    const deadline = performance.now() + 30_000
    while (existsSync(join(tree, '0')) && existsSync(join(tree, '59')))
      if (performance.now() > deadline) break
    removeTree(fd, cstring('tree'))
    t.strictSame(readdirSync(dir), [])
    await ended
  }
})

await t.test('directories of mode 0 are no obstacle', async t => {
  const { dir, fd } = openTest(t, { a: { b: { c: 'x' } } })
  chmodSync(join(dir, 'a', 'b'), 0)
  chmodSync(join(dir, 'a'), 0o500)
  removeTree(fd, cstring('a'))
  t.notOk(existsSync(join(dir, 'a')))
})

await t.test(
  'the directory that holds the name keeps its mode',
  {
    skip: isRoot && 'needs an ordinary user: root may write anywhere',
  },
  async t => {
    const { dir, fd } = openTest(t, { a: { b: 'x' } })
    const a = libc.openat(fd, cstring('a'), libc.O_RDONLY)
    chmodSync(join(dir, 'a'), 0o500)
    t.throws(() => removeTree(a, cstring('b')), { code: 'EACCES' })
    t.equal(libc.statx(a).mode & 0o777, 0o500)
    chmodSync(join(dir, 'a'), 0o700)
    libc.close(a)
  },
)

const canUnshare = spawnSync('unshare', ['-Urm', 'true']).status === 0
await t.test(
  'what is mounted in the tree is left alone, and so is the rest of that directory',
  {
    skip: !canUnshare && 'needs unshare: user and mount namespaces',
  },
  async t => {
    const { dir } = openTest(t, { tree: { m: { hidden: 'h' } }, source: { kept: 'k' } })
    const script = `
    import { cstring, open } from '${new URL('../../../lib/fs/libc.ts', import.meta.url).href}'
    import { removeTree } from '${new URL('../../../lib/fs/walk.ts', import.meta.url).href}'
    try { removeTree(open('.', 0), cstring('tree')) } catch (error) { console.log(error.code) }`
    mkdirSync(join(dir, 'x'))
    const run = spawnSync(
      'unshare',
      [
        '-Urm',
        'sh',
        '-c',
        'mount --bind source tree/m && exec "$0" --input-type=module -e "$1"',
        process.execPath,
        script,
      ],
      { cwd: dir, encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: '' } },
    )
    t.equal(run.stdout.trim(), 'EBUSY', run.stderr)
    t.strictSame(readdirSync(join(dir, 'source')), ['kept'])
    t.strictSame(readdirSync(join(dir, 'tree', 'm')), ['hidden'])
  },
)
