import * as fs from 'node:fs'
import * as fc from 'fast-check'
import t from 'tap'
import { recordTree } from '../../../lib/bundle/record-tree.ts'
import { decodeStatIndex } from '../../../lib/bundle/stat-index.ts'
import { indexOf } from '../../support/record.ts'
import type { Digest } from '../../../lib/oci/digest.ts'
import { inTree } from '../../support/rootfs.ts'
import '../../support/seed.ts'

const owner = {
  manifest: `sha512:${'b'.repeat(128)}` as Digest,
  textSha256: Buffer.alloc(32, 5),
}

const root = t.testdir({ a: '1', d: { e: '2', f: { g: '' } }, l: t.fixture('symlink', 'a') })
fs.utimesSync(`${root}/a`, 1000, 1000)
const record = await inTree(root, tree => recordTree(tree))
const bytes = indexOf(record, owner)

await t.test('comes back as it was', async t => {
  const back = decodeStatIndex(bytes, owner)
  t.same([...(back?.entries() ?? [])], [...record.entries()])
  t.equal(back?.freshTime, record.freshTime)
  t.not(record.freshTime, 0n)
  t.notOk(back?.isRenewed)
})

await t.test('comes back from memory at any address', async t => {
  for (let shift = 1; shift < 9; shift++) {
    const moved = Buffer.alloc(bytes.length + shift).subarray(shift)
    bytes.copy(moved)
    t.same([...(decodeStatIndex(moved, owner)?.entries() ?? [])], [...record.entries()])
  }
})

await t.test('does not count', async t => {
  const cases: Array<[why: string, bytes: Buffer | undefined, owner: typeof owner]> = [
    ['missing', undefined, owner],
    ['empty', Buffer.alloc(0), owner],
    [
      'of another manifest',
      bytes,
      { ...owner, manifest: `sha512:${'c'.repeat(128)}` as Digest },
    ],
    [
      'of a manifest whose digest it starts with',
      bytes,
      { ...owner, manifest: `sha512:${'b'.repeat(127)}` as Digest },
    ],
    ['of another text', bytes, { ...owner, textSha256: Buffer.alloc(32, 6) }],
    ['longer', Buffer.concat([bytes, Buffer.alloc(8)]), owner],
    ['of another version', edited(4, 2), owner],
    [
      'of the other byte order',
      Buffer.concat([Buffer.from(bytes.subarray(0, 4)).reverse(), bytes.subarray(4)]),
      owner,
    ],
    ['with a huge count', edited(11, 0xff), owner],
  ]
  for (const [why, index, of] of cases) t.equal(decodeStatIndex(index, of), undefined, why)
})

await t.test('every truncation and every flipped bit is noticed', async t => {
  for (let length = 0; length < bytes.length; length += 7)
    t.equal(decodeStatIndex(Buffer.from(bytes.subarray(0, length)), owner), undefined)
  fc.assert(
    fc.property(fc.nat({ max: bytes.length * 8 - 1 }), bit => {
      const flipped = Buffer.from(bytes)
      flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7))
      return decodeStatIndex(flipped, owner) === undefined
    }),
    { numRuns: 500 },
  )
})

await t.test('forged rows, their sum right, send no walk in circles', async t => {
  for (const [column, row, value] of [
    ['end', 0, 0],
    ['end', 0, 99],
    ['end', 2, 2],
    ['end', 4, 8],
    ['nameEnd', 0, 0],
    ['nameEnd', 1, 1],
    ['nameEnd', 3, 9999],
    ['extra', 1, 9999],
  ] as const) {
    const forged = decodeStatIndex(Buffer.from(bytes), owner)
    if (!forged) return t.fail('the index was refused')
    forged.columns[column][row] = value
    t.equal(decodeStatIndex(indexOf(forged, owner), owner), undefined, `${column} ${row}`)
  }
  return
})

function edited(at: number, value: number): Buffer {
  const copy = Buffer.from(bytes)
  copy[at] = value
  return copy
}
