import * as fc from 'fast-check'
import { setImmediate } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import t from 'tap'
import { writeLayer, type LayerEntry } from '../../../lib/layer/layer-writer.ts'
import { collectTar } from '../../support/collect-tar.ts'
import {
  anyEntry,
  entryOf,
  layerOf,
  plainEntry,
  readBack,
} from '../../support/layer-entries.ts'
import '../../support/seed.ts'

const path = Buffer.from('a')

await t.test('what is written is read back, every field of it', async t => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyEntry, { maxLength: 5 }), async entries => {
      t.same(readBack(await layerOf(entries)), entries.map(plainEntry))
    }),
    { numRuns: 200 },
  )
})

await t.test('the same entries give the same bytes', async t => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyEntry, { maxLength: 5 }), async entries => {
      const [one, two] = await Promise.all([layerOf(entries), layerOf(entries)])
      t.ok(one.equals(two))
    }),
    { numRuns: 30 },
  )
  const pair = [Buffer.from('user.a'), Buffer.from('1')] as const
  const other = [Buffer.from('user.b'), Buffer.from('2')] as const
  const one = await layerOf([entryOf({ type: 'file', path, xattrs: [pair, other] })])
  const two = await layerOf([entryOf({ type: 'file', path, xattrs: [other, pair] })])
  t.ok(one.equals(two), 'the order of extended attributes does not matter')
})

await t.test('a plain entry has a plain header, as umoci writes it', async t => {
  const layer = await layerOf([
    entryOf({
      type: 'file',
      path: 'etc/passwd',
      content: 'root',
      mode: 0o4755,
      uid: 1000,
      gid: 262_143,
      mtime: 1_700_000_000_000_000_000n,
    }),
  ])
  t.equal(layer.length, 512 + 512 + 1024)
  const text = (from: number, to: number): string => layer.toString('latin1', from, to)
  t.equal(text(0, 11), 'etc/passwd\0')
  t.equal(Number.parseInt(text(100, 108), 8), 0o4755)
  t.equal(Number.parseInt(text(116, 124), 8), 262_143)
  t.equal(text(156, 157), '0')
  t.equal(text(257, 265), 'ustar\x0000')
  t.equal(text(265, 329), '\0'.repeat(64), 'no user and group names')
  t.ok(layer.subarray(-1024).equals(Buffer.alloc(1024)), 'two zero blocks')
})

await t.test(
  'whiteouts are empty files without owner, mode or time, whatever else is said',
  async t => {
    const rest = {
      mode: 0o777,
      uid: 5,
      gid: 5,
      mtime: 9n,
      size: 9,
      xattrs: [[path, path]] as const,
    }
    const layer = await layerOf(
      [
        { rawPath: Buffer.from('a'), type: 'whiteout', ...rest },
        { rawPath: Buffer.from('d/e'), type: 'whiteout', ...rest },
        { rawPath: Buffer.from('d'), type: 'opaqueWhiteout', ...rest },
        { rawPath: Buffer.alloc(0), type: 'opaqueWhiteout', ...rest },
      ],
      { clampTime: 5n },
    )
    t.equal(layer.length, 4 * 512 + 1024)
    const names = ['.wh.a', 'd/.wh.e', 'd/.wh..wh..opq', '.wh..wh..opq']
    const empty = { type: 'file', mode: 0, uid: 0, gid: 0, mtime: 0n, size: 0, xattrs: [] }
    t.match(
      readBack(layer),
      names.map(name => ({ path: name, ...empty })),
    )
  },
)

await t.test('the root is a directory called ./', async t => {
  t.match(readBack(await layerOf([entryOf({ type: 'directory', path: '', mode: 0o700 })])), [
    { path: './', type: 'directory', mode: 0o700 },
  ])
  await t.rejects(layerOf([entryOf({ type: 'file', path: '' })]), {
    code: 'ERR_KOCI_INVALID_ENTRY',
  })
})

await t.test('SOURCE_DATE_EPOCH clamps later times only', async t => {
  const file = (mtime: bigint): LayerEntry => entryOf({ type: 'file', path, mtime })
  const layer = await layerOf([file(5n), file(10n), file(11n), file(-1n)], { clampTime: 10n })
  t.match(readBack(layer), [{ mtime: 5n }, { mtime: 10n }, { mtime: 10n }, { mtime: -1n }])
})

await t.test('K10 names that need a pax header, in every byte', async t => {
  for (const name of [
    'é',
    '\xff\xfe',
    'a\nb',
    'a=b',
    '12 path=x',
    'n'.repeat(100),
    'n'.repeat(101),
    `${'d'.repeat(99)}/x`,
    `${'d/'.repeat(300)}x`,
    'n'.repeat(255),
  ]) {
    const rawPath = Buffer.from(name, 'latin1')
    for (const type of ['file', 'directory', 'whiteout'] as const) {
      const entries = [
        { ...entryOf({ type, path: rawPath }) },
        entryOf({ type: 'file', path: 'next' }),
      ]
      t.same(readBack(await layerOf(entries)), entries.map(plainEntry), `${type} ${name}`)
    }
    const link = entryOf({ type: 'symlink', path: 'l', rawLinkname: rawPath })
    t.same(readBack(await layerOf([link])), [plainEntry(link)], `link to ${name}`)
  }
})

await t.test(
  'what stands in for a name in the plain header is never read as a directory',
  async t => {
    const layer = await layerOf([entryOf({ type: 'file', path: `${'é/'.repeat(80)}x` })])
    const header = layer.subarray(1024, 1536)
    t.notOk(header.toString('latin1', 0, 100).replace(/\0+$/, '').endsWith('/'))
    t.ok(header.subarray(0, 100).every(byte => byte < 0x80))
  },
)

await t.test('pax records of every length', async t => {
  for (let length = 0; length < 1200; length++) {
    const xattrs = [[Buffer.from('user.x'), Buffer.alloc(length, 'v')]] as const
    const entry = entryOf({ type: 'file', path, xattrs })
    const [back] = readBack(await layerOf([entry]))
    const same = isDeepStrictEqual(back, plainEntry(entry))
    if (!same) t.fail(`a value of ${length} bytes`)
  }
  t.pass()
})

await t.test('nothing in a layer may be called like a whiteout', async t => {
  const bad: Array<[type: LayerEntry['type'], path: string]> = [
    ['file', '.wh.a'],
    ['directory', 'd/.wh.a'],
    ['symlink', 'd/.wh..wh..opq'],
    ['file', '.wh.'],
    ['whiteout', '.wh.a'],
    ['whiteout', 'd/.wh.a'],
    ['whiteout', ''],
  ]
  for (const [type, name] of bad)
    await t.rejects(
      layerOf([entryOf({ type, path: name, rawLinkname: path })]),
      { code: 'ERR_KOCI_INVALID_WHITEOUT' },
      `${type} ${name}`,
    )
  const inside = entryOf({ type: 'file', path: '.wh.d/a' })
  t.same(
    readBack(await layerOf([inside])),
    [plainEntry(inside)],
    'a parent of that name is left alone',
  )
})

await t.test('entries that tar cannot hold are refused', async t => {
  const name = (text: string): NonNullable<LayerEntry['xattrs']> => [[Buffer.from(text), path]]
  const bad: Array<[what: string, entry: LayerEntry]> = [
    ['a path with a leading slash', entryOf({ type: 'file', path: '/a' })],
    ['a path with a trailing slash', entryOf({ type: 'directory', path: 'a/' })],
    ['a path with dots', entryOf({ type: 'file', path: './a' })],
    ['a path with a NUL', entryOf({ type: 'file', path: 'a\0b' })],
    ['a symlink to nothing', entryOf({ type: 'symlink', path })],
    ['an empty symlink', entryOf({ type: 'symlink', path, rawLinkname: Buffer.alloc(0) })],
    ['a link with a NUL', entryOf({ type: 'hardlink', path, rawLinkname: Buffer.from('\0') })],
    ['uid -1', entryOf({ type: 'file', path, uid: -1 })],
    ['uid 2^32 - 1', entryOf({ type: 'file', path, uid: 2 ** 32 - 1 })],
    ['gid 1.5', entryOf({ type: 'file', path, gid: 1.5 })],
    ['uid NaN', entryOf({ type: 'file', path, uid: Number.NaN })],
    ['a negative size', entryOf({ type: 'file', path, size: -1 })],
    ['a major number of 13 bits', entryOf({ type: 'char', path, devmajor: 4096 })],
    ['a minor number of 19 bits', entryOf({ type: 'block', path, devminor: 262_144 })],
    ['an xattr with =', entryOf({ type: 'file', path, xattrs: name('user.a=b') })],
    ['an xattr with NUL', entryOf({ type: 'file', path, xattrs: name('user.\0') })],
    ['an xattr without a name', entryOf({ type: 'file', path, xattrs: name('') })],
  ]
  for (const [what, entry] of bad)
    await t.rejects(layerOf([entry]), { code: 'ERR_KOCI_INVALID_ENTRY' }, what)
  await t.rejects(layerOf([entryOf({ type: 'file', path: '../a' })]), {
    code: 'ERR_KOCI_PATH_ESCAPE',
  })
})

await t.test('extended attributes beyond what any reader takes are refused', async t => {
  const many = (count: number): LayerEntry =>
    entryOf({
      type: 'file',
      path,
      xattrs: Array.from({ length: count }, (_, index) => [
        Buffer.from(`user.${index}`),
        Buffer.alloc(65_000),
      ]),
    })
  t.equal(collectTar(await layerOf([many(15)])).error, undefined)
  await t.rejects(layerOf([many(17)]), { code: 'ERR_KOCI_LIMIT_EXCEEDED' })
})

await t.test('K01 a file that is not as long as it should be is an error', async t => {
  for (const [size, content] of [
    [3, 'ab'],
    [3, 'abcd'],
    [3, ''],
    [0, 'a'],
    [5, undefined],
  ] as const) {
    const body = content === undefined ? {} : { content }
    const entry = entryOf({ type: 'file', path, ...body, size })
    if (size === 0) t.match(readBack(await layerOf([entry])), [{ size: 0, body: '' }])
    else await t.rejects(layerOf([entry]), { code: 'ERR_KOCI_FILE_CHANGED', message: /^a: / })
  }
})

await t.test('errors of entries, bodies and sink are passed on', async t => {
  const error = new Error('boom')
  const broken = (): Iterable<never> => {
    throw error
  }
  async function* entries(): AsyncGenerator<LayerEntry> {
    yield entryOf({ type: 'file', path })
    throw error
  }
  await t.rejects(layerOf(entries()), error)
  await t.rejects(
    layerOf([{ ...entryOf({ type: 'file', path }), size: 1, body: broken }]),
    error,
  )
  const large = entryOf({ type: 'file', path, content: Buffer.alloc(4 << 20) })
  for (const fails of [1, 2, 3])
    for (const sink of [thrower(error, fails), rejecter(error, fails)])
      await t.rejects(writeLayer([large, large], sink), error)
})

await t.test('when the sink fails, the entries are told', async t => {
  let closed = false
  function* entries(): Generator<LayerEntry> {
    try {
      for (;;) yield entryOf({ type: 'file', path, content: Buffer.alloc(1 << 18) })
    } finally {
      closed = true
    }
  }
  await t.rejects(writeLayer(entries(), rejecter(new Error('full'), 3)), /full/)
  t.ok(closed)
})

await t.test('a slow sink holds the bodies up', async t => {
  let produced = 0
  let consumed = 0
  let most = 0
  function* body(): Generator<Buffer> {
    for (let count = 0; count < 64; count++) {
      produced += 1 << 18
      yield Buffer.alloc(1 << 18)
    }
  }
  const { bytes } = await writeLayer(
    [{ ...entryOf({ type: 'file', path }), size: 1 << 24, body }],
    async chunk => {
      most = Math.max(most, produced - consumed)
      await setImmediate()
      consumed += chunk.length
    },
  )
  t.equal(bytes, (1 << 24) + 1536)
  t.ok(most <= 3 << 20, `at most ${most} bytes are in between`)
})

await t.test('many entries are held up, too', async t => {
  let produced = 0
  let consumed = 0
  let most = 0
  function* entries(): Generator<LayerEntry> {
    for (let count = 0; count < 20_000; count++) {
      produced += 512
      yield entryOf({ type: 'directory', path })
    }
  }
  await writeLayer(entries(), async chunk => {
    most = Math.max(most, produced - consumed)
    consumed += chunk.length
    if (consumed % (1 << 16) === 0) await setImmediate()
  })
  t.ok(most <= 2 << 20, `at most ${most} bytes are in between`)
})

await t.test('a file of 10 GiB takes no memory, and its size is exact', async t => {
  const size = 10 * 2 ** 30 + 5
  const piece = Buffer.alloc(1 << 22)
  function* body(): Generator<Buffer> {
    for (let left = size; left > 0; left -= piece.length)
      yield piece.subarray(0, Math.min(left, piece.length))
  }
  const before = process.memoryUsage().rss
  const head: Buffer[] = []
  const { bytes } = await writeLayer(
    [{ ...entryOf({ type: 'file', path }), size, body }],
    chunk => {
      if (head.length < 3) head.push(chunk)
    },
  )
  t.equal(bytes % 512, 0)
  t.ok(bytes > size)
  t.ok(process.memoryUsage().rss - before < 200 << 20)
  const { entries } = collectTar(Buffer.concat(head.slice(0, 3)))
  t.equal(entries[0]?.header.size, size)
})

await t.test('an asynchronous source of entries and bodies', async t => {
  async function* body(): AsyncGenerator<Buffer> {
    for (const letter of 'abc') {
      await Promise.resolve()
      yield Buffer.from(letter)
    }
  }
  async function* entries(): AsyncGenerator<LayerEntry> {
    yield { ...entryOf({ type: 'file', path }), size: 3, body }
  }
  t.match(readBack(await layerOf(entries())), [{ body: Buffer.from('abc').toString('hex') }])
})

await t.test('a layer without entries is two zero blocks', async t => {
  t.ok((await layerOf([])).equals(Buffer.alloc(1024)))
})

function thrower(error: Error, call: number): () => void {
  let calls = 0
  return () => {
    if (++calls === call) throw error
  }
}

function rejecter(error: Error, call: number): () => Promise<void> {
  let calls = 0
  return async () => {
    await setImmediate()
    if (++calls === call) throw error
  }
}
