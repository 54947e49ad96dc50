import * as fc from 'fast-check'
import { rmSync } from 'node:fs'
import t from 'tap'
import { cpuTime } from '../../support/cpu-time.ts'
import { makeSandbox, type Sandbox } from '../../support/extract.ts'
import { makeMemoryDir } from '../../support/memory-dir.ts'
import { xattrRecord, type TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'
import '../../support/seed.ts'

const rootless = process.getuid?.() !== 0

const file = (name: string | Buffer, body = ''): TarMember => ({ name, body, mtime: 1 })
const dir = (name: string, rest: Partial<TarMember> = {}): TarMember => ({
  name,
  type: 'directory',
  mtime: 2,
  ...rest,
})
const link = (name: string, linkname: string): TarMember => ({
  name,
  type: 'symlink',
  linkname,
})

function withSandbox<Result>(run: (sandbox: Sandbox) => Result): Result {
  const base = makeMemoryDir('koci-whiteouts-')
  try {
    return run(makeSandbox(base))
  } finally {
    rmSync(base, { recursive: true })
  }
}

function namesIn(rootfs: string): string[] {
  return describeTree(rootfs, { root: false, xattrs: false }).map(
    line => line.split(' ')[0] ?? '',
  )
}

await t.test(
  'W15: a hundred thousand whiteouts, and an opaque directory again and again',
  async t => {
    const count = 100_000
    withSandbox(sandbox => {
      const numbers = Array.from({ length: count }, (_, index) => index)
      const kept = numbers.slice(0, 2000).map(index => file(`d/n${index}`))
      sandbox.apply([kept], { rootless })
      const upper = [
        ...kept,
        ...numbers.map(index => file(`d/.wh.${index}`)),
        ...numbers.slice(0, 20_000).map(() => file('d/.wh..wh..opq')),
      ]
      const ms = cpuTime(() => sandbox.apply([upper], { rootless }))
      t.equal(namesIn(sandbox.rootfs).length, 2001)
      t.ok(ms < 40_000, `${ms} ms`)
    })
  },
)

await t.test(
  'a directory that is kept only for what is in it loses what lower layers said of it',
  async t => {
    withSandbox(sandbox => {
      const before = [dir('d', { mode: 0o700, pax: [xattrRecord('user.a', '1')] }), file('d/x')]
      sandbox.apply([before, [file('d/new'), file('.wh.d')]], { rootless })
      const [line] = describeTree(sandbox.rootfs, { root: false })
      t.match(line, /^d dir 755 \d+:\d+ @0$/)
    })
  },
)

// Additions name each path once, as layers must; symlinks that lead somewhere are left out:
// there the order decides which tree an addition or a whiteout is in.
await t.test('the order of whiteouts and additions in a layer makes no difference', async t => {
  const path = fc
    .array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 3 })
    .map(parts => parts.join('/'))
  const addition = fc.oneof(
    path.map(name => file(name, name)),
    path.map(name => dir(name, { mode: 0o750, pax: [xattrRecord('user.k', 'v')] })),
    path.map(name => link(name, 'nowhere')),
  )
  const whiteout = path.map(name => {
    const at = name.lastIndexOf('/') + 1
    return file(`${name.slice(0, at)}.wh.${name.slice(at)}`)
  })
  const opaque = fc
    .oneof(
      path.map(name => `${name}/`),
      fc.constant(''),
    )
    .map(name => file(`${name}.wh..wh..opq`))
  const tree = fc.uniqueArray(addition, {
    maxLength: 8,
    selector: member => String(member.name),
  })
  // no addition may be beneath another that is no directory
  const consistent = (members: TarMember[]) =>
    members.every(
      ({ name, type }) =>
        type === 'directory' ||
        !members.some(other => String(other.name).startsWith(`${String(name)}/`)),
    )
  const layers = fc
    .record({
      lower: tree
        .filter(consistent)
        .map(members => members.filter(({ type }) => type !== 'symlink')),
      additions: tree.filter(consistent),
      whiteouts: fc.array(fc.oneof(whiteout, opaque), { maxLength: 6 }),
    })
    .chain(({ lower, additions, whiteouts }) => {
      const upper = [...additions, ...whiteouts]
      const shuffled = fc.shuffledSubarray(upper, { minLength: upper.length })
      return fc.record({ lower: fc.constant(lower), one: shuffled, other: shuffled })
    })
  const apply = (lower: TarMember[], upper: TarMember[]) =>
    withSandbox(sandbox => {
      sandbox.apply([lower, upper], { rootless })
      return describeTree(sandbox.rootfs, { root: false })
    })
  let different = 0
  fc.assert(
    fc.property(layers, ({ lower, one, other }) => {
      const found = apply(lower, one)
      if (found.join() !== apply(lower, []).join()) different += 1
      return apply(lower, other).join('\n') === found.join('\n')
    }),
    { numRuns: 300, interruptAfterTimeLimit: 80_000, markInterruptAsFailure: true },
  )
  t.ok(different > 100)
})
