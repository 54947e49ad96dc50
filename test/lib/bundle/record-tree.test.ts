import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import t from 'tap'
import { recordTree, type RecordOptions } from '../../../lib/bundle/record-tree.ts'
import type { RecordEntry, TreeRecord } from '../../../lib/bundle/record.ts'
import { FileHashes } from '../../../lib/layer/file-hashes.ts'
import { inTree } from '../../support/rootfs.ts'

const isRoot = process.getuid?.() === 0

function record(root: string, options?: RecordOptions): Promise<TreeRecord> {
  return inTree(root, tree => recordTree(tree, options))
}

function entry(recorded: TreeRecord, path: string): RecordEntry {
  return recorded.entry(recorded.find(Buffer.from(path)), Buffer.from(path))
}

function sumOf(content: string): string {
  return createHash('sha256').update(content).digest('hex')
}

await t.test('what lstat says, in mtree order', async t => {
  const root = t.testdir({ b: 'x', 'a.d': { z: '', s: {} }, a: { y: '' }, 'a-': '', B: '' })
  fs.symlinkSync('tar\nget', `${root}/link`)
  fs.linkSync(`${root}/b`, `${root}/a/hard`)
  execFileSync('mkfifo', [`${root}/fifo`])
  if (isRoot) execFileSync('mknod', [`${root}/dev`, 'b', '8', '300'])
  const recorded = await record(root)
  const paths = [...recorded.entries()].map(({ rawPath }) => rawPath.toString())
  t.same(
    paths.filter(path => path !== 'dev'),
    ['', 'B', 'a-', 'b', 'fifo', 'link', 'a', 'a/hard', 'a/y', 'a.d', 'a.d/z', 'a.d/s'],
  )
  for (const found of recorded.entries()) {
    const stat = fs.lstatSync(`${root}/${found.rawPath.toString()}`, { bigint: true })
    t.match(
      found,
      {
        mode: Number(stat.mode) & 0o7777,
        uid: Number(stat.uid),
        gid: Number(stat.gid),
        nlink: Number(stat.nlink),
        size: Number(stat.size),
        mtime: stat.mtimeNs,
        ctime: stat.ctimeNs,
        ino: stat.ino,
      },
      found.rawPath.toString(),
    )
  }
  t.equal(entry(recorded, 'b').sha256?.toString('hex'), sumOf('x'))
  t.equal(entry(recorded, 'a/hard').sha256?.toString('hex'), sumOf('x'))
  t.same(entry(recorded, 'link').rawLinkname, Buffer.from('tar\nget'))
  t.equal(entry(recorded, 'fifo').type, 'fifo')
  if (isRoot) t.match(entry(recorded, 'dev'), { type: 'block', devmajor: 8, devminor: 300 })
  t.ok(recorded.freshTime >= entry(recorded, 'link').mtime, 'taken after the tree was made')
})

await t.test('known sums are taken where size and mtime are those of the file', async t => {
  const root = t.testdir({ known: 'k', resized: 'rr', touched: 't', unknown: 'u' })
  const hashes = new FileHashes()
  const lie = Buffer.alloc(32, 9)
  for (const name of ['known', 'resized', 'touched']) {
    const { ino, mtimeNs } = fs.statSync(`${root}/${name}`, { bigint: true })
    hashes.add(ino, lie, 1, name === 'touched' ? mtimeNs + 1n : mtimeNs)
  }
  const recorded = await record(root, { hashes })
  const sum = (name: string) => entry(recorded, name).sha256?.toString('hex')
  t.equal(sum('known'), lie.toString('hex'))
  t.equal(sum('resized'), sumOf('rr'))
  t.equal(sum('touched'), sumOf('t'))
  t.equal(sum('unknown'), sumOf('u'))
})

await t.test('a file larger than a piece, and an empty one', async t => {
  const root = t.testdir({ large: 'x'.repeat(5 * 2 ** 20 + 1), empty: '' })
  const recorded = await record(root)
  t.equal(entry(recorded, 'large').sha256?.toString('hex'), sumOf('x'.repeat(5 * 2 ** 20 + 1)))
  t.equal(entry(recorded, 'empty').sha256?.toString('hex'), sumOf(''))
})

await t.test('K01: a file that changes while it is read is an error', async t => {
  const root = t.testdir({ log: 'x'.repeat(64 * 2 ** 20) })
  const writing = setInterval(() => fs.appendFileSync(`${root}/log`, 'more'), 1)
  try {
    await t.rejects(record(root), { code: 'ERR_KOCI_FILE_CHANGED', message: /^log: / })
  } finally {
    clearInterval(writing)
  }
})

await t.test('the tree is left as it was', async t => {
  const root = t.testdir({ a: { b: 'x' } })
  const times = () => fs.statSync(root, { bigint: true }).mtimeNs
  const before = times()
  await record(root)
  t.equal(times(), before)
  t.same(fs.readdirSync(root), ['a'])
})

await t.test('10,000 entries give others a turn', async t => {
  const root = t.testdir({})
  for (let directory = 0; directory < 10; directory++) {
    fs.mkdirSync(`${root}/${directory}`)
    for (let file = 0; file < 1000; file++) fs.writeFileSync(`${root}/${directory}/${file}`, '')
  }
  let turns = 0
  const counting = setInterval(() => turns++, 0)
  const recorded = await record(root).finally(() => clearInterval(counting))
  t.equal(recorded.count, 10_011)
  t.ok(turns > 0)
})
