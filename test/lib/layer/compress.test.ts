import * as fc from 'fast-check'
import { spawnSync } from 'node:child_process'
import { setImmediate } from 'node:timers/promises'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import t from 'tap'
import {
  createCompressor,
  type CompressedSink,
  type CompressorOptions,
} from '../../../lib/layer/compress.ts'
import { createDecompressor } from '../../../lib/layer/decompress.ts'
import type { Compression } from '../../../lib/oci/media-type.ts'
import '../../support/seed.ts'

const mebibyte = 1 << 20
const compressions = ['none', 'gzip', 'zstd'] as const

/** Text that compresses, noise that doesn't, and zeros. */
const sample = Buffer.concat([
  Buffer.alloc(1_500_000, 'a line of text that repeats itself, more or less\n'),
  Buffer.from(
    Uint32Array.from({ length: 300_000 }, (_, index) => (index * 2_654_435_761) | 0).buffer,
  ),
  Buffer.alloc(900_001),
])

async function compress(
  compression: Compression,
  data: Buffer,
  options: CompressorOptions & { sizes?: number[] } = {},
): Promise<Buffer> {
  const chunks: Buffer[] = []
  const compressor = createCompressor(
    compression,
    chunk => void chunks.push(Buffer.from(chunk)),
    options,
  )
  const { sizes = [data.length] } = options
  // The same memory for every chunk: a compressor must not keep what it was given.
  const memory = Buffer.alloc(Math.max(...sizes))
  for (let at = 0, turn = 0; at < data.length; turn++) {
    const length = data.copy(memory, 0, at, at + (sizes[turn % sizes.length] ?? 1))
    await compressor.write(memory.subarray(0, length))
    memory.fill(0xaa)
    at += length
  }
  await compressor.end()
  return Buffer.concat(chunks)
}

function decompress(compression: Compression, data: Buffer): Buffer {
  const chunks: Buffer[] = []
  const decompressor = createDecompressor(compression, chunk => chunks.push(Buffer.from(chunk)))
  try {
    decompressor.push(data)
    decompressor.end()
  } finally {
    decompressor.close()
  }
  return Buffer.concat(chunks)
}

await t.test('what was compressed comes back', async t => {
  for (const compression of compressions) {
    for (const size of [
      1,
      511,
      mebibyte - 1,
      mebibyte,
      mebibyte + 1,
      2 * mebibyte,
      sample.length,
    ]) {
      const data = sample.subarray(0, size)
      t.ok(decompress(compression, await compress(compression, data)).equals(data), `${size}`)
    }
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 5000 }), async bytes => {
        const data = Buffer.from(bytes)
        t.ok(decompress(compression, await compress(compression, data)).equals(data))
      }),
      { numRuns: 30 },
    )
  }
})

await t.test('the same bytes at any concurrency, and however the input is cut', async t => {
  for (const compression of compressions) {
    const expected = await compress(compression, sample)
    const variants: Array<CompressorOptions & { sizes?: number[] }> = [
      { concurrency: 1 },
      { concurrency: 2 },
      { concurrency: 8 },
      { sizes: [512, 131_072, 7] },
      { sizes: [mebibyte] },
      { sizes: [mebibyte + 1], concurrency: 3 },
      { sizes: [65_536], concurrency: 1 },
    ]
    for (const variant of variants)
      t.ok(
        expected.equals(await compress(compression, sample, variant)),
        `${compression} ${JSON.stringify(variant)}`,
      )
  }
})

await t.test('gzip is one member with a header that says nothing', async t => {
  const data = await compress('gzip', sample)
  t.equal(data.toString('hex', 0, 10), '1f8b08000000000000ff')
  t.ok(gunzipSync(data).equals(sample))
  t.equal(data.readUInt32LE(data.length - 4), sample.length)
  t.ok(data.length < sample.length / 2, 'it compresses')
})

await t.test('zstd is one frame with a checksum', async t => {
  const data = await compress('zstd', sample)
  t.equal(data.toString('hex', 0, 4), '28b52ffd')
  t.equal((data[4] ?? 0) & 4, 4, 'the checksum flag')
  t.ok(zstdDecompressSync(data).equals(sample), 'node:zlib reads one frame only')
})

await t.test('nothing is a valid input', async t => {
  const empty = Buffer.alloc(0)
  t.equal(
    (await compress('gzip', empty)).toString('hex'),
    '1f8b08000000000000ff03000000000000000000',
  )
  t.ok(zstdDecompressSync(await compress('zstd', empty)).equals(empty))
  t.equal((await compress('none', empty)).length, 0)
})

await t.test('other tools read it', async t => {
  const python = (module: string): string[] => [
    '-c',
    `import sys,${module} as m; sys.stdout.buffer.write(m.decompress(sys.stdin.buffer.read()))`,
  ]
  const peers: Array<[command: string, args: string[], compression: Compression]> = [
    ['gzip', ['-dc'], 'gzip'],
    ['pigz', ['-dc'], 'gzip'],
    ['python3', python('gzip'), 'gzip'],
    ['zstd', ['-dc'], 'zstd'],
  ]
  for (const [command, args, compression] of peers) {
    const missing = spawnSync(command, ['--version'], { timeout: 10_000 }).error !== undefined
    const skip = missing && `needs ${command}`
    await t.test(`${command} reads ${compression}`, { skip }, async t => {
      for (const data of [sample, Buffer.alloc(0)]) {
        const input = await compress(compression, data, { concurrency: 2 })
        const run = spawnSync(command, args, { input, timeout: 30_000, maxBuffer: 1 << 26 })
        t.equal(run.status, 0, String(run.stderr))
        t.ok(run.stdout.equals(data))
      }
    })
  }
})

await t.test('levels', async t => {
  for (const [compression, low, high] of [
    ['gzip', 1, 9],
    ['zstd', 1, 19],
  ] as const) {
    const data = Buffer.from(Array.from({ length: 150_000 }, (_, index) => index ** 2).join())
    const [fast, small] = await Promise.all([
      compress(compression, data, { level: low }),
      compress(compression, data, { level: high }),
    ])
    t.ok(decompress(compression, fast).equals(data))
    t.ok(decompress(compression, small).equals(data))
    t.ok(small.length < fast.length, compression)
  }
  t.ok(decompress('gzip', await compress('gzip', sample, { level: 0 })).equals(sample))
})

await t.test('options that make no sense are refused', async t => {
  const bad: Array<[Compression, CompressorOptions]> = [
    ['gzip', { level: 10 }],
    ['gzip', { level: -1 }],
    ['zstd', { level: 0 }],
    ['zstd', { level: 23 }],
    ['gzip', { level: 1.5 }],
    ['gzip', { concurrency: 0 }],
    ['none', { concurrency: Number.NaN }],
  ]
  for (const [compression, options] of bad)
    t.throws(() => createCompressor(compression, () => {}, options), {
      code: 'ERR_KOCI_INVALID_OPTION',
    })
})

await t.test('the sink is called once at a time, and holds the input up', async t => {
  for (const compression of compressions) {
    let busy = false
    let taken = 0
    let given = 0
    let most = 0
    const compressor = createCompressor(
      compression,
      async chunk => {
        t.notOk(busy)
        busy = true
        await setImmediate()
        taken += chunk.length
        busy = false
      },
      { concurrency: 2, level: 1 },
    )
    const noise = sample.subarray(1_500_000, 2_500_000)
    for (let count = 0; count < 20; count++) {
      await compressor.write(noise)
      given += noise.length
      most = Math.max(most, given - taken)
    }
    await compressor.end()
    t.ok(most < 6 * mebibyte, `${compression}: at most ${most} bytes are under way`)
  }
})

await t.test(
  "the sink's error is thrown by the call that meets it, and by every later one",
  async t => {
    const error = new Error('no space')
    for (const compression of ['gzip', 'zstd'] as const)
      for (const fails of [1, 2, 3]) {
        let calls = 0
        const sink: CompressedSink = async () => {
          await setImmediate()
          if (++calls === fails) throw error
        }
        const compressor = createCompressor(compression, sink, { concurrency: 2 })
        const work = async (): Promise<void> => {
          for (let count = 0; count < 4; count++) await compressor.write(sample)
          await compressor.end()
        }
        await t.rejects(work(), error)
        await t.rejects(compressor.write(sample), error)
        await t.rejects(compressor.end(), error)
        t.equal(calls, fails)
      }
    const none = createCompressor('none', () => {
      throw error
    })
    await t.rejects(none.write(sample), error)
  },
)
