// Lists of names on disk: what is written, in whatever pieces, is what is read, and nothing is left of it.
import { existsSync, readFileSync } from 'node:fs'
import * as fc from 'fast-check'
import t from 'tap'
import { NamedList, Spool } from '../../../middleware/hooks/spool.ts'
import { differential } from '../../support/differential.ts'

const name = fc.uint8Array({ min: 1, maxLength: 300 }).map(bytes => Buffer.from(bytes))

async function readAll(
  chunks: readonly Buffer[],
): Promise<{ names: Buffer[]; ended: boolean }> {
  const spool = await Spool.create()
  try {
    for (const chunk of chunks) await spool.write(chunk)
    const read = await Array.fromAsync(spool.names())
    const ended = read.every(({ ended }) => ended)
    return { names: read.map(({ name }) => Buffer.from(name)), ended }
  } finally {
    await spool.close()
  }
}

await t.test('names come back as they were, however they arrive', async t => {
  await differential(
    fc.asyncProperty(
      fc.array(name, { maxLength: 50 }),
      fc.integer({ min: 1, max: 999 }),
      async (names, size) => {
        const bytes = Buffer.concat(names.flatMap(each => [each, Buffer.from([0])]))
        const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) =>
          bytes.subarray(at * size, (at + 1) * size),
        )
        const found = await readAll(chunks)
        t.ok(found.ended)
        t.strictSame(found.names, names)
      },
    ),
    100,
  )
})

await t.test(
  'names across the pieces in which they are read, and one without an end',
  async t => {
    const names = ['x'.repeat(70_000), 'y', '', 'z'.repeat(200_000)].map(text =>
      Buffer.from(text),
    )
    const bytes = Buffer.concat(names.flatMap(each => [each, Buffer.from([0])]))
    t.strictSame(await readAll([bytes]), { names, ended: true })
    t.strictSame(await readAll([bytes, Buffer.from('rest')]), {
      names: [...names, Buffer.from('rest')],
      ended: false,
    })
    const endless = await readAll([Buffer.alloc(3 << 20, 'x')])
    t.ok(
      !endless.ended && (endless.names[0]?.length ?? 0) < 2 << 20,
      'an endless name is not kept',
    )
  },
)

await t.test('a list for a command is there until it is disposed of', async t => {
  const numbers = Array.from({ length: 30_000 }, (_, at) => at)
  let file = ''
  {
    await using list = await NamedList.create(numbers, at => Buffer.from(`M ${at}\0`))
    file = list.path
    t.equal(readFileSync(file, 'utf8'), numbers.map(at => `M ${at}\0`).join(''))
  }
  t.notOk(existsSync(file))
  await using empty = await NamedList.create([], () => Buffer.alloc(0))
  t.equal(readFileSync(empty.path, 'utf8'), '')
})
