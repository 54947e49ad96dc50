// Which inflater it was must never show: same bytes, same refusals, however the data is cut and whatever is done to it.
import * as fc from 'fast-check'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { constants, gzipSync } from 'node:zlib'
import t from 'tap'
import { createDecompressor } from '../../../lib/layer/decompress.ts'
import { createInflater, type InflaterName } from '../../../lib/layer/inflater.ts'
import { bound } from '../../support/differential.ts'
import '../../support/seed.ts'

const missing = isThere('isal') ? false : 'needs libisal.so.2 (Debian: libisal2)'

function isThere(name: InflaterName): boolean {
  try {
    createInflater('here', name).close()
    return true
  } catch {
    return false
  }
}

/** What comes out, up to where it ends or is refused. */
function inflate(inflater: InflaterName, pieces: readonly Buffer[]): string {
  const chunks: Buffer[] = []
  const keep = (chunk: Buffer): void => {
    chunks.push(Buffer.from(chunk))
  }
  const decompressor = createDecompressor('gzip', keep, { inflater })
  try {
    for (const piece of pieces) decompressor.push(piece)
    decompressor.end()
    return Buffer.concat(chunks).toString('base64')
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  } finally {
    decompressor.close()
  }
}

function cut(data: Buffer, sizes: readonly number[]): Buffer[] {
  const pieces: Buffer[] = []
  let at = 0
  for (let turn = 0; at < data.length; turn++) {
    const size = sizes[turn % sizes.length] ?? data.length
    pieces.push(Buffer.from(data.subarray(at, at + size)))
    at += size
  }
  return pieces
}

const strategies = [
  constants.Z_DEFAULT_STRATEGY,
  constants.Z_FILTERED,
  constants.Z_HUFFMAN_ONLY,
  constants.Z_RLE,
  constants.Z_FIXED,
]
const body = fc.oneof(
  fc.uint8Array({ maxLength: 5000 }),
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 300 }), fc.integer({ min: 1, max: 3000 }))
    .map(([part, times]) => Buffer.concat(Array.from({ length: times }, () => part))),
)
const member = fc
  .tuple(body, fc.integer({ min: 0, max: 9 }), fc.constantFrom(...strategies))
  .map(([data, level, strategy]) => gzipSync(data, { level, strategy }))
const sizes = fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 5 })

await t.test('both inflate the same', { skip: missing }, async t => {
  const stream = fc.array(member, { minLength: 1, maxLength: 3 })
  fc.assert(
    fc.property(stream, sizes, (members, sizes) => {
      const pieces = cut(Buffer.concat(members), sizes)
      t.equal(inflate('isal', pieces), inflate('zlib', pieces))
    }),
    { numRuns: bound(200) },
  )
})

await t.test('both refuse the same', { skip: missing }, async t => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), {
    minLength: 1,
    maxLength: 4,
  })
  fc.assert(
    fc.property(member, damage, sizes, fc.nat({ max: 40 }), (whole, edits, sizes, lost) => {
      const data = Buffer.from(whole.subarray(0, Math.max(1, whole.length - lost)))
      for (const [at, byte] of edits) data[at % data.length] = byte
      const pieces = cut(data, sizes)
      t.equal(inflate('isal', pieces), inflate('zlib', pieces))
    }),
    { numRuns: bound(500) },
  )
})

await t.test('a library that is none is left alone', async t => {
  const directory = mkdtempSync(path.join(tmpdir(), 'koci-inflater-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  writeFileSync(path.join(directory, 'libisal.so.2'), 'no library')
  const script = `
    import { createInflater } from ${JSON.stringify(import.meta.resolve('../../../lib/layer/inflater.ts'))}
    createInflater('x').close()
    try { createInflater('x', 'isal') } catch (error) { console.log(error.code) }`
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: 60_000,
    env: { ...process.env, LD_LIBRARY_PATH: directory, NODE_OPTIONS: '' },
  })
  t.equal(run.stdout.trim(), 'ERR_KOCI_UNSUPPORTED_PLATFORM', run.stderr)
})
