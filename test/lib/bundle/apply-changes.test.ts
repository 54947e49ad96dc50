import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import t from 'tap'
import { applyChanges } from '../../../lib/bundle/apply-changes.ts'
import { compareTree } from '../../../lib/bundle/compare-tree.ts'
import { RecordBuilder } from '../../../lib/bundle/record-builder.ts'
import { recordTree } from '../../../lib/bundle/record-tree.ts'
import type { TreeRecord } from '../../../lib/bundle/record.ts'
import { change, type Change } from '../../../lib/change.ts'
import type { Warning } from '../../../lib/events.ts'
import { Extraction } from '../../../lib/layer/extraction.ts'
import { FileHashes } from '../../../lib/layer/file-hashes.ts'
import { packEntries } from '../../../lib/layer/pack-entries.ts'
import { asLines, inTree } from '../../support/rootfs.ts'

function apply(
  root: string,
  recorded: TreeRecord,
  changes: Iterable<Change>,
  packed?: FileHashes,
): Promise<TreeRecord> {
  return inTree(root, tree => applyChanges(tree, recorded, changes, { packed }))
}

async function compare(root: string, recorded: TreeRecord): Promise<string[]> {
  return asLines(await inTree(root, tree => compareTree(tree, recorded)))
}

function of(kind: Change['kind'], path: string): Change {
  return change(kind, Buffer.from(path))
}

const rootless = process.geteuid?.() !== 0
const base = { a: '1', d: { e: '2', f: { g: '3' } }, z: '4' }

await t.test('only what was packed is taken over', async t => {
  const root = t.testdir(base)
  const recorded = await inTree(root, tree => recordTree(tree))
  fs.writeFileSync(`${root}/a`, 'changed')
  fs.writeFileSync(`${root}/z`, 'changed')
  fs.writeFileSync(`${root}/d/new`, '')
  fs.rmSync(`${root}/d/f`, { recursive: true })
  t.same(
    await compare(root, recorded),
    ['M ', 'M a', 'M d', 'D d/f', 'A d/new', 'M z'].slice(1),
  )

  const applied = await apply(root, recorded, [of('M', 'a'), of('D', 'd/f'), of('M', 'd')])
  t.equal(applied.find(Buffer.from('d/f')), -1)
  t.same(await compare(root, applied), ['A d/new', 'M z'])
  t.same(await compare(root, applied), ['A d/new', 'M z'], 'the same again')
  t.same(
    await compare(root, recorded),
    ['M a', 'M d', 'D d/f', 'A d/new', 'M z'],
    'the old one is as it was',
  )
})

await t.test('a file that changed after it was packed counts as changed', async t => {
  const root = t.testdir(base)
  const recorded = await inTree(root, tree => recordTree(tree))
  fs.writeFileSync(`${root}/a`, 'packed')
  fs.writeFileSync(`${root}/z`, 'packed')
  const packed = new FileHashes()
  for (const name of ['a', 'z']) {
    const { ino, mtimeNs, size } = fs.statSync(`${root}/${name}`, { bigint: true })
    const sha256 = Buffer.from(
      'a3ed0e0fd0e7bbaa7b3a0b3a9bb4fc7a6f5c8a0a3f2d7f0e7c9a6d5c4b3a2f1e',
      'hex',
    )
    packed.add(ino, sha256, Number(size), mtimeNs)
  }
  fs.writeFileSync(`${root}/z`, 'changed again')
  const applied = await apply(root, recorded, [of('M', 'a'), of('M', 'z')], packed)
  t.same(
    applied.hash(applied.find(Buffer.from('a')))?.subarray(0, 2),
    Buffer.from([0xa3, 0xed]),
  )
  t.equal(applied.hash(applied.find(Buffer.from('z'))), undefined)
  t.match(await compare(root, applied), ['M a', 'M z'], 'a, because the sum was a lie')
})

await t.test('what was packed is recorded as it was then', async t => {
  const root = t.testdir(base)
  const recorded = await inTree(root, tree => recordTree(tree))
  fs.writeFileSync(`${root}/a`, 'packed')
  fs.rmSync(`${root}/d/e`)
  fs.writeFileSync(`${root}/n`, 'not packed by us')
  fs.rmSync(`${root}/z`)
  fs.mkdirSync(`${root}/z/new`, { recursive: true })
  const changes = [of('M', 'a'), of('D', 'd/e'), of('M', 'z'), of('A', 'z/new'), of('A', 'n')]
  const packed = new FileHashes()
  const rows = new RecordBuilder(1)
  const source = {
    rootfs: root,
    changes: changes.slice(0, 4),
    extraction: new Extraction({ rootless }),
    hashes: packed,
    signal: new AbortController().signal,
    warn: ({ message }: Warning): void => {
      t.fail(message)
    },
  }
  for await (const entry of packEntries(source, rows)) {
    const pieces = entry.body ? await Array.fromAsync(entry.body()) : []
    t.ok(pieces.length < 2)
  }
  fs.chmodSync(`${root}/a`, 0o600)
  fs.rmSync(`${root}/z`, { recursive: true })
  fs.writeFileSync(`${root}/z`, '')
  const packedRecord = rows.finish(0n)
  const applied = await inTree(root, tree =>
    applyChanges(tree, recorded, changes, { packed, packedRecord }),
  )
  const sum = createHash('sha256').update('packed').digest()
  t.strictSame(applied.hash(applied.find(Buffer.from('a'))), sum)
  t.ok(applied.isDirectory(applied.find(Buffer.from('z/new'))))
  t.same(
    (await compare(root, applied)).filter(line => !/^M d?$/.test(line)),
    ['M a', 'M n', 'M z'],
    'n, because nobody hashed it',
  )
})

await t.test('what was packed and has vanished is missed next time', async t => {
  const root = t.testdir(base)
  const recorded = await inTree(root, tree => recordTree(tree))
  fs.rmSync(`${root}/d`, { recursive: true })
  const applied = await apply(root, recorded, [of('M', 'd/e'), of('A', 'n'), of('A', 'd/f/x')])
  const found = await compare(root, applied)
  t.same(
    found.filter(line => line !== 'M '),
    ['D d', 'D n'],
  )
})

await t.test('kinds of things that changed', async t => {
  const root = t.testdir(base)
  const recorded = await inTree(root, tree => recordTree(tree))
  fs.rmSync(`${root}/d`, { recursive: true })
  fs.symlinkSync('a', `${root}/d`)
  fs.rmSync(`${root}/a`)
  fs.mkdirSync(`${root}/a/b`, { recursive: true })
  const changes = await inTree(root, tree => compareTree(tree, recorded))
  t.same(
    asLines(changes).filter(line => line !== 'M '),
    ['M a', 'A a/b', 'M d'],
  )
  const applied = await apply(root, recorded, changes)
  t.equal(applied.find(Buffer.from('d/e')), -1)
  t.same(await compare(root, applied), [])
})

await t.test('no changes: the same rows', async t => {
  const root = t.testdir(base)
  const recorded = await inTree(root, tree => recordTree(tree))
  const applied = await apply(root, recorded, [])
  t.same(
    [...applied.entries()].map(({ rawPath, sha256 }) => [rawPath, sha256]),
    [...recorded.entries()].map(({ rawPath, sha256 }) => [rawPath, sha256]),
  )
})

await t.test('a path that leaves the tree is refused', async t => {
  const root = t.testdir(base)
  const recorded = await inTree(root, tree => recordTree(tree))
  for (const path of ['..', '../x', 'd/../../x', '.', 'd//e', '/a', 'a/'])
    await t.rejects(
      apply(root, recorded, [of('M', path)]),
      { code: 'ERR_KOCI_PATH_ESCAPE' },
      path,
    )
})

await t.test('an abort is noticed', async t => {
  const root = t.testdir(base)
  const recorded = await inTree(root, tree => recordTree(tree))
  await t.rejects(
    inTree(root, tree => applyChanges(tree, recorded, [], { signal: AbortSignal.abort() })),
    { code: 'ERR_KOCI_ABORTED' },
  )
})
