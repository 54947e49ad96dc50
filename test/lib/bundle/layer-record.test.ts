import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { readLayerRecord, writeLayerRecord } from '../../../lib/bundle/layer-record.ts'
import { recordTree } from '../../../lib/bundle/record-tree.ts'
import type { KnownHashes } from '../../../lib/bundle/record-tree.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import { inTree } from '../../support/rootfs.ts'

const diffID = digestOf(Buffer.from('layer'))

await t.test('comes back as it was written', async t => {
  const base = t.testdir({ tree: { a: 'x'.repeat(5000), d: { e: '' } } })
  const [tree, file] = [path.join(base, 'tree'), path.join(base, 'record')]
  const summary = await writeLayerRecord(tree, file, diffID)
  t.match(summary, { entries: 4, bytes: 2 * 4096 + 2 * 4096, sha256: /^[0-9a-f]{64}$/ })
  const wanted = await inTree(tree, root => recordTree(root))
  const found = await readLayerRecord(file, diffID, summary)
  t.same([...found.entries()], [...wanted.entries()])
  await t.rejects(writeLayerRecord(tree, file, diffID), { code: 'ERR_KOCI_IO' }, 'not replaced')
})

await t.test('files whose hash is known are not read', async t => {
  const base = t.testdir({ tree: { a: '1' } })
  const sha256 = Buffer.alloc(32, 7)
  const tree = path.join(base, 'tree')
  const seen: bigint[] = []
  const hashes: KnownHashes = {
    get(ino) {
      seen.push(ino)
      return undefined
    },
  }
  const file = path.join(base, 'record')
  await writeLayerRecord(tree, file, diffID, { hashes })
  t.equal(seen.length, 1)
  const [, known] = [...(await inTree(tree, root => recordTree(root))).entries()]
  const told: KnownHashes = {
    get: () => ({ sha256, size: 1, mtime: known?.mtime ?? 0n }),
  }
  const other = path.join(base, 'other')
  const summary = await writeLayerRecord(tree, other, diffID, { hashes: told })
  const record = await readLayerRecord(other, diffID, summary)
  t.same(record.hash(1), sha256)
})

await t.test('a record that is not the one that was written does not count', async t => {
  const base = t.testdir({ tree: { a: '1' } })
  const [tree, file] = [path.join(base, 'tree'), path.join(base, 'record')]
  const summary = await writeLayerRecord(tree, file, diffID)
  const refused = { name: 'FormatError', code: 'ERR_KOCI_INVALID_STORE' }
  const foreign = digestOf(Buffer.from('other'))
  await t.rejects(readLayerRecord(file, foreign, summary), refused, 'of another layer')
  const sha256 = '0'.repeat(64)
  await t.rejects(readLayerRecord(file, diffID, { ...summary, sha256 }), refused, 'exchanged')
  const bytes = readFileSync(file)
  bytes[300] = (bytes[300] as number) ^ 1
  writeFileSync(file, bytes)
  await t.rejects(readLayerRecord(file, diffID, summary), refused, 'changed')
  truncateSync(file, 10)
  await t.rejects(readLayerRecord(file, diffID, summary), refused, 'cut')
  await t.rejects(readLayerRecord(`${file}s`, diffID, summary), { code: 'ERR_KOCI_IO' })
})
