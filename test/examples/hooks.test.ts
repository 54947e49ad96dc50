// The storage drivers in sh. With real subvolumes: what is made is what plain extraction makes, what is listed is what changed,
// and what one bundle extracted another finds. And what koci leaves behind when it dies between their hooks.
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { unmount } from '../../lib/fs/mount.ts'
import { mountsWithin } from '../../lib/fs/mount-table.ts'
import { hooks, Koci, listDelta, mtree } from '../../middleware/index.ts'
import { koci } from '../bin/run-koci.ts'
import { installExample } from '../support/example-hooks.ts'
import { hookPlace } from '../support/hooks.ts'
import { makeImage, type TestLayer } from '../support/image.ts'
import { dir, file, hard, link } from '../support/members.ts'
import { makeMemoryDir } from '../support/memory-dir.ts'
import { isRoot, missing } from '../support/peers.ts'
import { describeTree } from '../support/tree.ts'

t.setTimeout(900_000)

const root = dir('./', { mode: 0o751, mtime: 5 })
const layers: readonly TestLayer[] = [
  [
    root,
    dir('d/', { mode: 0o700, mtime: 7 }),
    file('d/x', 'x', { mtime: 7 }),
    file('d/y', 'y', { mtime: 7 }),
    dir('d/e/', { mtime: 7 }),
    file('d/e/z', 'z', { mtime: 7 }),
    dir('gone/', { mtime: 7 }),
    file('gone/a', 'a', { mtime: 7 }),
    file('f', 'file', { mtime: 7 }),
    link('link', 'd', { mtime: 7 }),
  ],
  // directories without entries, a whiteout, a file over a directory
  [
    file('d/e/new', 'new', { mtime: 8 }),
    file('d/.wh.y'),
    file('gone', 'now a file', { mtime: 8 }),
  ],
  // a link to a file below, a path through a symlink, an opaque directory
  [hard('d/x2', 'd/x'), file('link/through', 't', { mtime: 9 })],
  [
    dir('d/e/', { mtime: 10 }),
    file('d/e/.wh..wh..opq'),
    file('d/e/last', 'last', { mtime: 10 }),
  ],
]

interface Stage {
  readonly base: string
  readonly layout: string
  readonly image: string
  readonly store: string
  readonly toml: string
  app(): Koci
}

async function stage(base: string, example: 'btrfs' | 'overlay' = 'btrfs'): Promise<Stage> {
  const store = path.join(base, 'store')
  const toml = installExample(example, base, store)
  chmodSync(base, 0o755)
  mkdirSync(store)
  const layout = path.join(base, 'images')
  const image = await makeImage(layout, 'a', { layers })
  return {
    base,
    layout,
    image,
    store,
    toml,
    app: () => new Koci().use(hooks({ file: toml })).use(mtree()),
  }
}

/** What somebody does in a container. */
function change(rootfs: string): void {
  const sh = String.raw`cd "$1" && echo changed > d/x && rm f && mkdir -p n/m && echo n > n/m/f &&
    mv d/e moved && rm -r link && mkdir link && printf q > "$(printf 'sp ace\nline\\ \377%%d')" &&
    ln n/m/f hard && chmod 711 . && touch -d @42 gone && mkdir d/e && echo new > d/e/z`
  execFileSync('/bin/sh', ['-c', sh, 'sh', rootfs])
}

const asLines = (changes: Iterable<{ kind: string; path: string }>): string[] =>
  Array.from(changes, ({ kind, path }) => `${kind} ${path}`).sort()

async function plainly(image: string, bundle: string): Promise<string> {
  await new Koci().use(mtree()).unpack({ image, bundle })
  return path.join(bundle, 'rootfs')
}

/** The story of a bundle. */
async function tell(t: Test, s: Stage): Promise<void> {
  const bundle = path.join(s.base, 'bundle')
  const rootfs = path.join(bundle, 'rootfs')
  await s.app().unpack({ image: s.image, bundle })
  const plain = await plainly(s.image, path.join(s.base, 'plain'))
  t.same(describeTree(rootfs), describeTree(plain), 'as plain extraction makes it')
  t.same([...(await listDelta(s.app(), { bundle }))], [], 'nothing changed')

  const other = path.join(s.base, 'other')
  const again = await s.app().unpack({ image: s.image, bundle: other })
  t.same(
    again.layers.map(({ placed }) => placed?.by),
    layers.map(() => 'hooks'),
    'every layer is found',
  )
  t.same(describeTree(path.join(other, 'rootfs')), describeTree(plain))

  change(rootfs)
  change(plain)
  const expected = await listDelta(new Koci().use(mtree()), {
    bundle: path.join(s.base, 'plain'),
  })
  const listed = asLines(await listDelta(s.app(), { bundle }))
  t.same(listed, asLines(expected), 'exactly what changed')

  await s.app().repack({ image: `${s.layout}:b`, bundle, refresh: true })
  const repacked = await plainly(`${s.layout}:b`, path.join(s.base, 'repacked'))
  t.same(describeTree(repacked), describeTree(rootfs), 'the new image is what is in the bundle')
  t.same(asLines(await listDelta(s.app(), { bundle })), [], 'nothing changed since')

  writeFileSync(path.join(rootfs, 'later'), 'later')
  execFileSync('/bin/rm', ['-r', path.join(rootfs, 'n')])
  await s.app().repack({ image: `${s.layout}:c`, bundle })
  const third = await plainly(`${s.layout}:c`, path.join(s.base, 'third'))
  t.same(describeTree(third), describeTree(rootfs), 'and so is the next')
}

/** An empty btrfs on a loop device, gone with the test. */
function btrfs(t: Test): string {
  const { base } = hookPlace(t)
  const image = path.join(base, 'btrfs.img')
  const at = path.join(base, 'btrfs')
  execFileSync('truncate', ['-s', '400M', image])
  execFileSync('mkfs.btrfs', ['-q', image], { stdio: 'ignore' })
  mkdirSync(at)
  execFileSync('mount', ['-o', 'loop', image, at])
  t.teardown(() => unmount(at))
  return at
}

const noBtrfs = (!isRoot && 'needs root, for btrfs send') || btrfsMissing()

function btrfsMissing(): string | false {
  const absent = missing('jq', 'btrfs', 'mkfs.btrfs', 'losetup', 'awk')
  if (absent !== false) return absent
  if (!readFileSync('/proc/filesystems', 'utf8').includes('\tbtrfs'))
    return 'needs a kernel with btrfs'
  return spawnSync('losetup', ['-f'], { stdio: 'ignore' }).status !== 0 && 'needs a loop device'
}

await t.test('btrfs.sh', { skip: noBtrfs }, async t => {
  const s = await stage(btrfs(t))
  await tell(t, s)
  t.ok(readdirSync(s.store).length >= layers.length)
})

/** A line of the hooks' file, and what it becomes: koci is killed by another command, behind the mount hook. */
const onceMounted: readonly [line: RegExp, replacement: string] = [
  /^mount = (.*)$/m,
  'mount = [$1, { command = ["/bin/sh", "-c", "kill -9 $PPID"] }]',
]

/** Unpacks until koci is killed by its hooks; the bundle that it leaves. */
async function dieIn(t: Test, s: Stage, line: RegExp, replacement: string): Promise<string> {
  const bundle = path.join(s.base, 'bundle')
  const deadly = path.join(s.base, 'deadly.toml')
  const toml = readFileSync(s.toml, 'utf8').replace(line, replacement)
  writeFileSync(deadly, toml, { mode: 0o644 })
  const killed = await koci(['unpack', '--hooks', deadly, '--image', s.image, bundle])
  t.equal(killed.code, null, killed.stderr)
  return bundle
}

await t.test('btrfs.sh: killed once its base is there', { skip: noBtrfs }, async t => {
  const s = await stage(btrfs(t))
  const bundle = await dieIn(t, s, ...onceMounted)
  t.ok(existsSync(path.join(bundle, 'hooks/base/gone')), 'its base is left')
  await s.app().unpack({ image: s.image, bundle })
  const plain = await plainly(s.image, path.join(s.base, 'plain'))
  t.same(describeTree(path.join(bundle, 'rootfs')), describeTree(plain))
  t.same([...(await listDelta(s.app(), { bundle }))], [])
})

const noOverlay =
  (!isRoot && 'needs root, to mount overlays') || missing('jq', 'getfattr', 'setfattr', 'mount')
/** Where koci dies: behind the mount of the rootfs, and while a layer is extracted on a mount of those below it. */
const deaths: readonly [where: string, line: RegExp, replacement: string][] = [
  ['once its rootfs is mounted', ...onceMounted],
  [
    'while a layer is on top of others',
    /^post-extract = (.*)$/m,
    `post-extract = [{ command = ["/bin/sh", "-c", "! jq -e .layer.needsBelow > /dev/null || kill -9 $PPID"] }, $1]`,
  ],
]
for (const [where, line, replacement] of deaths)
  await t.test(`overlay.sh: killed ${where}`, { skip: noOverlay }, async t => {
    const base = makeMemoryDir('koci-test-hooks-')
    t.teardown(() => {
      for (const { mountpoint } of mountsWithin(base)) unmount(mountpoint)
      rmSync(base, { recursive: true })
    })
    const s = await stage(base, 'overlay')
    const bundle = await dieIn(t, s, line, replacement)
    t.equal(mountsWithin(bundle).length, 1, 'a mount is left')
    await s.app().unpack({ image: s.image, bundle })
    const plain = await plainly(s.image, path.join(base, 'plain'))
    t.same(describeTree(path.join(bundle, 'rootfs')), describeTree(plain))
    t.equal(mountsWithin(bundle).length, 1, 'that of the rootfs')
  })
