// Generated images, unpacked by koci and worked out by the oracle: the same trees to the last attribute and nanosecond,
// or the same refusal. KOCI_DIFFERENTIAL_RUNS: how many images; KOCI_DIFFERENTIAL_SEED: which.
import { chmodSync, mkdirSync, rmSync, utimesSync } from 'node:fs'
import path from 'node:path'
import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { KociError } from '../../lib/errors.ts'
import { Koci } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { makeSandbox } from '../support/extract.ts'
import { makeImage } from '../support/image.ts'
import { anyImage, toMembers, type GeneratedImage } from '../support/image-arbitrary.ts'
import { applyAll, Refusal, type OracleOptions } from '../support/oracle.ts'
import { memoryParent } from '../support/memory-dir.ts'
import { isRoot, temporary } from '../support/peers.ts'
import { bound, differential } from '../support/differential.ts'
import { describeTree } from '../support/tree.ts'

const rootless = !isRoot
const options: OracleOptions = rootless
  ? { rootless: { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 } }
  : {}
const compressions = ['none', 'gzip', 'zstd'] as const
const app = new Koci().use(mtree())

t.setTimeout(bound(900) * 1000)

/** The tree, or the code of the error. */
async function kociTree(base: string, image: GeneratedImage, index: number): Promise<unknown> {
  const directory = path.join(base, String(index))
  try {
    const made = await makeImage(path.join(directory, 'images'), 'test', {
      layers: toMembers(image),
      compression: compressions[index % 3] ?? 'none',
    })
    const bundle = path.join(directory, 'bundle')
    const { rootfs } = await app.unpack({ image: made, bundle, rootless })
    return describeTree(rootfs)
  } catch (error) {
    if (error instanceof KociError) return error.code
    throw error
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function oracleTree({ layers }: GeneratedImage): unknown {
  try {
    return applyAll(layers, options).describe()
  } catch (error) {
    if (error instanceof Refusal) return `ERR_KOCI_${error.code}`
    throw error
  }
}

/** The same by the engine alone, which is much faster. */
function engineTree(base: string, image: GeneratedImage, index: number): unknown {
  const directory = path.join(base, String(index))
  mkdirSync(directory)
  try {
    const sandbox = makeSandbox(directory)
    chmodSync(sandbox.rootfs, 0o755)
    utimesSync(sandbox.rootfs, 0, 0)
    const tree = applied(() => {
      sandbox.apply(toMembers(image), { rootless, hashFiles: index % 2 === 0 })
      return describeTree(sandbox.rootfs)
    })
    return sandbox.escaped() ? 'the canary was touched' : tree
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function applied(apply: () => string[]): unknown {
  try {
    return apply()
  } catch (error) {
    if (error instanceof KociError) return error.code
    throw error
  }
}

for (const [what, unpack, refused, runs] of [
  ['by the engine: images that can be applied', engineTree, false, 200],
  ['by the engine: images in which some entry is refused', engineTree, true, 100],
  ['unpacked: images that can be applied', kociTree, false, 20],
] as const)
  await t.test(what, async t => {
    const base = temporary(t, 'differential', memoryParent())
    const count = { names: 0, trees: 0, refusals: 0 }
    let index = 0
    await differential(
      fc.asyncProperty(
        anyImage({ privileged: isRoot, refused, maxEntries: refused ? 4 : 20 }),
        async image => {
          const wanted = oracleTree(image)
          count[Array.isArray(wanted) ? 'trees' : 'refusals']++
          count.names += Array.isArray(wanted) ? wanted.length : 0
          assert.deepEqual(await unpack(base, image, index++), wanted)
        },
      ),
      runs,
    )
    t.comment(JSON.stringify(count))
    t.ok(refused ? count.refusals > 0 : count.trees > 0, 'enough of both')
  })
