// A layer that is stored in a directory of its own, applied to the tree of those below it, comes out as if it had been
// extracted there: generated images, and what they are unlikely to hold.
import * as fc from 'fast-check'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { isError } from '../../../lib/errors.ts'
import { applyStored, type StoredJob } from '../../../lib/layer/apply-stored.ts'
import { Control } from '../../../lib/layer/control.ts'
import { extractBlob, type ExtractJob } from '../../../lib/layer/extract.ts'
import type { Dialect } from '../../../lib/layer/extraction.ts'
import { FileHashes } from '../../../lib/layer/file-hashes.ts'
import type { Layer, StackingReport } from '../../../lib/layer/layer.ts'
import { reasonItFailedAlone, reasonNotToMerge } from '../../../lib/layer/needs-below.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import { makeJob, makeSandbox } from '../../support/extract.ts'
import { anyImage, toMembers } from '../../support/image-arbitrary.ts'
import { stackedLayers } from '../../support/layer-members.ts'
import { makeMemoryDir } from '../../support/memory-dir.ts'
import { device, dir, file, hard, link } from '../../support/members.ts'
import { tarBytes, xattrRecord, type TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'
import '../../support/seed.ts'

const isRoot = process.getuid?.() === 0
const rootless = !isRoot
type Stored = Exclude<Dialect, 'plain'>
const dialects: readonly Stored[] = isRoot
  ? ['overlay-trusted', 'overlay-user']
  : ['overlay-user']

interface Outcome {
  readonly applied: number
  readonly extracted: number
}

/** Stores a layer alone; undefined if it can't be. */
function store(
  members: readonly TarMember[],
  base: string,
  name: string,
  options: Partial<ExtractJob>,
): { dir: string; stacking: StackingReport; blob: ExtractJob } | undefined {
  const dir = join(base, name)
  mkdirSync(dir)
  const blob = makeJob(join(base, `${name}.tar`), tarBytes(members), dir)
  try {
    const { stacking } = extractBlob({ ...blob, ...options }, new Control())
    if (stacking === undefined) throw new Error('no report')
    return { dir, stacking, blob }
  } catch (error) {
    if (reasonItFailedAlone(error) !== undefined) return undefined
    throw error
  }
}

function jobOf(dir: string, target: string, rest: Partial<StoredJob>): StoredJob {
  return { digest: digestOf(Buffer.from(dir)), dir, target, size: 1, dialect: 'plain', ...rest }
}

/** Makes the tree of some layers in both ways. */
function compare(
  layers: readonly (readonly TarMember[])[],
  dialect: Stored,
  keepDirlinks: boolean,
): Outcome | 'invalid' {
  const base = makeMemoryDir('koci-stored-')
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
    const target = join(base, 'merged')
    mkdirSync(target, { mode: 0o755 })
    const outcome = { applied: 0, extracted: 0 }
    let hasRoot = false
    for (const [index, members] of layers.entries()) {
      hasRoot ||= members.some(({ name, type }) => type === 'directory' && name === './')
      const stored = store(members, base, `stored-${index}`, { ...options, dialect })
      const placed = { by: 'test', verified: true, report: { stacking: stored?.stacking } }
      const layer = { placed, needsBelow: undefined } as unknown as Layer
      const first = index === 0
      const before = stored && describeTree(stored.dir)
      if (stored && reasonNotToMerge(layer, target) === undefined) {
        const job = jobOf(stored.dir, target, { ...options, dialect, first, ...stored })
        applyStored(job, new Control())
        outcome.applied++
        if (describeTree(stored.dir).join('\n') !== before?.join('\n'))
          throw new Error('the stored tree was changed')
      } else {
        const blob = makeJob(join(base, 'again.tar'), tarBytes(members), target)
        extractBlob({ ...blob, ...options, first }, new Control())
        outcome.extracted++
      }
    }
    const root = { root: hasRoot }
    const expected = describeTree(sandbox.rootfs, root).join('\n')
    const found = describeTree(target, root).join('\n')
    if (found !== expected) throw new Error(`stored:\n${found}\nplain:\n${expected}`)
    return outcome
  } finally {
    rmSync(base, { recursive: true })
  }
}

for (const dialect of dialects) {
  await t.test(`${dialect}: layers that get in each other's way`, t => {
    let applied = 0
    let extracted = 0
    fc.assert(
      fc.property(stackedLayers, fc.boolean(), (layers, keepDirlinks) => {
        const outcome = compare(layers, dialect, keepDirlinks)
        if (outcome === 'invalid') return
        applied += outcome.applied
        extracted += outcome.extracted
      }),
      { numRuns: 400, interruptAfterTimeLimit: 60_000, markInterruptAsFailure: true },
    )
    t.comment(`${applied} applied, ${extracted} extracted`)
    t.ok(applied > extracted && extracted > 0)
    t.end()
  })

  await t.test(`${dialect}: entries as odd as can be`, t => {
    const images = anyImage({ privileged: isRoot })
    fc.assert(
      fc.property(images, image => {
        compare(toMembers(image), dialect, false)
      }),
      { numRuns: 60, interruptAfterTimeLimit: 60_000 },
    )
    t.pass('they come out the same')
    t.end()
  })
}

const [dialect = 'overlay-user'] = dialects
const namespace = dialect === 'overlay-user' ? 'user' : 'trusted'

await t.test('what overlayfs would take for its own comes out as it went in', t => {
  const pax = [
    xattrRecord(`${namespace}.overlay.opaque`, 'y'),
    xattrRecord(`${namespace}.overlay.overlay.x`, '1'),
    xattrRecord('user.other', '2'),
  ]
  const lower = [dir('d', { pax }), file('d/x', 'x', { pax }), dir('e'), file('e/y')]
  const upper = [file('d/.wh.x'), file('e/.wh..wh..opq'), file('e/z')]
  t.same(compare([lower, upper], dialect, false), { applied: 2, extracted: 0 })
  t.end()
})

await t.test('directories that only the way to something made are there', t => {
  const layers = [
    [link('c', 'a/../b'), file('c/x', 'x')],
    [file('b/.wh.x'), file('.wh.a')],
  ]
  t.same(compare(layers, dialect, false), { applied: 2, extracted: 0 })
  t.end()
})

await t.test('a link that is hidden is no link to be kept', t => {
  const layers = [[link('b', '../a')], [file('.wh.b'), file('b/x', 'x'), dir('a')]]
  t.same(compare(layers, dialect, true), { applied: 2, extracted: 0 })
  t.end()
})

await t.test('a hard link to what an opaque whiteout alone is in needs those below', t => {
  const layers = [[link('a', 'a')], [file('a/.wh..wh..opq'), hard('b', 'a')]]
  t.same(compare(layers, dialect, false), { applied: 1, extracted: 1 })
  t.end()
})

await t.test('devices are devices', { skip: !isRoot && 'needs root: mknod' }, t => {
  const layers = [[device('null', { devmajor: 1, devminor: 3 }), hard('zero', 'null')]]
  t.same(compare(layers, dialect, false), { applied: 1, extracted: 0 })
  t.end()
})

await t.test('a plain tree without a report is added as it is', t => {
  const base = t.testdir()
  const stored = join(base, 'stored')
  const target = join(base, 'target')
  for (const each of [stored, target]) mkdirSync(each)
  mkdirSync(join(stored, 'd'))
  fs.writeFileSync(join(stored, 'd/x'), 'x')
  fs.linkSync(join(stored, 'd/x'), join(stored, 'y'))
  fs.symlinkSync('/etc', join(stored, 'link'))
  mkdirSync(join(target, 'd'), 0o700)
  fs.writeFileSync(join(target, 'd/kept'), '')
  fs.writeFileSync(join(target, 'link'), '')
  applyStored(jobOf(stored, target, { rootless }), new Control())
  rmSync(join(target, 'd/kept'))
  fs.utimesSync(join(target, 'd'), fs.statSync(join(stored, 'd')).atime, 0)
  fs.utimesSync(join(stored, 'd'), fs.statSync(join(stored, 'd')).atime, 0)
  t.strictSame(describeTree(target, { root: false }), describeTree(stored, { root: false }))
  t.end()
})

await t.test('a link of the tree below leads nowhere outside', t => {
  const base = t.testdir()
  const sandbox = makeSandbox(base)
  sandbox.apply([[link('d', '../canary'), link('f', '../canary/file')]], { rootless })
  const stored = join(base, 'stored')
  mkdirSync(join(stored, 'd'), { recursive: true })
  fs.writeFileSync(join(stored, 'd/file'), 'changed')
  fs.writeFileSync(join(stored, 'f'), 'changed')
  const stacking = { root: false, opaque: false, implied: ['d'], missing: ['d'], hollow: [] }
  for (const report of [stacking, undefined])
    applyStored(jobOf(stored, sandbox.rootfs, { rootless, stacking: report }), new Control())
  t.notOk(sandbox.escaped())
  t.end()
})

await t.test('files have their content and their holes, and the hashes that are known', t => {
  const base = t.testdir()
  const stored = join(base, 'stored')
  const target = join(base, 'target')
  for (const each of [stored, target]) mkdirSync(each)
  const hashes = new FileHashes()
  const bodies = {
    empty: Buffer.alloc(0),
    small: Buffer.from('small'),
    large: Buffer.alloc(3_000_001, 'large'),
    sparse: Buffer.concat([Buffer.alloc(200_000), Buffer.from('x'), Buffer.alloc(300_000)]),
    hole: Buffer.alloc(1_000_000),
  }
  for (const [name, body] of Object.entries(bodies)) {
    const path = join(stored, name)
    fs.writeFileSync(path, '')
    fs.truncateSync(path, body.length)
    const fd = fs.openSync(path, 'r+')
    const start = body.findIndex(byte => byte !== 0)
    const end = body.findLastIndex(byte => byte !== 0) + 1
    if (start >= 0) fs.writeSync(fd, body, start, end - start, start)
    fs.closeSync(fd)
    const { ino, size, mtimeNs } = fs.statSync(path, { bigint: true })
    const sum = createHash('sha256').update(body).digest()
    // of one file it is out of date
    if (name !== 'small') hashes.add(ino, sum, Number(size), mtimeNs)
    else hashes.add(ino, sum, Number(size), mtimeNs - 1n)
  }
  const known = hashes.toTransferable().value
  const result = applyStored(
    jobOf(stored, target, { rootless, first: true, known }),
    new Control(),
  )
  for (const [name, body] of Object.entries(bodies)) {
    const path = join(target, name)
    t.ok(fs.readFileSync(path).equals(body), name)
    const { ino, blocks } = fs.statSync(path, { bigint: true })
    const sum = result.hashes?.get(ino)?.sha256.toString('hex')
    const isKnown = name !== 'small' && name !== 'empty'
    t.equal(sum, isKnown ? createHash('sha256').update(body).digest('hex') : undefined)
    if (name === 'hole' || name === 'sparse') t.ok(blocks < 300n, `${blocks} blocks`)
  }
  t.end()
})

await t.test('limits and aborts hold', t => {
  const base = t.testdir()
  const stored = join(base, 'stored')
  mkdirSync(join(stored, 'a/b/c'), { recursive: true })
  fs.writeFileSync(join(stored, 'a/file'), 'x'.repeat(1000))
  const run = (limits: StoredJob['limits'], control = new Control()): unknown => {
    const target = fs.mkdtempSync(join(base, 'target-'))
    return applyStored(jobOf(stored, target, { rootless, limits: limits ?? {} }), control)
  }
  const exceeded = { code: 'ERR_KOCI_LIMIT_EXCEEDED' }
  t.throws(() => run({ maxEntries: 3 }), exceeded)
  t.throws(() => run({ maxDepth: 2 }), exceeded)
  t.throws(() => run({ maxBytes: 999 }), exceeded)
  t.doesNotThrow(() => run({ maxEntries: 4, maxDepth: 3, maxBytes: 1000 }))
  const stopped = new Control()
  stopped.abort()
  t.throws(() => run({}, stopped), { code: 'ERR_KOCI_ABORTED' })
  t.throws(() => applyStored(jobOf(join(base, 'none'), base, {}), new Control()), {
    code: 'ERR_KOCI_IO',
    message: /none/,
  })
  t.end()
})

await t.test(
  'what its owner may not read is left to another way',
  { skip: isRoot && 'root may read all' },
  t => {
    const base = t.testdir()
    const stored = join(base, 'stored')
    mkdirSync(join(stored, 'd'), { recursive: true })
    fs.writeFileSync(join(stored, 'd/x'), 'x')
    for (const [path, mode] of [
      [join(stored, 'd/x'), 0o200],
      [join(stored, 'd'), 0o600],
    ] as const) {
      const before = fs.statSync(path).mode
      fs.chmodSync(path, mode)
      const target = fs.mkdtempSync(join(base, 'target-'))
      t.strictSame(applyStored(jobOf(stored, target, { rootless }), new Control()), {
        barred: true,
        warnings: [],
      })
      t.same(fs.readdirSync(target), [])
      fs.chmodSync(path, before)
    }
    t.end()
  },
)
