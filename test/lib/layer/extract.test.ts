import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { gzipSync } from 'node:zlib'
import { Control } from '../../../lib/layer/control.ts'
import { extractBlob, type ExtractJob } from '../../../lib/layer/extract.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import { openDescriptors } from '../../support/descriptors.ts'
import { makeJob } from '../../support/extract.ts'
import { tarBytes } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'

const rootless = process.getuid?.() !== 0
const members = [
  { name: 'f', body: 'content', mtime: 1 },
  { name: 'big', body: 'b'.repeat(3 * 2 ** 20), mtime: 1 },
]
const tar = tarBytes(members)

function place(t: { teardown(run: () => void): void }): { dir: string; target: string } {
  const dir = mkdtempSync(join(tmpdir(), 'koci-extract-'))
  t.teardown(() => {
    rmSync(dir, { recursive: true })
  })
  mkdirSync(join(dir, 'rootfs'))
  return { dir, target: join(dir, 'rootfs') }
}

function job(
  place: { dir: string; target: string },
  blob: Buffer,
  rest: Partial<ExtractJob> = {},
): ExtractJob {
  const compression = blob[0] === 0x1f ? 'gzip' : 'none'
  const plain = makeJob(join(place.dir, 'blob'), blob, place.target)
  return {
    ...plain,
    blob: { ...plain.blob, compression },
    diffID: digestOf(tar),
    rootless,
    ...rest,
  }
}

const extract = (job: ExtractJob, control = new Control()) => extractBlob(job, control)

await t.test('plain, gzip, and a part of a larger file', async t => {
  const gzip = gzipSync(tar)
  const expected = describeTree(extractInto(tar), { root: false })
  t.strictSame(describeTree(extractInto(gzip), { root: false }), expected)
  const where = place(t)
  const whole = job(where, Buffer.concat([Buffer.alloc(1000, 1), tar, Buffer.alloc(10, 2)]))
  extract({
    ...whole,
    blob: { ...whole.blob, offset: 1000, size: tar.length, digest: digestOf(tar) },
  })
  t.strictSame(describeTree(where.target, { root: false }), expected)

  function extractInto(blob: Buffer): string {
    const where = place(t)
    const result = extract(job(where, blob))
    t.match(result, { entries: 2, bytes: tar.length, fileBytes: 7 + 3 * 2 ** 20, warnings: [] })
    return where.target
  }
})

await t.test('sha512 for either digest', async t => {
  for (const [blobAlgorithm, diffAlgorithm] of [
    ['sha512', 'sha512'],
    ['sha512', 'sha256'],
    ['sha256', 'sha512'],
  ] as const) {
    const plain = job(place(t), tar)
    const good = {
      ...plain,
      blob: { ...plain.blob, digest: digestOf(tar, blobAlgorithm) },
      diffID: digestOf(tar, diffAlgorithm),
    }
    t.equal(extract(good).entries, 2)
    t.throws(() => extract({ ...good, diffID: digestOf(Buffer.from('x'), diffAlgorithm) }), {
      code: 'ERR_KOCI_DIFF_ID_MISMATCH',
    })
  }
})

await t.test('bytes that are not the promised ones', async t => {
  const other = digestOf(Buffer.from('other'))
  const gzip = gzipSync(tar)
  const flipped = Buffer.from(gzip)
  flipped[gzip.length >> 1] = (flipped[gzip.length >> 1] ?? 0) ^ 1
  const malformed = Buffer.concat([Buffer.alloc(512, 'x'), tar])
  const escaping = tarBytes([{ name: '../x' }])
  const good = (blob: Buffer) => ({ digest: digestOf(blob) })
  const cases: Array<
    [
      name: string,
      blob: Buffer,
      change: { digest?: string; size?: number; diffID?: string },
      code: string,
    ]
  > = [
    ['a wrong digest', tar, { digest: other }, 'DIGEST_MISMATCH'],
    ['a wrong digest, compressed', gzip, { digest: other }, 'DIGEST_MISMATCH'],
    ['a wrong diffID', tar, { diffID: other }, 'DIFF_ID_MISMATCH'],
    ['a wrong diffID, compressed', gzip, { diffID: other }, 'DIFF_ID_MISMATCH'],
    ['a blob that is too short', tar, { size: tar.length + 1 }, 'SIZE_MISMATCH'],
    [
      'corrupt compression with a wrong digest',
      flipped,
      { digest: digestOf(gzip) },
      'DIGEST_MISMATCH',
    ],
    ['corrupt compression that was promised', flipped, good(flipped), 'BAD_COMPRESSION'],
    [
      'a malformed archive with a wrong digest',
      malformed,
      { digest: digestOf(tar) },
      'DIGEST_MISMATCH',
    ],
    ['a malformed archive that was promised', malformed, good(malformed), 'BAD_ARCHIVE'],
    ['an escape with a wrong digest', escaping, { digest: other }, 'DIGEST_MISMATCH'],
    ['an escape that was promised', escaping, good(escaping), 'PATH_ESCAPE'],
    [
      'gzip that is cut off',
      gzip.subarray(0, -9),
      good(gzip.subarray(0, -9)),
      'BAD_COMPRESSION',
    ],
    ['plain where gzip was promised', tar, {}, 'BAD_COMPRESSION'],
  ]
  for (const [name, blob, change, code] of cases) {
    const plain = job(place(t), blob)
    const compression = name.startsWith('plain') ? 'gzip' : plain.blob.compression
    const { diffID = plain.diffID, ...rest } = change
    const changed = {
      ...plain,
      diffID,
      blob: { ...plain.blob, compression, ...rest },
    } as ExtractJob
    t.throws(() => extract(changed), { code: `ERR_KOCI_${code}` }, name)
  }
})

await t.test('bytes after the end of the archive count for the diffID', async t => {
  const trailing = Buffer.concat([tar, Buffer.alloc(700, 'x')])
  t.throws(() => extract(job(place(t), trailing)), { code: 'ERR_KOCI_DIFF_ID_MISMATCH' })
  t.equal(
    extract(job(place(t), trailing, { diffID: digestOf(trailing) })).bytes,
    trailing.length,
  )
})

await t.test('limits', async t => {
  const zeros = gzipSync(tarBytes([{ name: 'z', body: Buffer.alloc(70 * 2 ** 20) }]))
  const cases: Array<[Buffer, ExtractJob['limits'] & object]> = [
    [tar, { maxBytes: 2 ** 20 }],
    [tar, { maxEntries: 1 }],
    [zeros, { maxRatio: 100 }],
  ]
  for (const [blob, limits] of cases)
    t.throws(() => extract(job(place(t), blob, { limits })), {
      code: 'ERR_KOCI_LIMIT_EXCEEDED',
    })
  const generous = { maxBytes: tar.length, maxEntries: 2, maxRatio: 1, maxDepth: 1 }
  t.equal(
    extract(job(place(t), gzipSync(tar), { limits: generous })).entries,
    2,
    'small layers may be very compressible',
  )
})

await t.test('what is no regular file is no blob, and never waited for', async t => {
  const where = place(t)
  spawnSync('mkfifo', [join(where.dir, 'fifo')])
  const plain = job(where, tar)
  for (const [path, code] of [
    ['fifo', 'INVALID_LAYOUT'],
    ['rootfs', 'INVALID_LAYOUT'],
    ['none', 'IO'],
  ] as const)
    t.throws(
      () => extract({ ...plain, blob: { ...plain.blob, path: join(where.dir, path) } }),
      { code: `ERR_KOCI_${code}` },
    )
})

await t.test('the target must be a directory and no symlink', async t => {
  const where = place(t)
  symlinkSync('rootfs', join(where.dir, 'link'))
  writeFileSync(join(where.dir, 'file'), '')
  for (const name of ['link', 'file', 'none'])
    t.throws(() => extract(job(where, tar, { target: join(where.dir, name) })), {
      code: 'ERR_KOCI_IO',
    })
})

await t.test('an abort stops it; descriptors are closed after every end', async t => {
  const before = openDescriptors()
  const control = new Control()
  control.abort()
  t.throws(() => extract(job(place(t), tar), control), { code: 'ERR_KOCI_ABORTED' })
  t.throws(() => extract(job(place(t), tar, { diffID: digestOf(Buffer.from('x')) })))
  t.throws(() =>
    extract(
      job(
        place(t),
        tarBytes(
          [
            { name: 'd/f', body: 'x' },
            { name: 'cut', body: 'x'.repeat(5000), unpadded: true },
          ],
          { end: false },
        ).subarray(0, -1000),
      ),
    ),
  )
  extract(job(place(t), tar))
  t.equal(openDescriptors(), before)
})

await t.test('progress is counted', async t => {
  const control = new Control()
  const gzip = gzipSync(tar)
  extract(job(place(t), gzip), control)
  const seen = new Control(control.memory)
  t.match(
    { read: seen.read, bytes: seen.bytes, entries: seen.entries, fileBytes: seen.fileBytes },
    { read: gzip.length, bytes: tar.length, entries: 2, fileBytes: 7 + 3 * 2 ** 20 },
  )
})
