// The merged view of layer directories, without a mount.
import { spawnSync } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import {
  cstring,
  open,
  close,
  O_DIRECTORY,
  O_RDONLY,
  mknodat,
  S_IFCHR,
} from '../../../lib/fs/libc.ts'
import { setXattr } from '../../../lib/fs/xattr.ts'
import { opaqueXattr, openLowerStack } from '../../../lib/layer/lower-stack.ts'

const dialect = process.geteuid?.() === 0 ? 'overlay-trusted' : 'overlay-user'

/** Makes layer directories: `a/` a directory, `a/!` opaque, `-a` a whiteout, `a>b` a symlink, `a=b` a file. */
function makeLayers(base: string, layers: readonly (readonly string[])[]): string[] {
  return layers.map((names, index) => {
    const root = path.join(base, `layer-${index}`)
    mkdirSync(root)
    for (const name of names) makeName(root, name)
    return root
  })
}

function makeName(root: string, name: string): void {
  const whiteout = /^(.*\/)?-(.*)$/.exec(name)
  const [, link, target] = /^([^>]*)>(.*)$/.exec(name) ?? []
  const [, file, content] = /^([^=]*)=(.*)$/.exec(name) ?? []
  if (name.endsWith('/')) mkdirSync(path.join(root, name), { recursive: true })
  else if (name.endsWith('/!')) {
    const directory = open(path.join(root, name.slice(0, -2)), O_RDONLY | O_DIRECTORY)
    setXattr(directory, opaqueXattr(dialect) ?? Buffer.alloc(0), Buffer.from('y'))
    close(directory)
  } else if (whiteout) {
    const directory = open(path.join(root, whiteout[1] ?? ''), O_RDONLY | O_DIRECTORY)
    mknodat(directory, cstring(whiteout[2] ?? ''), S_IFCHR, 0, 0)
    close(directory)
  } else if (link !== undefined) symlinkSync(target ?? '', path.join(root, link))
  else writeFileSync(path.join(root, file ?? ''), content ?? '')
}

/** Path, and the layer that shows through; for directories all of them. */
function describe(
  dirs: readonly string[],
  kind = dialect as typeof dialect | 'plain',
): string[] {
  const lines: string[] = []
  using stack = openLowerStack(dirs, kind)
  const rest: Buffer[] = [Buffer.alloc(0)]
  for (let at = rest.pop(); at; at = rest.pop()) {
    const directory = stack.lookup(at)?.directory
    for (const name of directory?.names() ?? []) {
      const found = at.length === 0 ? name : Buffer.concat([at, Buffer.from('/'), name])
      const entry = stack.lookup(found)
      const layers = entry?.directory?.layers ?? [entry?.layer]
      lines.push(`${found.toString()} ${layers.join(',')}`)
      if (entry?.directory) rest.push(found)
    }
  }
  return lines.sort()
}

const tables: [what: string, layers: string[][], view: string[]][] = [
  ['nothing', [], []],
  ['one layer', [['a/', 'a/x=1', 'b>a']], ['a 0', 'a/x 0', 'b 0']],
  [
    'directories merge',
    [
      ['a/', 'a/x=1'],
      ['a/', 'a/y=2'],
    ],
    ['a 1,0', 'a/x 0', 'a/y 1'],
  ],
  ['the topmost file counts', [['x=1'], ['x=2'], ['y=3']], ['x 1', 'y 2']],
  ['a whiteout', [['x=1', 'y=1'], ['-x']], ['y 0']],
  [
    'a whiteout, and the name again',
    [['a/', 'a/x=1'], ['-a'], ['a/', 'a/y=1']],
    ['a 2', 'a/y 2'],
  ],
  ['a whiteout of nothing', [[], ['-x']], []],
  [
    'an opaque directory',
    [['a/', 'a/x=1'], ['a/', 'a/!', 'a/y=2'], ['a/']],
    ['a 2,1', 'a/y 1'],
  ],
  ['a file between directories', [['a/', 'a/x=1'], ['a=2'], ['a/', 'a/y=3']], ['a 2', 'a/y 2']],
  [
    'a directory over a symlink',
    [
      ['b/', 'a>b'],
      ['a/', 'a/x=1'],
    ],
    ['a 1', 'a/x 1', 'b 0'],
  ],
  ['a symlink over a directory', [['a/', 'a/x=1'], ['a>b']], ['a 1']],
]
for (const [what, layers, view] of tables)
  await t.test(`${what} looks as overlayfs has it`, async t => {
    const base = t.testdir()
    const dirs = makeLayers(base, layers)
    t.same(describe(dirs), view)
    if (process.geteuid?.() !== 0 || dirs.length === 0) return
    const empty = path.join(base, 'empty')
    for (const name of ['empty', 'merged']) mkdirSync(path.join(base, name))
    const lowers = [...dirs.toReversed(), empty].join(':')
    // in a mount namespace of its own: it ends with the command
    const script =
      'mount -t overlay -o "lowerdir=$0,index=off,metacopy=off" o "$1" && cd "$1" && find . -mindepth 1 -printf "%P\\n"'
    const { stdout, status, stderr } = spawnSync(
      'unshare',
      ['-m', 'sh', '-c', script, lowers, path.join(base, 'merged')],
      { encoding: 'utf8', timeout: 20_000 },
    )
    if (status !== 0) {
      t.comment(`needs unshare -m and overlay: ${stderr.trim()}`)
      return
    }
    const names = stdout.split('\n').filter(Boolean)
    t.same(new Set(names), new Set(view.map(line => line.split(' ')[0])))
  })

await t.test('symlinks are not followed, and nothing is found beneath files', async t => {
  const dirs = makeLayers(t.testdir(), [['b/', 'b/x=1', 'a>b', 'c=1']])
  using stack = openLowerStack(dirs, dialect)
  for (const name of ['a/x', 'c/x', 'd', 'd/x', 'b/x/y'])
    t.equal(stack.lookup(Buffer.from(name)), undefined, name)
  t.equal(stack.lookup(Buffer.from('b/x'))?.stat.size, 1)
  t.equal(stack.lookup(Buffer.alloc(0)), stack.root)
})

await t.test('without a dialect devices are devices', async t => {
  const dirs = makeLayers(t.testdir(), [['x=1'], ['-x']])
  t.same(describe(dirs, 'plain'), ['x 1'])
})
