import * as fc from 'fast-check'
import { spawnSync } from 'node:child_process'
import {
  constants,
  crc32,
  deflateRawSync,
  gunzipSync,
  gzipSync,
  zstdCompressSync,
  zstdDecompressSync,
} from 'node:zlib'
import t from 'tap'
import { createDecompressor } from '../../../lib/layer/decompress.ts'
import type { Compression } from '../../../lib/oci/media-type.ts'
import '../../support/seed.ts'

interface Result {
  bytes: Buffer
  largest: number
  error: (Error & { code?: string }) | undefined
}

function decompress(compression: Compression, data: Buffer, size = data.length): Result {
  const chunks: Buffer[] = []
  let largest = 0
  const decompressor = createDecompressor(
    compression,
    chunk => {
      largest = Math.max(largest, chunk.length)
      chunks.push(Buffer.from(chunk))
    },
    { subject: 'layer' },
  )
  let error: unknown
  try {
    for (let at = 0; at < data.length; at += size)
      decompressor.push(Buffer.from(data.subarray(at, at + size)))
    decompressor.end()
  } catch (thrown) {
    error = thrown
  } finally {
    decompressor.close()
  }
  return { bytes: Buffer.concat(chunks), largest, error: error as Result['error'] }
}

/** A gzip member with every optional header field. */
function member(
  body: Buffer,
  fields: { extra?: Buffer; name?: string; comment?: string },
): Buffer {
  const { extra, name, comment } = fields
  const flags =
    2 | (extra ? 4 : 0) | (name === undefined ? 0 : 8) | (comment === undefined ? 0 : 16)
  const length = Buffer.alloc(2)
  length.writeUInt16LE(extra?.length ?? 0)
  const header = Buffer.concat([
    Buffer.from([0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255]),
    ...(extra ? [length, extra] : []),
    ...(name === undefined ? [] : [Buffer.from(`${name}\0`)]),
    ...(comment === undefined ? [] : [Buffer.from(`${comment}\0`)]),
  ])
  const headerSum = Buffer.alloc(2)
  headerSum.writeUInt16LE(crc32(header) & 0xffff)
  const trailer = Buffer.alloc(8)
  trailer.writeUInt32LE(crc32(body), 0)
  trailer.writeUInt32LE(body.length, 4)
  return Buffer.concat([header, headerSum, deflateRawSync(body), trailer])
}

const text = Buffer.from('the quick brown fox jumps over the lazy dog, '.repeat(20))
const noise = Buffer.from(Array.from({ length: 3000 }, (_, index) => (index * 7919) % 251))
const checked = { params: { [constants.ZSTD_c_checksumFlag]: 1 } }
const skippable = (size: number): Buffer => {
  const frame = Buffer.alloc(8 + size, 'x')
  frame.writeUInt32LE(0x184d2a50, 0)
  frame.writeUInt32LE(size, 4)
  return frame
}
const flip = (data: Buffer, at: number): Buffer => {
  const copy = Buffer.from(data)
  copy[at < 0 ? copy.length + at : at] = (copy.at(at) ?? 0) ^ 1
  return copy
}

await t.test('this Node has the zlib and the zstd that koci calls', async t => {
  for (const compression of ['gzip', 'zstd'] as const)
    createDecompressor(compression, () => {}).close()
  t.pass()
})

await t.test('what was compressed comes back, however it is cut', async t => {
  const pack = { gzip: gzipSync, zstd: zstdCompressSync, none: (data: Buffer) => data }
  for (const compression of ['gzip', 'zstd', 'none'] as const) {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 5000 }),
        fc.integer({ min: 1, max: 700 }),
        (bytes, size) => {
          const result = decompress(compression, pack[compression](Buffer.from(bytes)), size)
          t.equal(result.error, undefined)
          t.ok(result.bytes.equals(bytes))
        },
      ),
      { numRuns: 60 },
    )
  }
})

await t.test('output comes in bounded pieces', async t => {
  const large = Buffer.alloc(5 << 20, text)
  for (const [compression, data] of [
    ['gzip', gzipSync(large)],
    ['zstd', zstdCompressSync(large)],
  ] as const) {
    const result = decompress(compression, data)
    t.equal(result.error, undefined)
    t.ok(result.bytes.equals(large))
    t.ok(result.largest <= 256 << 10)
  }
})

await t.test('Z01 data cut at any place is refused', async t => {
  const cases: Array<[Compression, Buffer]> = [
    ['gzip', gzipSync(text)],
    ['gzip', member(text, { extra: Buffer.from('ex'), name: 'n', comment: 'c' })],
    ['zstd', zstdCompressSync(text, checked)],
    ['zstd', zstdCompressSync(noise)],
    ['zstd', Buffer.concat([skippable(5)])],
  ]
  for (const [compression, data] of cases) {
    for (let length = 0; length < data.length; length++) {
      const { error } = decompress(compression, data.subarray(0, length), 7)
      if (error?.code !== 'ERR_KOCI_BAD_COMPRESSION')
        t.fail(`${compression} of ${length} bytes`)
    }
    t.equal(decompress(compression, data, 7).error, undefined)
  }
  t.match(decompress('gzip', gzipSync(text).subarray(0, 40)).error?.message, /truncated/)
  t.match(decompress('gzip', Buffer.alloc(0)).error?.message, /empty/)
  t.match(decompress('zstd', Buffer.alloc(0)).error?.message, /empty/)
})

await t.test('Z02 a wrong checksum or length is refused', async t => {
  const gzip = gzipSync(text)
  const zstd = zstdCompressSync(text, checked)
  t.match(decompress('gzip', flip(gzip, -8)).error, { code: 'ERR_KOCI_BAD_COMPRESSION' }, 'CRC')
  t.match(
    decompress('gzip', flip(gzip, -1)).error,
    { code: 'ERR_KOCI_BAD_COMPRESSION' },
    'ISIZE',
  )
  t.match(decompress('zstd', flip(zstd, -1)).error, { code: 'ERR_KOCI_BAD_COMPRESSION' }, 'xxh')
  t.match(decompress('zstd', flip(zstd, -1)).error?.message, /checksum/)
})

await t.test('a flipped bit never goes by', async t => {
  for (const [compression, data, plain] of [
    ['gzip', gzipSync(text), text],
    ['zstd', zstdCompressSync(text, checked), text],
  ] as const)
    for (let at = 0; at < data.length; at++) {
      const { error, bytes } = decompress(compression, flip(data, at))
      if (!error && !bytes.equals(plain)) t.fail(`${compression}: byte ${at}`)
    }
  t.pass()
})

await t.test('Z03 gzip members follow each other, however they are cut', async t => {
  const data = Buffer.concat([gzipSync(text), gzipSync(Buffer.alloc(0)), gzipSync(noise)])
  const plain = Buffer.concat([text, noise])
  for (const size of [1, 2, 3, 17, 64, 100_000]) {
    const result = decompress('gzip', data, size)
    t.equal(result.error, undefined)
    t.ok(result.bytes.equals(plain), `pieces of ${size}`)
  }
})

await t.test('Z04 gzip may end in zeros, and in nothing else', async t => {
  const gzip = gzipSync(text)
  for (const size of [1, 100_000]) {
    const zeros = decompress('gzip', Buffer.concat([gzip, Buffer.alloc(1000)]), size)
    t.equal(zeros.error, undefined)
    t.ok(zeros.bytes.equals(text))
    for (const [name, trailer] of [
      ['junk', Buffer.from('junk')],
      ['junk after zeros', Buffer.from('\0\0\0junk')],
      ['a member after zeros', Buffer.concat([Buffer.alloc(512), gzip])],
      ['half a magic number', Buffer.from([0x1f])],
      ['half a header', gzip.subarray(0, 9)],
      ['something that starts like a member', Buffer.from('1f8b07', 'hex')],
    ] as const) {
      const { error } = decompress('gzip', Buffer.concat([gzip, trailer]), size)
      t.equal(error?.code, 'ERR_KOCI_BAD_COMPRESSION', `${name}, in pieces of ${size}`)
    }
  }
  t.match(decompress('gzip', Buffer.concat([gzip, Buffer.from('x')])).error?.message, /follows/)
})

await t.test('Z05 gzip headers with every field', async t => {
  const data = Buffer.concat([
    member(text, { extra: Buffer.alloc(65_535, 'e') }),
    member(text, { name: 'n'.repeat(65_536), comment: 'c'.repeat(1000) }),
    member(text, { extra: Buffer.alloc(0), name: '', comment: '' }),
  ])
  for (const size of [1, 1000, data.length]) {
    const result = decompress('gzip', data, size)
    t.equal(result.error, undefined)
    t.ok(result.bytes.equals(Buffer.concat([text, text, text])))
  }
  const broken = member(text, { name: 'name' })
  t.equal(decompress('gzip', flip(broken, 11)).error?.code, 'ERR_KOCI_BAD_COMPRESSION', 'FHCRC')
  for (const bit of [0x20, 0x40, 0x80]) {
    const reserved = gzipSync(text)
    reserved[3] = bit
    t.equal(decompress('gzip', reserved).error?.code, 'ERR_KOCI_BAD_COMPRESSION', 'reserved')
  }
})

await t.test('Z06 endless empty members and frames are refused', async t => {
  const cases: Array<[Compression, Buffer]> = [
    ['gzip', gzipSync(Buffer.alloc(0))],
    ['zstd', zstdCompressSync(Buffer.alloc(0))],
    ['zstd', skippable(0)],
  ]
  for (const [compression, empty] of cases) {
    const many = Buffer.alloc(empty.length * 100_001, empty)
    t.equal(decompress(compression, many).error?.code, 'ERR_KOCI_LIMIT_EXCEEDED')
    t.equal(decompress(compression, many.subarray(empty.length)).error, undefined)
  }
})

await t.test('Z07 a bomb takes time, not memory', async t => {
  const script = `
    import { createDecompressor } from ${JSON.stringify(import.meta.resolve('../../../lib/layer/decompress.ts'))}
    import { readFileSync } from 'node:fs'
    const data = readFileSync(0)
    let bytes = 0
    const decompressor = createDecompressor(process.argv[1], chunk => { bytes += chunk.length })
    const before = process.resourceUsage().maxRSS
    decompressor.push(data)
    decompressor.end()
    decompressor.close()
    console.log(JSON.stringify({ bytes, grown: process.resourceUsage().maxRSS - before }))
  `
  const size = 1 << 30
  const gzip = gzipSync(Buffer.alloc(size))
  const frame = zstdCompressSync(Buffer.alloc(1 << 20))
  const zstd = Buffer.alloc(frame.length * 1024, frame)
  for (const [compression, data] of [
    ['gzip', gzip],
    ['zstd', zstd],
  ] as const) {
    t.ok(data.length < 2 << 20, `${compression} bomb of ${data.length} bytes`)
    const { bytes, grown } = runInProcess(script, compression, data)
    t.equal(bytes, size)
    t.ok(grown < 16 << 10, `${compression} grew by ${grown} KiB`)
  }
})

await t.test(
  'Z08 bytes of another kind are refused, and the error says what they look like',
  async t => {
    const tar = Buffer.alloc(1024)
    tar.write('ustar', 257)
    const cases: Array<[Compression, Buffer, RegExp]> = [
      ['gzip', zstdCompressSync(text), /not gzip - it looks like zstd/],
      ['gzip', Buffer.from('fd377a585a0000', 'hex'), /it looks like xz/],
      ['gzip', Buffer.from('BZh91AY'), /it looks like bzip2/],
      ['gzip', Buffer.from('04224d180000', 'hex'), /it looks like lz4/],
      ['gzip', tar, /it looks like an uncompressed tar archive/],
      ['gzip', Buffer.from('plain'), /it is not gzip$/],
      ['zstd', gzipSync(text), /not zstd - it looks like gzip/],
      ['zstd', tar, /it looks like an uncompressed tar archive/],
    ]
    for (const [compression, data, message] of cases)
      t.match(decompress(compression, data).error, {
        code: 'ERR_KOCI_BAD_COMPRESSION',
        message,
      })
  },
)

await t.test('Z09 zstd frames', async t => {
  const frame = zstdCompressSync(text, checked)
  const good: Array<[string, Buffer, Buffer]> = [
    ['a skippable frame first', Buffer.concat([skippable(10), frame]), text],
    ['a skippable frame last', Buffer.concat([frame, skippable(10)]), text],
    [
      'one in the middle',
      Buffer.concat([frame, skippable(0), frame]),
      Buffer.concat([text, text]),
    ],
    [
      'many frames',
      Buffer.concat([frame, zstdCompressSync(noise)]),
      Buffer.concat([text, noise]),
    ],
    ['only a skippable frame', skippable(3), Buffer.alloc(0)],
  ]
  for (const [name, data, plain] of good)
    for (const size of [1, 5, data.length]) {
      const result = decompress('zstd', data, size)
      t.equal(result.error, undefined, name)
      t.ok(result.bytes.equals(plain), `${name}, in pieces of ${size}`)
    }
  // A descriptor that announces a dictionary of number 5; the rest is an empty frame.
  const withDictionary = Buffer.from('28b52ffd018805010000', 'hex')
  const lying = Buffer.from(zstdCompressSync(text, { pledgedSrcSize: text.length }))
  const bad: Array<[string, Buffer]> = [
    ['junk behind', Buffer.concat([frame, Buffer.from('junk')])],
    ['zeros behind', Buffer.concat([frame, Buffer.alloc(512)])],
    ['gzip behind', Buffer.concat([frame, gzipSync(text)])],
    ['a frame that says it holds more than it does', flip(lying, 5)],
    ['a frame that needs a dictionary', withDictionary],
  ]
  for (const [name, data] of bad)
    for (const size of [1, data.length])
      t.equal(
        decompress('zstd', data, size).error?.code,
        'ERR_KOCI_BAD_COMPRESSION',
        `${name}, in pieces of ${size}`,
      )
})

await t.test('Z09 a zstd window beyond 128 MiB is refused, one of 128 MiB is not', async t => {
  const window = (exponent: number): Buffer =>
    // Magic, a descriptor without size or checksum, the window, and an empty raw block, the last.
    Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, (exponent - 10) << 3, 0x01, 0x00, 0x00])
  t.equal(decompress('zstd', window(27)).error, undefined)
  for (const exponent of [28, 31])
    t.equal(decompress('zstd', window(exponent)).error?.code, 'ERR_KOCI_LIMIT_EXCEEDED')
})

await t.test(
  'after an error every call throws the same, and closing twice does no harm',
  async t => {
    for (const compression of ['gzip', 'zstd'] as const) {
      const decompressor = createDecompressor(compression, () => {}, { subject: 'x' })
      const thrown = (work: () => void): unknown => {
        try {
          work()
        } catch (error) {
          return error
        }
        return undefined
      }
      const first = thrown(() => decompressor.push(Buffer.from('plainly wrong')))
      t.match(first, { code: 'ERR_KOCI_BAD_COMPRESSION', message: /^x: malformed/ })
      t.equal(
        thrown(() => decompressor.push(gzipSync(text))),
        first,
      )
      t.equal(
        thrown(() => decompressor.end()),
        first,
      )
      decompressor.close()
      decompressor.close()
      t.equal(
        thrown(() => decompressor.push(gzipSync(text))),
        first,
      )
    }
  },
)

await t.test('a closed decompressor is never used again', async t => {
  for (const compression of ['gzip', 'zstd'] as const) {
    const decompressor = createDecompressor(compression, () => {})
    decompressor.close()
    t.throws(() => decompressor.push(gzipSync(text)), { code: 'ERR_KOCI_CONSUMED' })
  }
  const large = Buffer.alloc(4 << 20, text)
  for (const [compression, data] of [
    ['gzip', gzipSync(large)],
    ['zstd', zstdCompressSync(large)],
  ] as const) {
    let calls = 0
    const decompressor = createDecompressor(compression, () => {
      calls++
      decompressor.close()
    })
    t.throws(() => decompressor.push(data), { code: 'ERR_KOCI_CONSUMED' }, 'closed by its sink')
    t.equal(calls, 1)
  }
})

await t.test("an error of the sink's stops it", async t => {
  const error = new Error('no space')
  for (const [compression, data] of [
    ['gzip', gzipSync(text)],
    ['zstd', zstdCompressSync(text)],
  ] as const) {
    const decompressor = createDecompressor(compression, () => {
      throw error
    })
    t.throws(() => decompressor.push(data), error)
    t.throws(() => decompressor.end(), error)
    decompressor.close()
  }
})

await t.test('pieces may lie in shared memory', async t => {
  const data = gzipSync(noise)
  const shared = Buffer.from(new SharedArrayBuffer(data.length))
  data.copy(shared)
  const chunks: Buffer[] = []
  const decompressor = createDecompressor('gzip', chunk => chunks.push(Buffer.from(chunk)))
  decompressor.push(shared)
  decompressor.end()
  decompressor.close()
  t.ok(Buffer.concat(chunks).equals(gunzipSync(data)))
})

await t.test('it agrees with node:zlib on damaged data', async t => {
  const agree = (compression: 'gzip' | 'zstd', data: Buffer): boolean => {
    const ours = decompress(compression, data, 50)
    if (ours.error) return true
    const theirs = compression === 'gzip' ? gunzipSync(data) : zstdDecompressSync(data)
    return ours.bytes.equals(theirs)
  }
  const edits = fc.array(fc.tuple(fc.nat({ max: 2000 }), fc.nat({ max: 255 })), {
    maxLength: 4,
  })
  const gzip = Buffer.concat([gzipSync(noise), gzipSync(text)])
  // One frame: node:zlib reads no further.
  const zstd = zstdCompressSync(Buffer.concat([noise, text]), checked)
  for (const [compression, data] of [
    ['gzip', gzip],
    ['zstd', zstd],
  ] as const)
    fc.assert(
      fc.property(edits, list => {
        const copy = Buffer.from(data)
        for (const [at, byte] of list) copy[at % copy.length] = byte
        return agree(compression, copy)
      }),
      { numRuns: 300 },
    )
  t.pass()
})

function runInProcess(
  script: string,
  argument: string,
  input: Buffer,
): { bytes: number; grown: number } {
  const run = spawnSync(process.execPath, ['--input-type=module', '-e', script, argument], {
    input,
    timeout: 60_000,
    env: { ...process.env, NODE_OPTIONS: '' },
  })
  if (run.status !== 0) throw new Error(String(run.stderr))
  return JSON.parse(String(run.stdout)) as { bytes: number; grown: number }
}
