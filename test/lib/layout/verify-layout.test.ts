import { rmSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import { ImageLayout } from '../../../lib/layout/image-layout.ts'
import { verifyLayout } from '../../../lib/layout/verify-layout.ts'
import { addBlob, addImage, fileOf, makeLayout, tagged, writeIndex } from './fixture.ts'

await t.test('Blobs that gc removes meanwhile are no damage; those in use are', async t => {
  const dir = makeLayout(t.testdir())
  const image = addImage(dir, { layers: ['layer'] })
  writeIndex(dir, [tagged(image, 'a')])
  const counts = new Set<number>()
  // from what is gone before it is listed to what is still there when it was read
  for (let turns = 0; turns < 5000 && !counts.has(20); turns++) {
    const garbage = Array.from({ length: 20 }, (_, at) => addBlob(dir, 'a/b', `garbage ${at}`))
    await using layout = await ImageLayout.open(dir)
    const verifying = verifyLayout(layout)
    for (let turn = 0; turn < turns; turn++) await nextTurn()
    for (const blob of garbage) rmSync(fileOf(dir, blob))
    const { problems, unused } = await verifying
    t.same(problems, [], `after ${turns} turns`)
    counts.add(unused)
  }
  t.ok(counts.has(20) && counts.has(0), `before, and after: ${[...counts].join(' ')}`)
  rmSync(fileOf(dir, image))
  await using layout = await ImageLayout.open(dir)
  t.match((await verifyLayout(layout)).problems, { length: 1 })
})
