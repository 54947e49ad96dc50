import { createHash } from 'node:crypto'
import * as fc from 'fast-check'
import t from 'tap'
import { chainIDs } from '../../../lib/oci/chain-id.ts'
import { digestOf, parseDigest } from '../../../lib/oci/digest.ts'
import '../../support/seed.ts'

await t.test('Gives the ChainIDs of the formula of image-spec', async t => {
  const [a, b] = [`sha256:${'a'.repeat(64)}`, `sha256:${'b'.repeat(64)}`].map(d =>
    parseDigest(d),
  )
  if (!a || !b) return
  const ab = `sha256:${createHash('sha256').update(`${a} ${b}`).digest('hex')}`
  const aba = `sha256:${createHash('sha256').update(`${ab} ${a}`).digest('hex')}`
  t.same(chainIDs([a, b, a]), [a, ab, aba])
  t.same(chainIDs([]), [])
})

await t.test('A ChainID depends on what is below, and on nothing above', async t => {
  const diffID = fc.uint8Array().map(bytes => digestOf(bytes))
  fc.assert(
    fc.property(fc.array(diffID, { maxLength: 8 }), diffID, (below, top) => {
      const chain = chainIDs([...below, top])
      return JSON.stringify(chain.slice(0, -1)) === JSON.stringify(chainIDs(below))
    }),
  )
  t.pass()
})
