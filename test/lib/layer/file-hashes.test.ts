import { randomBytes } from 'node:crypto'
import t from 'tap'
import { FileHashes } from '../../../lib/layer/file-hashes.ts'

await t.test('what was added last about an inode counts', async t => {
  const hashes = new FileHashes()
  const [one, two] = [randomBytes(32), randomBytes(32)]
  hashes.add(2n ** 63n + 5n, one, 2 ** 40, -7n)
  t.strictSame(hashes.get(2n ** 63n + 5n), { sha256: one, size: 2 ** 40, mtime: -7n })
  hashes.add(2n ** 63n + 5n, two, 1, 2n)
  t.strictSame(hashes.get(2n ** 63n + 5n), { sha256: two, size: 1, mtime: 2n })
  hashes.forget(2n ** 63n + 5n)
  t.equal(hashes.get(2n ** 63n + 5n), undefined)
  t.equal(hashes.get(1n), undefined)
})

await t.test('it grows, merges and crosses threads', async t => {
  const make = (from: bigint, count: number) => {
    const hashes = new FileHashes()
    for (let i = from; i < from + BigInt(count); i += 1n)
      hashes.add(i, Buffer.alloc(32, Number(i & 255n)), Number(i), i * 10n)
    return hashes
  }
  const lower = make(0n, 1000)
  const upper = make(900n, 300)
  upper.forget(5n)
  lower.merge(upper)
  t.equal(upper.length, 0, 'merged away')
  const adopting = new FileHashes()
  const only = make(0n, 3)
  adopting.merge(only)
  adopting.merge(make(2n, 300))
  t.strictSame([only.length, adopting.length], [0, 303])
  t.equal(adopting.get(301n)?.size, 301)
  const { value, transferList } = lower.toTransferable()
  t.equal(lower.length, 0)
  const moved = FileHashes.fromTransferable(structuredClone(value, { transfer: transferList }))
  t.equal(value.inodes.length, 0, 'moved, not copied')
  t.equal(moved.length, 1301)
  t.equal(moved.get(5n), undefined)
  for (const inode of [0n, 255n, 999n, 1199n])
    t.strictSame(moved.get(inode), {
      sha256: Buffer.alloc(32, Number(inode & 255n)),
      size: Number(inode),
      mtime: inode * 10n,
    })
  moved.add(7n, Buffer.alloc(32, 1), 1, 1n)
  t.equal(moved.get(7n)?.size, 1)
  t.equal(lower.get(7n), undefined)
  lower.add(7n, Buffer.alloc(32, 2), 2, 2n)
  t.equal(lower.get(7n)?.size, 2, 'usable again')
})

await t.test('an mtime that does not fit makes the file one that was not hashed', async t => {
  const hashes = new FileHashes()
  hashes.add(1n, randomBytes(32), 1, 2n ** 63n)
  t.equal(hashes.get(1n), undefined)
})
