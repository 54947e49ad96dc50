import t from 'tap'
import { readEntries, type TarEntry } from '../../../lib/layer/entries.ts'
import { tarBytes } from '../../support/tar-builder.ts'

const archive = tarBytes([
  { name: 'a', body: 'aaaa' },
  { name: 'd/', type: 'directory' },
  { name: 'b', body: Buffer.alloc(3000, 'b') },
  { name: 'l', type: 'symlink', linkname: 'a' },
  { name: 'empty' },
])

interface Source extends AsyncIterable<Buffer> {
  read: number
  closed: boolean
}

/** Pieces of an archive, and how many were asked for. */
function inPieces(bytes: Buffer, size: number): Source {
  const source: Source = {
    read: 0,
    closed: false,
    async *[Symbol.asyncIterator]() {
      try {
        for (let at = 0; at < bytes.length; at += size) {
          source.read++
          yield Buffer.from(bytes.subarray(at, at + size))
        }
      } finally {
        source.closed = true
      }
    },
  }
  return source
}

async function textOf({ body }: TarEntry): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of body) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

await t.test('entries come with their bodies, however the archive is cut', async t => {
  for (const size of [1, 100, 512, 513, 100_000]) {
    const seen: Array<[name: string, body: string]> = []
    const source = inPieces(archive, size)
    for await (const entry of readEntries(source))
      seen.push([entry.header.rawPath.toString(), await textOf(entry)])
    t.same(seen, [
      ['a', 'aaaa'],
      ['d/', ''],
      ['b', 'b'.repeat(3000)],
      ['l', ''],
      ['empty', ''],
    ])
    t.ok(source.closed)
  }
})

await t.test('bodies may be left unread, or half read', async t => {
  for (const size of [100, 100_000]) {
    const names: string[] = []
    for await (const { header, body } of readEntries(inPieces(archive, size))) {
      names.push(header.rawPath.toString())
      if (names.length === 3)
        for await (const chunk of body) {
          t.ok(chunk.length > 0)
          break
        }
    }
    t.same(names, ['a', 'd/', 'b', 'l', 'empty'])
  }
})

await t.test('pieces are read only as far as the caller gets', async t => {
  const source = inPieces(archive, 512)
  const entries = readEntries(source)
  t.equal(source.read, 0)
  await entries.next()
  t.equal(source.read, 1)
  const { value } = await entries.next()
  t.equal(source.read, 3)
  t.equal(value?.header.rawPath.toString(), 'd/')
  await entries.return()
  t.ok(source.closed)
  t.equal(source.read, 3)
})

await t.test('the source is read to its end, so that whoever verifies it can', async t => {
  const source = inPieces(Buffer.concat([archive, Buffer.alloc(5000)]), 512)
  for await (const { header } of readEntries(source)) t.ok(header)
  t.equal(source.read, Math.ceil((archive.length + 5000) / 512))
})

await t.test('a body can be read once, and only until the next entry is asked for', async t => {
  const entries = readEntries(inPieces(archive, 100))
  const first = (await entries.next()).value
  if (!first) throw new Error('no entry')
  t.equal(await textOf(first), 'aaaa')
  await t.rejects(textOf(first), { code: 'ERR_KOCI_CONSUMED' })

  await entries.next()
  const third = (await entries.next()).value
  if (!third) throw new Error('no entry')
  const body = third.body[Symbol.asyncIterator]()
  await body.next()
  await entries.next()
  await t.rejects(Promise.resolve(body.next()), { code: 'ERR_KOCI_CONSUMED' })

  const late = readEntries(inPieces(archive, 100))
  const unread = (await late.next()).value
  await late.next()
  if (!unread) throw new Error('no entry')
  await t.rejects(textOf(unread), { code: 'ERR_KOCI_CONSUMED' })
})

await t.test('holes of a sparse file are read as zeros', async t => {
  const sparse = tarBytes([
    {
      name: 's',
      body: 'abcd',
      pax: [
        ['GNU.sparse.size', '200000'],
        ['GNU.sparse.numblocks', '2'],
        ['GNU.sparse.map', '10,2,150000,2'],
      ],
    },
    { name: 'next', body: 'n' },
  ])
  for (const size of [100, 10_000]) {
    const seen: string[] = []
    for await (const entry of readEntries(inPieces(sparse, size)))
      seen.push(await textOf(entry))
    const expected = Buffer.alloc(200_000)
    expected.write('ab', 10)
    expected.write('cd', 150_000)
    t.ok(seen[0] === expected.toString())
    t.equal(seen[1], 'n')
  }
})

await t.test('a fault is told behind the entries in front of it', async t => {
  const broken = Buffer.concat([
    tarBytes([{ name: 'a', body: 'aaaa' }], { end: false }),
    Buffer.alloc(512, 'x'),
  ])
  for (const size of [100, 100_000]) {
    const names: string[] = []
    const read = async (): Promise<void> => {
      for await (const entry of readEntries(inPieces(broken, size), { subject: 'layer x' })) {
        names.push(entry.header.rawPath.toString())
        await textOf(entry)
      }
    }
    await t.rejects(read(), { code: 'ERR_KOCI_BAD_ARCHIVE', message: /^layer x: / })
    t.same(names, ['a'])
  }
})

await t.test(
  'a truncated body is an error to whoever reads it, and to whoever does not',
  async t => {
    for (const size of [100, 100_000])
      for (const reading of [true, false]) {
        const read = async (): Promise<void> => {
          for await (const entry of readEntries(inPieces(archive.subarray(0, 3000), size)))
            if (reading) await textOf(entry)
        }
        await t.rejects(read(), { code: 'ERR_KOCI_BAD_ARCHIVE' })
      }
  },
)

await t.test("the source's error is passed on", async t => {
  const error = new Error('digest mismatch')
  async function* failing(): AsyncGenerator<Buffer> {
    yield archive
    throw error
  }
  const read = async (): Promise<number> => {
    let count = 0
    for await (const entry of readEntries(failing())) count += entry.header.size
    return count
  }
  await t.rejects(read(), error)
})
