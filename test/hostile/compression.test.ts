// Z: compressed layers that are cut, wrong, endless, of another kind or of many parts; through the whole unpack.
// How the decompressors take every way of cutting is in test/lib/layer/decompress.test.ts, what becomes of a worker
// that dies or hangs (Z10) in test/lib/layer/pool.test.ts.
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { constants, crc32, deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { Control } from '../../lib/layer/control.ts'
import { extractBlob } from '../../lib/layer/extract.ts'
import { digestOf } from '../../lib/oci/digest.ts'
import type { Compression } from '../../lib/oci/media-type.ts'
import { hostile, isRoot, type HostileCase } from '../support/hostile.ts'
import { makeImage } from '../support/image.ts'
import { makeJob } from '../support/extract.ts'
import { makeMemoryDir } from '../support/memory-dir.ts'
import { file } from '../support/members.ts'
import { tarBytes } from '../support/tar-builder.ts'

// far more than it takes, but tests run beside each other
t.setTimeout(900_000)

const members = [file('d/a', 'x'.repeat(60)), file('b', 'y')]
const tree = ['b file y', 'd dir', `d/a file ${'x'.repeat(60)}`]
const zeros = Buffer.alloc(512)
const mebi = 2 ** 20

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
const zstd = (data: Buffer): Buffer =>
  zstdCompressSync(data, {
    params: { [constants.ZSTD_c_checksumFlag]: 1 },
    pledgedSrcSize: data.length,
  })
/** As two parts, each compressed for itself, and something before, between and behind. */
const inParts =
  (pack: (data: Buffer) => Buffer, between: Buffer = Buffer.alloc(0)) =>
  (tar: Buffer): Buffer =>
    Buffer.concat([
      between,
      pack(tar.subarray(0, 700)),
      between,
      pack(tar.subarray(700)),
      between,
    ])

/** A gzip member whose header has everything that a header can have. */
function fullMember(data: Buffer): Buffer {
  const header = Buffer.concat([
    Buffer.from([0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 0, 0, 0, 0, 0, 255]),
    Buffer.from([0xff, 0xff]),
    Buffer.alloc(65_535, 'e'),
    Buffer.from(`${'n'.repeat(65_536)}\0a comment\0`),
  ])
  const sum = Buffer.alloc(2)
  sum.writeUInt16LE(crc32(header) & 0xffff)
  const trailer = Buffer.alloc(8)
  trailer.writeUInt32LE(crc32(data), 0)
  trailer.writeUInt32LE(data.length, 4)
  return Buffer.concat([header, sum, deflateRawSync(data), trailer])
}

/** zstd blocks that say "this byte, 128 KiB times", as many as are asked for. */
function runLengthBomb(blocks: number): Buffer {
  const length = 128 * 1024
  const head = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58])
  const block = (last: boolean): Buffer => {
    const bytes = Buffer.alloc(4)
    bytes.writeUIntLE(length * 8 + 2 + Number(last), 0, 3)
    return bytes
  }
  return Buffer.concat([
    head,
    ...Array.from({ length: blocks - 1 }, () => block(false)),
    block(true),
  ])
}

type Encode = (tar: Buffer) => Buffer
const good: Array<[id: string, what: string, compression: Compression, encode: Encode]> = [
  ['Z03', 'gzip members behind each other', 'gzip', inParts(gzipSync)],
  ['Z03', 'empty gzip members among them', 'gzip', inParts(gzipSync, gzipSync(''))],
  ['Z04', 'gzip, then zeros', 'gzip', tar => Buffer.concat([gzipSync(tar), zeros, zeros])],
  ['Z05', 'a gzip header with every field, of 128 KiB', 'gzip', fullMember],
  ['Z09', 'zstd frames behind each other', 'zstd', inParts(zstd)],
  [
    'Z09',
    'skippable zstd frames before, between and behind',
    'zstd',
    inParts(zstd, skippable(70_000)),
  ],
]
for (const [id, what, compression, encode] of good)
  await hostile(t, { id, what, layers: [members], image: { compression, encode }, tree })

type Bad = [
  id: string,
  what: string,
  compression: Compression,
  encode: Encode,
  says: string | RegExp,
]
const bad: Bad[] = [
  ['Z01', 'gzip that is cut', 'gzip', tar => gzipSync(tar).subarray(0, -9), 'truncated'],
  [
    'Z01',
    'gzip without its trailer',
    'gzip',
    tar => gzipSync(tar).subarray(0, -8),
    'truncated',
  ],
  ['Z01', 'zstd that is cut', 'zstd', tar => zstd(tar).subarray(0, -1), 'truncated'],
  ['Z01', 'gzip of no bytes', 'gzip', () => Buffer.alloc(0), 'empty'],
  ['Z01', 'zstd of no bytes', 'zstd', () => Buffer.alloc(0), 'empty'],
  ['Z02', 'a wrong CRC', 'gzip', tar => flip(gzipSync(tar), -8), 'corrupt'],
  ['Z02', 'a wrong length', 'gzip', tar => flip(gzipSync(tar), -4), 'corrupt'],
  ['Z02', 'a wrong zstd checksum', 'zstd', tar => flip(zstd(tar), -1), 'checksum'],
  [
    'Z04',
    'gzip, then text',
    'gzip',
    tar => Buffer.concat([gzipSync(tar), Buffer.from('junk')]),
    'follows',
  ],
  [
    'Z04',
    'gzip, zeros, then text',
    'gzip',
    tar => Buffer.concat([gzipSync(tar), zeros, Buffer.from('x')]),
    'follows',
  ],
  [
    'Z04',
    'gzip, zeros, then gzip',
    'gzip',
    tar => Buffer.concat([gzipSync(tar), zeros, gzipSync(tar)]),
    'follows',
  ],
  [
    'Z05',
    'a wrong checksum of a gzip header',
    'gzip',
    tar => flip(fullMember(tar), 20),
    'corrupt',
  ],
  ['Z08', 'zstd that is called gzip', 'gzip', zstd, 'it looks like zstd'],
  ['Z08', 'a tar that is called gzip', 'gzip', tar => tar, 'it looks like an uncompressed tar'],
  ['Z08', 'gzip that is called zstd', 'zstd', tar => gzipSync(tar), 'it looks like gzip'],
  ['Z08', 'a tar that is called zstd', 'zstd', tar => tar, 'it looks like an uncompressed tar'],
  [
    'Z09',
    'zstd, then text',
    'zstd',
    tar => Buffer.concat([zstd(tar), Buffer.from('junk')]),
    'follows',
  ],
  ['Z09', 'zstd, then zeros', 'zstd', tar => Buffer.concat([zstd(tar), zeros]), 'follows'],
  ['Z09', 'a zstd frame that says it holds more', 'zstd', tar => flip(zstd(tar), 5), 'zstd'],
  [
    'Z09',
    'a zstd frame that needs a dictionary',
    'zstd',
    () => Buffer.from('28b52ffd018805010000', 'hex'),
    'zstd',
  ],
  ['Z11', 'xz', 'gzip', () => Buffer.from('fd377a585a000004', 'hex'), 'it looks like xz'],
  ['Z11', 'bzip2', 'gzip', () => Buffer.from('BZh91AY&SY'), 'it looks like bzip2'],
  ['Z11', 'lz4', 'zstd', () => Buffer.from('04224d18640000', 'hex'), 'it looks like lz4'],
]
for (const [id, what, compression, encode, says] of bad)
  await hostile(t, {
    id,
    what,
    layers: [members],
    split: false,
    image: { compression, encode },
    rejects: 'BAD_COMPRESSION',
    says,
    cli: what === 'zstd that is called gzip',
  })

await t.test(
  'Z01 a layer that is cut at any byte is refused, and is never complete',
  async t => {
    const base = makeMemoryDir('koci-hostile-')
    try {
      const tar = tarBytes(members)
      for (const [compression, whole] of [
        ['gzip', gzipSync(tar)],
        ['zstd', zstd(tar)],
      ] as const)
        for (let length = 0; length <= whole.length; length += 1) {
          const target = path.join(base, `${compression}-${length}`)
          mkdirSync(target)
          const bytes = whole.subarray(0, length)
          const job = makeJob(path.join(base, 'blob'), bytes, target)
          const extract = (): unknown =>
            extractBlob(
              {
                ...job,
                blob: { ...job.blob, compression },
                diffID: digestOf(tar),
                rootless: !isRoot,
              },
              new Control(),
            )
          if (length === whole.length) extract()
          else
            t.throws(extract, { code: 'ERR_KOCI_BAD_COMPRESSION' }, `${compression}, ${length}`)
        }
    } finally {
      rmSync(base, { recursive: true })
    }
  },
)

const rest: HostileCase[] = [
  {
    id: 'Z06',
    what: 'a million empty gzip members',
    layers: [members],
    split: false,
    image: {
      encode: tar => {
        const empty = gzipSync('')
        return Buffer.concat([Buffer.alloc(empty.length * 1_000_000, empty), gzipSync(tar)])
      },
    },
    rejects: 'LIMIT_EXCEEDED',
  },
  {
    id: 'Z06',
    what: 'a million empty zstd frames',
    layers: [members],
    split: false,
    image: {
      compression: 'zstd',
      encode: tar => Buffer.concat([Buffer.alloc(8_000_000, skippable(0)), zstd(tar)]),
    },
    rejects: 'LIMIT_EXCEEDED',
  },
  ...(['gzip', 'zstd'] as const).map((compression): HostileCase => ({
    id: 'Z07',
    what: `${compression} of a thousand to one`,
    layers: [[file('zeros', Buffer.alloc(200 * mebi))]],
    split: false,
    image: { compression },
    rejects: 'LIMIT_EXCEEDED',
    says: 'size of the files with their holes exceeded',
    seconds: 30,
  })),
  {
    id: 'Z09',
    what: 'blocks of zstd that are one byte, 128 KiB times',
    layers: [members],
    split: false,
    image: { compression: 'zstd', encode: () => runLengthBomb(8192) },
    rejects: 'LIMIT_EXCEEDED',
    says: 'compression ratio exceeded',
  },
  ...[28, 31].map((exponent): HostileCase => ({
    id: 'Z09',
    what: `a zstd window of 2^${exponent} bytes`,
    layers: [members],
    split: false,
    image: {
      compression: 'zstd',
      encode: () =>
        Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, (exponent - 10) << 3, 0x01, 0x00, 0x00]),
    },
    rejects: 'LIMIT_EXCEEDED',
    says: 'window of the zstd data',
  })),
  {
    id: 'Z08',
    what: 'gzip that is called uncompressed',
    layers: [members],
    split: false,
    image: { compression: 'none', encode: tar => gzipSync(tar) },
    // the digest of the layer is that of the tar, so that nobody can be led to take the one for the other
    rejects: 'BAD_ARCHIVE',
  },
  ...['xz', 'bzip2', 'lz4', 'gzip+encrypted'].map((suffix): HostileCase => ({
    id: 'Z11',
    what: `a media type that ends in ${suffix}`,
    layers: [members],
    split: false,
    image: withMediaType(`application/vnd.oci.image.layer.v1.tar+${suffix}`),
    rejects: 'UNSUPPORTED_MEDIA_TYPE',
    says: suffix,
    aboutLayer: false,
  })),
  ...[
    'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
    'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
    'application/vnd.docker.image.rootfs.diff.tar.gzip',
  ].map((mediaType): HostileCase => ({
    id: 'Z12',
    what: `${mediaType} is as good as any`,
    layers: [members],
    split: false,
    image: withMediaType(mediaType),
    tree,
  })),
  {
    id: 'Z09',
    what: 'a table of contents in an annotation is not looked at',
    layers: [members],
    split: false,
    image: {
      compression: 'zstd',
      change: draft => ({
        ...draft,
        manifest: {
          ...draft.manifest,
          layers: draft.manifest.layers.map(layer => ({
            ...layer,
            annotations: {
              'io.github.containers.zstd-chunked.manifest-position': '0:1:1:1',
              'io.github.containers.zstd-chunked.manifest-checksum': `sha256:${'0'.repeat(64)}`,
              'containerd.io/snapshot/stargz/toc.digest': `sha256:${'0'.repeat(64)}`,
            },
          })),
        },
      }),
    },
    tree,
  },
]
for (const each of rest) await hostile(t, each)

await t.test(
  'Z07 a layer that fills the disk is ENOSPC, and leaves nothing',
  { skip: !isRoot && 'needs root: mount' },
  async t => {
    const base = t.testdir()
    const mounted = path.join(base, 'mounted')
    mkdirSync(mounted)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'none', mounted], {
      timeout: 20_000,
    })
    try {
      const image = await makeImage(path.join(base, 'images'), 'test', {
        layers: [[file('small', 'x'), file('large', Buffer.alloc(16 * mebi, 'x'))]],
      })
      await t.rejects(new Koci().unpack({ image, bundle: path.join(mounted, 'bundle') }), {
        code: 'ERR_KOCI_IO',
        message: /rootfs: there is no room left: large: ENOSPC/,
        cause: { code: 'ENOSPC' },
      })
      t.strictSame(readdirSync(mounted), [])
    } finally {
      execFileSync('umount', [mounted], { timeout: 20_000 })
    }
  },
)

function withMediaType(mediaType: string): NonNullable<HostileCase['image']> {
  return {
    change: draft => ({
      ...draft,
      manifest: {
        ...draft.manifest,
        layers: draft.manifest.layers.map(layer => ({ ...layer, mediaType })),
      },
    }),
  }
}
