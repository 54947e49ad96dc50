// What differs between two images: made-up ones, compared with what is found by looking at their trees; then by hand.
import { chmodSync, mkdirSync, rmSync, utimesSync } from 'node:fs'
import path from 'node:path'
import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t, { type Test } from 'tap'
import { diffImages, type Difference, type DiffOptions } from '../../lib/diff.ts'
import { differential } from '../support/differential.ts'
import { makeSandbox } from '../support/extract.ts'
import { makeImage } from '../support/image.ts'
import { anyImage, toMembers } from '../support/image-arbitrary.ts'
import { device, dir, fifo, file, link } from '../support/members.ts'
import { memoryParent } from '../support/memory-dir.ts'
import { isRoot, temporary } from '../support/peers.ts'
import type { TarMember } from '../support/tar-builder.ts'
import { describeTree } from '../support/tree.ts'

type Layers = readonly (readonly TarMember[])[]

function treeOf(directory: string, layers: Layers): Map<string, string> {
  mkdirSync(directory)
  const sandbox = makeSandbox(directory)
  chmodSync(sandbox.rootfs, 0o755)
  utimesSync(sandbox.rootfs, 0, 0)
  sandbox.apply(layers, { rootless: !isRoot })
  return new Map(
    describeTree(sandbox.rootfs).map(line => {
      // links between names aren't compared
      const [name = '', ...rest] = line.replace(/ =\S+$/, '').split(' ')
      return [name, rest.join(' ')]
    }),
  )
}

/** `A path`, `M path`, `D path`; of what is gone only the topmost. */
function expected(before: Map<string, string>, after: Map<string, string>): string[] {
  const isBelow = (name: string, isTop: (parent: string) => boolean): boolean =>
    name
      .split('/')
      .slice(1)
      .some((_, at) =>
        isTop(
          name
            .split('/')
            .slice(0, at + 1)
            .join('/'),
        ),
      )
  const isNoDirectory = (parent: string): boolean =>
    after.get(parent)?.startsWith('dir ') !== true
  const lines: string[] = []
  for (const name of new Set([...before.keys(), ...after.keys()])) {
    const [old, now] = [before.get(name), after.get(name)]
    if (old === now) continue
    if (now !== undefined) lines.push(`${old === undefined ? 'A' : 'M'} ${name}`)
    else if (!isBelow(name, isNoDirectory)) lines.push(`D ${name}`)
  }
  return lines.sort()
}

// names without blanks and the like, which `describeTree` would escape in another way
const plain = anyImage({
  privileged: isRoot,
  maxLayers: 3,
  change: entry => (isOdd(entry.path) || isOdd(entry.linkname) ? undefined : entry),
})

function isOdd(name: Buffer): boolean {
  return /[^ -~]|[ \\]/.test(name.toString('latin1'))
}

await t.test('made-up images: what their trees say', async t => {
  const base = temporary(t, 'diff', memoryParent())
  let index = 0
  let differences = 0
  await differential(
    fc.asyncProperty(plain, plain, fc.nat(2), async (one, other, shared) => {
      const directory = path.join(base, String(index++))
      mkdirSync(directory)
      try {
        const a = toMembers(one)
        const b = [...a.slice(0, shared), ...toMembers(other)]
        const images = path.join(directory, 'images')
        let trees: [Map<string, string>, Map<string, string>]
        try {
          trees = [treeOf(path.join(directory, 'a'), a), treeOf(path.join(directory, 'b'), b)]
        } catch {
          // what goes on top of its own base need not go on top of another
          return
        }
        await makeImage(images, 'a', { layers: a, compression: 'none' })
        await makeImage(images, 'b', { layers: b, compression: 'none' })
        const found = await diffImages({
          before: { image: `${images}:a` },
          after: { image: `${images}:b` },
        })
        const lines = found.map(({ kind, path }) => `${kind} ${path === '' ? '.' : path}`)
        differences += lines.length
        assert.deepEqual(lines.sort(), expected(...trees))
      } finally {
        rmSync(directory, { recursive: true, force: true })
      }
    }),
    60,
  )
  t.ok(differences > 100, `${differences} differences`)
})

async function differences(
  t: Test,
  a: Layers,
  b: Layers,
  options: Partial<DiffOptions> = {},
): Promise<readonly Difference[]> {
  const images = path.join(temporary(t), 'images')
  const before = { image: await makeImage(images, 'a', { layers: a }) }
  const after = { image: await makeImage(images, 'b', { layers: b, compression: 'zstd' }) }
  return diffImages({ before, after, ...options })
}

await t.test('what of a path differs', async t => {
  const long = 'x'.repeat(100_000)
  for (const [one, other, aspects] of [
    [file('x', 'a'), file('x', 'b'), ['content']],
    [file('x', `${long}a`), file('x', `${long}b`), ['content']],
    [file('x', 'a'), file('x', 'ab'), ['size']],
    [file('x', 'a', { mode: 0o600 }), file('x', 'a', { mode: 0o4600 }), ['mode']],
    [file('x', '', { uid: 1 }), file('x', '', { uid: 2 }), ['owner']],
    [file('x', '', { gid: 1 }), file('x', '', { gid: 2 }), ['owner']],
    [file('x', '', { mtime: 1n }), file('x', '', { mtime: 2n }), ['mtime']],
    [
      file('x', 'a', { pax: [['SCHILY.xattr.user.a', '1']] }),
      file('x', 'b', { pax: [['SCHILY.xattr.user.a', '2']] }),
      ['content', 'xattrs'],
    ],
    [link('x', 'a'), link('x', 'b'), ['target']],
    [device('x'), device('x', { devminor: 5 }), ['device']],
    [file('x'), fifo('x'), ['type']],
    [dir('x'), file('x'), ['type']],
    [dir('x', { mode: 0o700 }), dir('x', { mode: 0o755 }), ['mode']],
  ] as const)
    t.match(await differences(t, [[one]], [[other]]), [{ kind: 'M', path: 'x', aspects }])
})

await t.test('sizes: of files, and of all that a directory held', async t => {
  const old = [[dir('d'), file('d/a', 'xx'), file('d/b', 'yyy'), file('f', 'z')]]
  const now = [...old, [file('.wh.d'), file('f', 'zz'), dir('n'), file('n/a', 'w')]]
  const found = await differences(t, old, now)
  t.same(
    found.map(({ kind, path, oldSize, newSize }) => [kind, path, oldSize, newSize]),
    [
      ['D', 'd', 5, undefined],
      ['M', 'f', 1, 2],
      ['A', 'n', undefined, undefined],
      ['A', 'n/a', undefined, 1],
    ],
  )
})

await t.test('the same layers, or the same tree made of others: nothing', async t => {
  const layers = [[file('a', 'x')], [file('b', 'y')]]
  t.same(await differences(t, layers, layers), [])
  t.same(await differences(t, layers, layers.toReversed()), [])
  t.same(await differences(t, layers, [[file('b', 'y'), file('a', 'x')]]), [])
  t.same(await differences(t, layers, [...layers, [file('c')], [file('.wh.c')]]), [])
})

await t.test('times can be ignored', async t => {
  const at = (mtime: bigint): Layers => [
    [dir('d', { mtime }), file('d/a', 'x', { mtime }), file('d/b', String(mtime), { mtime })],
  ]
  t.equal((await differences(t, at(1n), at(2n))).length, 3)
  const found = await differences(t, at(1n), at(2n), { ignoreTimes: true })
  t.match(found, [{ path: 'd/b', aspects: ['content'] }])
})

await t.test('an image that is damaged, a run that is aborted', async t => {
  const broken = [[file('../../etc')]]
  await t.rejects(differences(t, [[file('a')]], broken), { code: 'ERR_KOCI_PATH_ESCAPE' })
  await t.rejects(
    differences(t, [[file('a')]], [[file('b')]], { signal: AbortSignal.abort() }),
    {
      code: 'ERR_KOCI_ABORTED',
    },
  )
})

await t.test('a directory with more in it than a call has arguments', async t => {
  const many = Array.from({ length: 150_000 }, (_, at) => file(`d/${at}`))
  const layers = [[dir('d'), ...many], [file('z')]]
  t.match(await differences(t, layers, [[file('z')]]), [{ kind: 'D', path: 'd' }])
  t.match(await differences(t, layers, [...layers, [file('.wh.d')]]), [
    { kind: 'D', path: 'd' },
  ])
})

await t.test('little that says much: paths as long as an extended header can say', async t => {
  const refused = (member: TarMember): Promise<unknown> =>
    differences(t, [[file('a')]], [[member, file('l/f')]]).catch((error: unknown) => error)
  t.match(await refused(file(`${'a/'.repeat(400_000)}f`)), {
    code: 'ERR_KOCI_LIMIT_EXCEEDED',
    message: /length of all paths together exceeded/,
  })
  const tooLong = { code: 'ERR_KOCI_IO', cause: { code: 'ENAMETOOLONG' } }
  t.match(await refused(file('n'.repeat(256))), tooLong)
  t.match(await refused(link('l', '/'.repeat(900_000))), tooLong)
})

await t.test('a directory that is hidden again and again is looked through once', async t => {
  const many = Array.from({ length: 20_000 }, (_, at) => file(`d/${at}`))
  const opaque = Array.from({ length: 20_000 }, () => file('d/.wh..wh..opq'))
  const whiteouts = Array.from({ length: 20_000 }, () => file('.wh.d'))
  const before = process.cpuUsage()
  const layers = [[file('d/old')], [...many, ...opaque, ...whiteouts]]
  t.equal((await differences(t, [[file('d/old')]], layers)).length, 20_001)
  const { user } = process.cpuUsage(before)
  t.ok(user < 30e6, `${user / 1e6} s; it was over a minute`)
})
