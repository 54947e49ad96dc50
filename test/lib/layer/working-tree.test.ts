// Directories that are finished and forgotten while a layer is applied: nobody can tell afterwards.
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { treeBounds } from '../../../lib/layer/working-tree.ts'
import { makeSandbox } from '../../support/extract.ts'
import type { TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'

const rootless = process.geteuid?.() !== 0
const mtime = 1_700_000_000
const dir = (name: string, mode = 0o755): TarMember => ({
  name: `${name}/`,
  type: 'directory',
  mode,
  mtime,
})
const file = (name: string): TarMember => ({ name, body: name, mtime })

const tables: [what: string, members: TarMember[]][] = [
  ['each with an entry', ['a', 'b', 'c', 'd'].flatMap(at => [dir(at), file(`${at}/x`)])],
  ['implied', ['a', 'b', 'c', 'd'].map(at => file(`${at}/1/2/x`))],
  [
    'entries after what is in them',
    ['a', 'b', 'c'].flatMap(at => [file(`${at}/1/x`), dir(at, 0o700)]).toReversed(),
  ],
  ['met again', ['a', 'b', 'c', 'a', 'b', 'c'].flatMap((at, n) => [file(`${at}/${n}/x`)])],
  [
    'met again with an entry',
    [...['a', 'b', 'c'].map(at => file(`${at}/x/y`)), dir('a', 0o711), dir('b/x', 0o500)],
  ],
  [
    'barred',
    [
      dir('a', 0),
      file('a/x'),
      dir('b', 0o555),
      file('b/x'),
      dir('c', 0o111),
      file('c/x'),
      file('a/y'),
      file('b/y'),
    ],
  ],
  [
    'replaced',
    [
      dir('a'),
      file('a/b/x'),
      file('c/d/x'),
      { name: 'a', type: 'symlink', linkname: 'c', mtime },
      file('a/d/y'),
      file('e/f/x'),
    ],
  ],
]
for (const [what, members] of tables)
  await t.test(`directories ${what} come out the same, however few are remembered`, async t => {
    const base = t.testdir()
    const former = treeBounds.directories
    t.teardown(() => (treeBounds.directories = former))
    const trees = [former, 1, 2, 3].map(bound => {
      treeBounds.directories = bound
      const sandbox = makeSandbox(makeDirectory(base, bound))
      sandbox.apply([members], { rootless })
      return describeTree(sandbox.rootfs, { root: false, open: true })
    })
    for (const tree of trees.slice(1)) t.same(tree, trees[0])
  })

function makeDirectory(base: string, bound: number): string {
  const directory = path.join(base, String(bound))
  mkdirSync(directory, { recursive: true })
  return directory
}
