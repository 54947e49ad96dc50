import * as fc from 'fast-check'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { isError } from '../../../lib/errors.ts'
import { Control } from '../../../lib/layer/control.ts'
import { extractBlob } from '../../../lib/layer/extract.ts'
import { makeJob, makeSandbox } from '../../support/extract.ts'
import { stackedLayers } from '../../support/layer-members.ts'
import { makeMemoryDir } from '../../support/memory-dir.ts'
import { StackedView } from '../../support/stacked-view.ts'
import { tarBytes, type TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'
import '../../support/seed.ts'

const rootless = process.getuid?.() !== 0
const dialects = rootless
  ? (['overlay-user'] as const)
  : (['overlay-trusted', 'overlay-user'] as const)

const runs = 500

/** What became of a case: the same, or why there was nothing to compare. */
type Outcome = 'same' | 'invalid' | 'links' | 'below'

function compare(
  layers: readonly TarMember[][],
  dialect: (typeof dialects)[number],
  keepDirlinks: boolean,
): Outcome {
  const base = makeMemoryDir('koci-stacked-')
  try {
    const sandbox = makeSandbox(base)
    const options = { rootless, keepDirlinks }
    try {
      sandbox.apply(layers, options)
    } catch (error) {
      // a hard link to nothing, a loop of symlinks
      if (isError(error, 'INVALID_ENTRY') || String(error).includes('ELOOP')) return 'invalid'
      throw error
    }
    const view = new StackedView(dialect)
    for (const [index, members] of layers.entries()) {
      const dir = join(base, `stored-${index}`)
      mkdirSync(dir)
      const job = makeJob(join(base, 'stored.tar'), tarBytes(members), dir)
      let stacking
      try {
        ;({ stacking } = extractBlob({ ...job, ...options, dialect }, new Control()))
      } catch (error) {
        if (isError(error, 'NEEDS_BELOW')) return 'links'
        throw error
      }
      if (stacking === undefined) throw new Error('no report')
      if (view.reasonToNeedBelow(stacking) !== undefined) return 'below'
      view.add(dir, stacking)
    }
    const expected = describeTree(sandbox.rootfs, { root: view.hasRoot })
    const found = view.lines()
    if (found.join('\n') !== expected.join('\n'))
      throw new Error(`merged:\n${found.join('\n')}\nplain:\n${expected.join('\n')}`)
    return 'same'
  } finally {
    rmSync(base, { recursive: true })
  }
}

for (const dialect of dialects)
  await t.test(`${dialect}: layers extracted alone mean what they mean in order`, async t => {
    const outcomes: Record<Outcome, number> = { same: 0, invalid: 0, links: 0, below: 0 }
    fc.assert(
      fc.property(stackedLayers, fc.boolean(), (layers, keepDirlinks) => {
        outcomes[compare(layers, dialect, keepDirlinks)] += 1
      }),
      { numRuns: runs, interruptAfterTimeLimit: 80_000, markInterruptAsFailure: true },
    )
    t.comment(JSON.stringify(outcomes))
    t.ok(outcomes.same > runs / 2, 'most can be compared')
    t.ok(outcomes.below > 0, 'some depend on those below')
  })
