import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import * as fc from 'fast-check'
import t from 'tap'
import { applyChanges } from '../../../lib/bundle/apply-changes.ts'
import { dropMasked } from '../../../lib/bundle/mask.ts'
import { compareTree, type CompareOptions } from '../../../lib/bundle/compare-tree.ts'
import { takeAsListed, verifyListed } from '../../../lib/bundle/verify-listed.ts'
import { change, type Change } from '../../../lib/change.ts'
import { parseMtree } from '../../../lib/bundle/mtree-parser.ts'
import { indexOf, textOf } from '../../support/record.ts'
import { recordTree } from '../../../lib/bundle/record-tree.ts'
import type { TreeRecord } from '../../../lib/bundle/record.ts'
import { decodeStatIndex } from '../../../lib/bundle/stat-index.ts'
import {
  close,
  cstring,
  mkdirat,
  O_CREAT,
  O_DIRECTORY,
  O_RDONLY,
  open,
  openat,
  utimensat,
} from '../../../lib/fs/libc.ts'
import { removeTree } from '../../../lib/fs/walk.ts'
import { setXattr, xattrTarget } from '../../../lib/fs/xattr.ts'
import type { Digest } from '../../../lib/oci/digest.ts'
import { makeMemoryDir } from '../../support/memory-dir.ts'
import { asLines, expectedChanges, inTree, snapshot } from '../../support/rootfs.ts'
import '../../support/seed.ts'

const isRoot = process.getuid?.() === 0
const hour = 3600

async function record(root: string): Promise<TreeRecord> {
  return inTree(root, tree => recordTree(tree))
}

async function compare(
  root: string,
  recorded: TreeRecord,
  options?: CompareOptions,
): Promise<string[]> {
  return asLines(await inTree(root, tree => compareTree(tree, recorded, options)))
}

/** What changed itself, without the other names of files that got one. */
async function compareOwn(root: string, recorded: TreeRecord): Promise<string[]> {
  const changes = await inTree(root, tree => compareTree(tree, recorded))
  return asLines(changes.filter(({ aliasOf }) => aliasOf === undefined))
}

function throughText(recorded: TreeRecord): TreeRecord {
  return parseMtree(textOf(recorded), 'test')
}

function throughIndex(recorded: TreeRecord): TreeRecord {
  const owner = {
    manifest: `sha256:${'a'.repeat(64)}` as Digest,
    textSha256: Buffer.alloc(32, 1),
  }
  const decoded = decodeStatIndex(indexOf(recorded, owner), owner)
  if (!decoded) throw new Error('the index was refused')
  return decoded
}

/** Old times, so that only what a test changes is new. */
function age(root: string): void {
  for (const name of fs.readdirSync(root, { recursive: true, encoding: 'utf8' }))
    fs.lutimesSync(path.join(root, name), hour, hour)
  fs.utimesSync(root, hour, hour)
}

function directoriesOf(root: string): string[] {
  const entries = fs.readdirSync(root, { recursive: true, withFileTypes: true })
  const directories = entries.filter(entry => entry.isDirectory())
  return [root, ...directories.map(({ parentPath, name }) => path.join(parentPath, name))]
}

/** Hides that something happened in directories. */
function ageAll(directories: readonly string[]): void {
  for (const directory of directories)
    if (fs.existsSync(directory) && fs.lstatSync(directory).isDirectory())
      fs.utimesSync(directory, hour, hour)
}

/** Past the granularity of the clock that file systems use. */
async function sleepPastTick(): Promise<void> {
  await sleep(40)
}

function run(command: string, ...args: string[]): void {
  execFileSync(command, args, { stdio: 'pipe', timeout: 30_000 })
}

function inDirectory(root: string, use: (fd: number) => void): void {
  const fd = open(root, O_RDONLY | O_DIRECTORY)
  try {
    use(fd)
  } finally {
    close(fd)
  }
}

function setXattrOf(root: string, name: string, attribute: string, value: string): void {
  inDirectory(root, fd =>
    setXattr(xattrTarget(fd, cstring(name)), Buffer.from(attribute), Buffer.from(value)),
  )
}

function canSetXattr(root: string): boolean {
  try {
    setXattrOf(root, 'file', 'user.test', '')
    return true
  } catch {
    return false
  }
}

const base = {
  etc: { passwd: 'root', group: 'root', 'conf.d': { a: '1', b: '2' } },
  bin: { sh: 'binary' },
  empty: {},
  file: 'content',
}

/** What is done to the tree, and what is to be found; times of directories are put back. */
const cases: Array<{
  name: string
  tree?: (root: string) => void
  change: (root: string) => void
  expected: string[]
  skip?: string | false
}> = [
  { name: 'nothing', change: () => {}, expected: [] },
  {
    name: 'content of the same size and time',
    change: root => {
      fs.writeFileSync(`${root}/file`, 'CONTENT')
      fs.utimesSync(`${root}/file`, hour, hour)
    },
    expected: ['M file'],
  },
  {
    name: 'mode',
    change: root => fs.chmodSync(`${root}/etc/passwd`, 0o600),
    expected: ['M etc/passwd'],
  },
  {
    name: 'mode of a directory',
    change: root => fs.chmodSync(`${root}/etc`, 0o700),
    expected: ['M etc'],
  },
  { name: 'mode of the root', change: root => fs.chmodSync(root, 0o711), expected: ['M '] },
  {
    name: 'mtime by a second',
    change: root => fs.utimesSync(`${root}/file`, hour, hour + 1),
    expected: ['M file'],
  },
  {
    name: 'a new file',
    change: root => fs.writeFileSync(`${root}/etc/new`, ''),
    expected: ['A etc/new'],
  },
  {
    name: 'a new directory with all beneath it',
    change: root => {
      fs.mkdirSync(`${root}/empty/x/y`, { recursive: true })
      fs.writeFileSync(`${root}/empty/x/f`, '')
    },
    expected: ['A empty/x', 'A empty/x/f', 'A empty/x/y'],
  },
  { name: 'a deleted file', change: root => fs.rmSync(`${root}/file`), expected: ['D file'] },
  {
    name: 'a deleted directory, and nothing beneath it',
    change: root => fs.rmSync(`${root}/etc`, { recursive: true }),
    expected: ['D etc'],
  },
  {
    name: 'a directory replaced by a file, and nothing beneath it',
    change: root => {
      fs.rmSync(`${root}/etc`, { recursive: true })
      fs.writeFileSync(`${root}/etc`, '')
    },
    expected: ['M etc'],
  },
  {
    name: 'a file replaced by a directory, and all beneath it',
    change: root => {
      fs.rmSync(`${root}/file`)
      fs.mkdirSync(`${root}/file`)
      fs.writeFileSync(`${root}/file/in`, '')
    },
    expected: ['M file', 'A file/in'],
  },
  {
    name: 'a file replaced by a symlink',
    change: root => {
      fs.rmSync(`${root}/file`)
      fs.symlinkSync('etc', `${root}/file`)
      fs.lutimesSync(`${root}/file`, hour, hour)
    },
    expected: ['M file'],
  },
  {
    name: 'a hard link: every name of the inode',
    change: root => fs.linkSync(`${root}/file`, `${root}/bin/link`),
    expected: ['A bin/link', 'M file'],
  },
  {
    name: 'a hard link renamed: the other names of the inode, too',
    tree: root => fs.linkSync(`${root}/file`, `${root}/bin/link`),
    change: root => fs.renameSync(`${root}/bin/link`, `${root}/etc/link`),
    expected: ['D bin/link', 'A etc/link', 'M file'],
  },
  {
    name: 'a name of a hard link replaced by another file: the rest has fewer names',
    tree: root => fs.linkSync(`${root}/file`, `${root}/bin/link`),
    change: root => {
      fs.rmSync(`${root}/bin/link`)
      fs.writeFileSync(`${root}/bin/link`, 'new')
    },
    expected: ['M bin/link', 'M file'],
  },
  {
    name: 'the order of names that one is a prefix of',
    change: root => {
      fs.writeFileSync(`${root}/etc-a`, '')
      fs.writeFileSync(`${root}/etc.d`, '')
      fs.writeFileSync(`${root}/etc/z`, '')
    },
    expected: ['A etc-a', 'A etc.d', 'A etc/z'],
  },
  {
    name: 'a file and a directory that changed places',
    change: root => {
      fs.renameSync(`${root}/file`, `${root}/tmp`)
      fs.renameSync(`${root}/bin`, `${root}/file`)
      fs.renameSync(`${root}/tmp`, `${root}/bin`)
    },
    expected: ['M bin', 'M file', 'A file/sh'],
  },
  {
    name: 'owner',
    change: root => fs.chownSync(`${root}/file`, 5, 6),
    expected: ['M file'],
    skip: !isRoot && 'needs root: chown',
  },
  {
    name: 'a fifo where a file was',
    change: root => {
      fs.rmSync(`${root}/file`)
      run('mkfifo', `${root}/file`)
      fs.utimesSync(`${root}/file`, hour, hour)
    },
    expected: ['M file'],
  },
]

for (const form of ['the index', 'text alone'] as const)
  for (const { name, tree, change, expected, skip = false } of cases)
    await t.test(`${name}, from ${form}`, { skip }, async t => {
      const root = t.testdir(base)
      tree?.(root)
      age(root)
      const recorded = await record(root)
      const stored = form === 'the index' ? throughIndex(recorded) : throughText(recorded)
      const before = directoriesOf(root)
      change(root)
      ageAll(before)
      t.same(await compare(root, stored), expected)
      t.same(await compare(root, stored), expected, 'the same again')
    })

await t.test('xattrs', async t => {
  const root = t.testdir(base)
  if (!canSetXattr(root)) return t.comment('no setfattr, or no user xattrs here')
  setXattrOf(root, 'etc', 'user.a', '1')
  setXattrOf(root, 'file', 'user.big', 'x'.repeat(1500))
  const recorded = await record(root)
  const rough = throughText(recorded)
  t.same(await compare(root, recorded), [])
  t.same(await compare(root, throughText(recorded)), [])

  setXattrOf(root, 'etc', 'user.a', '2')
  setXattrOf(root, 'bin', 'user.b', '')
  t.same(await compare(root, recorded), ['M bin', 'M etc'])
  t.same(await compare(root, throughText(recorded)), ['M bin', 'M etc'])
  t.same(await compare(root, recorded, { ignoreXattrs: ['user.'] }), [])
  t.same(await compare(root, recorded, { ignoreXattrs: ['user.a'] }), ['M bin'])

  await t.test('what text cannot hold is held by the index', async t => {
    setXattrOf(root, 'file', 'user.big', 'y'.repeat(1500))
    t.same(await compare(root, recorded), ['M bin', 'M etc', 'M file'])
    t.same(await compare(root, throughIndex(recorded)), ['M bin', 'M etc', 'M file'])
    t.same(await compare(root, rough), ['M bin', 'M etc'], 'as umoci sees it')
  })
  await t.test('what text could not say is known after the comparison', async t => {
    setXattrOf(root, 'file', 'user.big', 'z'.repeat(1500))
    t.same(await compare(root, rough), ['M bin', 'M etc', 'M file'])
  })
})

await t.test('times that no column holds are no change', async t => {
  const root = t.testdir(base)
  const far = 2n ** 34n * 1_000_000_000n
  inDirectory(root, fd => utimensat(fd, cstring('file'), 0n, far))
  const recorded = await record(root)
  t.same(await compare(root, throughIndex(recorded)), [])
  t.same(await compare(root, throughText(recorded)), [])
  inDirectory(root, fd => utimensat(fd, cstring('file'), 0n, 5n))
  t.same(await compare(root, throughIndex(recorded)), ['M file'])
})

await t.test('device numbers', { skip: !isRoot && 'needs root: mknod' }, async t => {
  const root = t.testdir({})
  run('mknod', `${root}/null`, 'c', '1', '3')
  age(root)
  t.teardown(() => fs.rmSync(`${root}/null`, { force: true }))
  const recorded = await record(root)
  const rough = throughText(recorded)
  fs.rmSync(`${root}/null`)
  run('mknod', `${root}/null`, 'c', '1', '5')
  fs.utimesSync(`${root}/null`, hour, hour)
  fs.utimesSync(root, hour, hour)
  t.same(await compare(root, recorded), ['M null'])
  t.same(await compare(root, rough), [], 'mtree text does not hold them')
})

await t.test('nanoseconds count where they are known', async t => {
  const root = t.testdir(base)
  fs.utimesSync(`${root}/file`, 1000.25, 1000.25)
  const recorded = await record(root)
  fs.utimesSync(`${root}/file`, 1000.75, 1000.75)
  t.same(await compare(root, throughIndex(recorded)), ['M file'])
  t.same(await compare(root, throughText(recorded)), [])
})

await t.test('times before 1970 compare as umoci rounds them', async t => {
  const root = t.testdir(base)
  // Node takes negative times for now
  inDirectory(root, fd => utimensat(fd, cstring('file'), 0n, -1_500_000_000n))
  const recorded = await record(root)
  t.match(textOf(recorded).toString(), / {4}file .*tar_time=-2\.000000000/)
  t.same(await compare(root, throughText(recorded)), [])
})

await t.test('an unchanged tree is compared by its stats alone', async t => {
  const root = t.testdir(base)
  age(root)
  await sleepPastTick()
  const recorded = throughIndex(await record(root))
  t.same(await compare(root, recorded), [])
  t.notOk(recorded.isRenewed, 'nothing had to be looked at')
})

await t.test('racy: an entry as new as the record is always looked at', async t => {
  const root = t.testdir(base)
  const recorded = await record(root)
  // as if everything had happened within one tick of the clock
  recorded.freshTime = 0n
  const row = recorded.find(Buffer.from('file'))
  const times = fs.statSync(`${root}/file`)
  fs.writeFileSync(`${root}/file`, 'CONTENT')
  fs.utimesSync(`${root}/file`, times.atime, times.mtime)
  const stat = fs.statSync(`${root}/file`, { bigint: true })
  recorded.columns.ctime[row] = stat.ctimeNs
  recorded.columns.mtime[row] = stat.mtimeNs
  t.same(await compare(root, recorded), ['M file'])

  await t.test('and stays distrusted when the others are renewed', async t => {
    t.ok(recorded.isRenewed)
    t.equal(recorded.columns.ctime[row], 0n)
    t.same(await compare(root, recorded), ['M file'])
  })
})

await t.test('a copied bundle is read once, then trusted', async t => {
  const root = t.testdir({ a: base, b: {} })
  age(`${root}/a`)
  const recorded = await record(`${root}/a`)
  run('cp', '-a', `${root}/a/.`, `${root}/b`)
  await sleepPastTick()
  t.same(await compare(`${root}/b`, recorded), [])
  t.ok(recorded.isRenewed)
  recorded.isRenewed = false
  t.same(await compare(`${root}/b`, recorded), [])
  t.notOk(recorded.isRenewed, 'nothing had to be looked at')
})

await t.test('verifyContent reads what the stats call unchanged', async t => {
  const root = t.testdir(base)
  age(root)
  const recorded = await record(root)
  recorded.freshTime = 2n ** 62n
  const row = recorded.find(Buffer.from('file'))
  recorded.columns.sha256.fill(7, row * 32, row * 32 + 32)
  t.same(await compare(root, recorded), [], 'the stats say so')
  t.same(await compare(root, recorded, { verifyContent: true }), ['M file'])
})

await t.test(
  'K04: files and directories that deny their owner are read, and restored',
  async t => {
    const root = t.testdir({ ...base, shut: { in: 'x' } })
    fs.chmodSync(`${root}/file`, 0)
    fs.chmodSync(`${root}/shut`, 0)
    const modes = () =>
      ['file', 'shut'].map(name => fs.statSync(`${root}/${name}`).mode & 0o7777)
    try {
      const recorded = await record(root)
      t.ok(recorded.hash(recorded.find(Buffer.from('shut/in'))))
      t.same(modes(), [0, 0])
      t.same(await compare(root, throughText(recorded)), [])
      t.same(modes(), [0, 0])
      t.same(await compare(root, throughIndex(recorded)), [])
      t.same(modes(), [0, 0])
    } finally {
      fs.chmodSync(`${root}/shut`, 0o755)
    }
  },
)

await t.test('K04: deeper, and with attributes that only a reader may read', async t => {
  const root = t.testdir({ a: { shut: { in: 'x', deep: { file: 'y' } } } })
  const inner = `${root}/a/shut/deep`
  if (canSetXattr(inner)) setXattrOf(inner, 'file', 'user.rootlesscontainers', 'z')
  const modes = new Map([
    [`${inner}/file`, 0],
    [inner, 0],
    [`${root}/a/shut`, 0o100],
  ])
  for (const [path, mode] of modes) fs.chmodSync(path, mode)
  try {
    const recorded = await record(root)
    t.equal(recorded.count, 6)
    t.equal(fs.statSync(`${root}/a/shut`).mode & 0o7777, 0o100)
    t.same(await compare(root, throughText(recorded)), [])
    t.same(await compare(root, throughIndex(recorded)), [])
    t.same(await compare(root, recorded, { verifyContent: true }), [])
  } finally {
    for (const [path, mode] of [...modes].toReversed()) {
      t.equal(fs.statSync(path).mode & 0o7777, mode, path)
      fs.chmodSync(path, 0o755)
    }
  }
})

await t.test(
  'K07: other file systems are not entered',
  { skip: !isRoot && 'needs root: mount' },
  async t => {
    const root = t.testdir({ ...base, host: { secret: 'x' } })
    fs.mkdirSync(`${root}/bin/new`)
    const recorded = await record(root)
    const points = [`${root}/etc`, `${root}/fresh`, `${root}/file`]
    fs.mkdirSync(`${root}/fresh`)
    fs.writeFileSync(`${root}/fresh-file`, '')
    const mounted: string[] = []
    try {
      for (const point of [...points, `${root}/fresh-file`]) {
        const isDirectory = fs.statSync(point).isDirectory()
        run('mount', '--bind', isDirectory ? `${root}/host` : `${root}/host/secret`, point)
        mounted.push(point)
      }
      t.same(await compare(root, recorded), ['M ', 'A fresh'])
      const again = await record(root)
      t.equal(again.find(Buffer.from('etc/secret')), -1)
    } finally {
      for (const point of mounted.toReversed()) run('umount', point)
    }
  },
)

await t.test('K10: names of any bytes', async t => {
  const root = t.testdir({})
  const names = ['new\nline', 'sp ace', '#hash', 'back\\slash', 'a=b', '*?[', '..x', '...'].map(
    name => Buffer.from(name),
  )
  names.push(Buffer.from([0xff, 0xfe]), Buffer.from('é'))
  for (const name of names)
    fs.writeFileSync(Buffer.concat([Buffer.from(`${root}/`), name]), name)
  fs.utimesSync(root, hour, hour)
  const recorded = await record(root)
  t.same(await compare(root, throughText(recorded)), [])
  for (const name of names) fs.rmSync(Buffer.concat([Buffer.from(`${root}/`), name]))
  const expected = ['M ', ...names.map(name => `D ${name.toString('latin1')}`).sort(byBytes)]
  t.same(await compare(root, throughText(recorded)), expected)
  t.same(await compare(root, recorded), expected)
})

await t.test('K19: 3,000 levels deep', async t => {
  const root = t.testdir({})
  const name = cstring('d')
  const fds = [open(root, O_RDONLY | O_DIRECTORY)]
  for (let depth = 0; depth < 3000; depth++) {
    const parent = fds[0] as number
    mkdirat(parent, name, 0o755)
    fds[0] = openat(parent, name, O_RDONLY | O_DIRECTORY)
    close(parent)
  }
  const [deepest = -1] = fds
  t.teardown(() => close(deepest))
  try {
    const recorded = await record(root)
    t.equal(recorded.count, 3001)
    t.same(await compare(root, throughText(recorded)), [])
    t.same(await compare(root, throughIndex(recorded)), [])
    close(openat(deepest, cstring('f'), O_CREAT | O_RDONLY, 0o644))
    const changes = await inTree(root, tree => compareTree(tree, recorded))
    const lengths = changes.map(({ kind, rawPath }) => [kind, rawPath.length])
    t.same(lengths, [
      ['M', 3000 * 2 - 1],
      ['A', 3000 * 2 + 1],
    ])
    const applied = await inTree(root, tree => applyChanges(tree, recorded, changes))
    t.same(await compare(root, applied), [])
  } finally {
    inDirectory(root, fd => removeTree(fd, name))
  }
})

await t.test('an abort is noticed', async t => {
  const root = t.testdir(base)
  const recorded = await record(root)
  const signal = AbortSignal.abort()
  await t.rejects(compare(root, recorded, { signal }), { code: 'ERR_KOCI_ABORTED' })
  await t.rejects(
    inTree(root, tree => recordTree(tree, { signal })),
    { code: 'ERR_KOCI_ABORTED' },
  )
})

interface Operation {
  readonly kind: 'write' | 'mkdir' | 'remove' | 'chmod' | 'symlink' | 'link'
  readonly path: readonly string[]
  readonly value: number
}

const operation: fc.Arbitrary<Operation> = fc.record({
  kind: fc.constantFrom(
    'write',
    'write',
    'mkdir',
    'mkdir',
    'remove',
    'chmod',
    'symlink',
    'link',
  ),
  path: fc.array(fc.constantFrom('a', 'b', 'a.', 'a-', 'B'), { minLength: 1, maxLength: 3 }),
  value: fc.nat({ max: 3 }),
})

const operations = fc.array(operation, { minLength: 1, maxLength: 12 })

/** Runs in a new tree made by `first`, recorded, and changed by `then`. */
async function forRandomTrees(
  home: string,
  check: (root: string, recorded: TreeRecord, before: Map<string, string>) => Promise<boolean>,
): Promise<void> {
  let run = 0
  await fc.assert(
    fc.asyncProperty(operations, operations, async (first, then) => {
      const root = `${home}/${run++}`
      fs.mkdirSync(root)
      for (const step of first) apply(root, step)
      const recorded = throughIndex(await record(root))
      const before = snapshot(root)
      await sleepPastTick()
      for (const step of then) apply(root, step)
      return check(root, recorded, before)
    }),
    { numRuns: 60 },
  )
}

await t.test('random changes: found, and found again', async t => {
  await forRandomTrees(t.testdir({}), async (root, recorded, before) => {
    const expected = expectedChanges(before, snapshot(root)).join('\n')
    const first = await compareOwn(root, recorded)
    await sleepPastTick()
    const second = await compareOwn(root, throughIndex(recorded))
    apply(root, { kind: 'write', path: ['a', 'b'], value: 3 })
    const later = expectedChanges(before, snapshot(root)).join('\n')
    const third = await compareOwn(root, recorded)
    return (
      first.join('\n') === expected &&
      second.join('\n') === expected &&
      third.join('\n') === later
    )
  })
})

await t.test('more changes than are kept in memory come sorted, from disk', async t => {
  const root = makeMemoryDir('koci-many-')
  t.teardown(() => fs.rmSync(root, { recursive: true }))
  const recorded = await record(root)
  const expected = ['M ']
  for (let at = 0; at < 200; at++) {
    fs.mkdirSync(`${root}/${at}`)
    expected.push(`A ${at}`)
    for (let file = 0; file < 200; file++) {
      fs.writeFileSync(`${root}/${at}/${file}`, '')
      expected.push(`A ${at}/${file}`)
    }
  }
  using changes = await inTree(root, tree => compareTree(tree, recorded))
  t.equal(changes.length, expected.length)
  const lines = Array.from(changes, ({ kind, path }) => `${kind} ${path}`)
  // ASCII sorts as its bytes do
  const sorted = expected.toSorted((a, b) => (a.slice(2) < b.slice(2) ? -1 : 1))
  t.equal(lines.join('\n'), sorted.join('\n'))
})

await t.test('random changes: applied to the record, nothing is left', async t => {
  await forRandomTrees(t.testdir({}), async (root, recorded) => {
    const changes = await inTree(root, tree => compareTree(tree, recorded))
    const applied = await inTree(root, tree => applyChanges(tree, recorded, changes))
    const fresh = await record(root)
    return (
      (await compare(root, applied)).length === 0 &&
      textOf(applied).equals(textOf(fresh)) &&
      textOf(throughText(fresh)).equals(textOf(fresh)) &&
      (await compare(root, throughIndex(applied))).length === 0
    )
  })
})

await t.test('random changes: those that were masked are found again', async t => {
  await forRandomTrees(t.testdir({}), async (root, recorded) => {
    const changes = await inTree(root, tree => compareTree(tree, recorded))
    const packed = [...dropMasked(changes, [Buffer.from('a'), Buffer.from('b/a')])]
    const left = [...changes].filter(each => !packed.includes(each) && !each.aliasOf)
    const applied = await inTree(root, tree => applyChanges(tree, recorded, packed))
    const expected = asLines(left).join('\n')
    const first = (await compareOwn(root, throughIndex(applied))).join('\n')
    await sleepPastTick()
    await compare(root, applied)
    const second = (await compareOwn(root, throughIndex(applied))).join('\n')
    return first === expected && second === expected
  })
})

await t.test('random changes: a list that holds too much is verified', async t => {
  await forRandomTrees(t.testdir({}), async (root, recorded, before) => {
    const after = [...snapshot(root).keys()]
    const toChange = (path: string): Change => change('M', Buffer.from(path, 'latin1'))
    const everything = [...before.keys(), ...after, ...after].reverse().map(toChange)
    const hiding = after.map(path => ({ ...toChange(path), opaque: path === '' }))
    const verify = async (listed: readonly Change[]): Promise<string> =>
      asLines(await inTree(root, tree => verifyListed(tree, recorded, listed))).join('\n')
    const found = [await verify(everything), await verify(hiding)]
    const changes = await inTree(root, tree => compareTree(tree, recorded))
    // of what changed itself, in any order, the rest is made up for
    const own = [...changes].filter(({ aliasOf }) => aliasOf === undefined)
    found.push(await verify(own.toReversed()))
    const asListed = asLines(await inTree(root, tree => [...takeAsListed(tree, own)])).join(
      '\n',
    )
    const expected = asLines(changes).join('\n')
    return found.every(each => each === expected) && asListed === asLines(own).join('\n')
  })
})

function apply(root: string, { kind, path: names, value }: Operation): void {
  const target = path.join(root, ...names)
  try {
    if (kind === 'remove') fs.rmSync(target, { recursive: true, force: true })
    else if (kind === 'mkdir') fs.mkdirSync(target, { recursive: true })
    else if (kind === 'chmod') fs.chmodSync(target, [0o700, 0o755, 0o750, 0o711][value] ?? 0)
    else if (kind === 'write') fs.writeFileSync(target, 'x'.repeat(value))
    else if (kind === 'symlink') fs.symlinkSync('a'.repeat(value + 1), target)
    else fs.linkSync(path.join(root, 'a'), target)
  } catch (error) {
    // what doesn't fit the tree as it is at the moment is left out
    if (
      !['', 'ENOENT', 'ENOTDIR', 'EEXIST', 'EISDIR', 'EPERM', 'ELOOP'].includes(
        (error as NodeJS.ErrnoException).code ?? '',
      )
    )
      throw error
  }
}

function byBytes(a: string, b: string): number {
  return a < b ? -1 : 1
}
