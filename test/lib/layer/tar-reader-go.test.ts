// Mutated archives through koci's reader and through Go's: whatever we accept, Go reads the same way.
import t from 'tap'
import { collectTar } from '../../support/collect-tar.ts'
import { buildGoTar, goMissing } from '../../support/go-tar.ts'
import { compareWithGo, mutate, pick, random, seeds } from '../../support/tar-mutations.ts'

const mutants = 2400

await t.test(
  "mutated archives are read as Go's archive/tar reads them",
  { skip: goMissing() },
  async t => {
    const next = random(20_261_123)
    const archives = [
      ...seeds,
      ...Array.from({ length: mutants }, () => mutate(pick(next, seeds), next)),
    ]
    const reference = buildGoTar(t.testdir())(archives)
    t.equal(reference.length, archives.length)
    const count = { both: 0, neither: 0, refused: 0 }
    for (const [index, archive] of archives.entries()) {
      const go = reference[index]
      if (!go) throw new Error('go-tar gave too few answers')
      const { kind, problem } = compareWithGo(collectTar(archive), go)
      count[kind]++
      if (problem !== undefined) t.fail(`archive ${index}: ${problem}`)
    }
    t.comment(
      `read by both: ${count.both}, by neither: ${count.neither}, by Go only: ${count.refused}`,
    )
    for (const [index, seed] of seeds.entries())
      t.equal(collectTar(seed).error, undefined, `seed ${index} is read`)
    t.ok(
      count.both > mutants / 5 && count.neither > mutants / 5,
      'the mutants are worth something',
    )
  },
)
