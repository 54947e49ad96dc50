import * as fc from 'fast-check'
import { rmSync } from 'node:fs'
import t from 'tap'
import { makeSandbox, type Sandbox } from '../../support/extract.ts'
import { makeMemoryDir } from '../../support/memory-dir.ts'
import { xattrRecord, type TarMember } from '../../support/tar-builder.ts'
import { describeTree } from '../../support/tree.ts'

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

const lower = [
  file('f', 'f'),
  dir('d'),
  file('d/x', 'x'),
  dir('d/sub'),
  file('d/sub/y', 'y'),
  link('l', 'd'),
  link('out', '../canary'),
  dir('empty'),
]
const all = ['d', 'd/sub', 'd/sub/y', 'd/x', 'empty', 'f', 'l', 'out']
const without = (...names: string[]) => all.filter(name => !names.includes(name))

const cases: Array<{ name: string; upper: TarMember[]; left: string[]; warning?: string }> = [
  { name: 'W01 a file', upper: [file('.wh.f')], left: without('f') },
  {
    name: 'W01 a directory and all in it',
    upper: [file('.wh.d')],
    left: without('d', 'd/sub', 'd/sub/y', 'd/x'),
  },
  { name: 'W01 an empty directory', upper: [file('.wh.empty')], left: without('empty') },
  {
    name: 'W01 a symlink, not its target',
    upper: [file('.wh.l'), file('.wh.out')],
    left: without('l', 'out'),
  },
  {
    name: 'W02 nothing',
    upper: [file('.wh.none'), file('none/.wh.x'), file('f/.wh.x'), file('f/x/.wh.x')],
    left: all,
  },
  {
    name: 'W03 a name that the layer makes afterwards',
    upper: [file('.wh.f'), file('f')],
    left: all,
  },
  {
    name: 'W03 a name that the layer made before',
    upper: [file('f'), file('.wh.f')],
    left: all,
  },
  {
    name: 'W03 a name that the layer made anew as a hard link',
    upper: [{ name: 'f', type: 'hardlink', linkname: 'd/x' }, file('.wh.f')],
    left: all,
  },
  {
    name: 'W03 a symlink that the layer made',
    upper: [link('f', 'd'), file('.wh.f')],
    left: all,
  },
  {
    name: 'W03 a directory over a file',
    upper: [dir('f'), file('.wh.f'), file('f/new')],
    left: [...all, 'f/new'].sort(),
  },
  {
    name: 'W04 opaque',
    upper: [file('d/.wh..wh..opq')],
    left: without('d/x', 'd/sub', 'd/sub/y'),
  },
  {
    name: 'W04 opaque, before its siblings',
    upper: [file('d/.wh..wh..opq'), file('d/new')],
    left: ['d', 'd/new', 'empty', 'f', 'l', 'out'],
  },
  {
    name: 'W04 opaque, after its siblings',
    upper: [file('d/new'), file('d/.wh..wh..opq')],
    left: ['d', 'd/new', 'empty', 'f', 'l', 'out'],
  },
  {
    name: 'W04 opaque, twice',
    upper: [file('d/.wh..wh..opq'), file('d/new'), file('d/.wh..wh..opq')],
    left: ['d', 'd/new', 'empty', 'f', 'l', 'out'],
  },
  {
    name: 'W04 opaque root',
    upper: [file('new'), file('.wh..wh..opq'), file('later')],
    left: ['later', 'new'],
  },
  {
    name: 'W04 opaque in what is not there',
    upper: [file('none/.wh..wh..opq'), file('none/deep/.wh..wh..opq')],
    left: all,
  },
  {
    name: 'W04 opaque in a file hides the file',
    upper: [file('f/.wh..wh..opq')],
    left: without('f'),
  },
  {
    name: 'W04 opaque in a file of this layer',
    upper: [file('f', 'new'), file('f/.wh..wh..opq')],
    left: all,
  },
  {
    name: 'W04 opaque through a symlink to a directory',
    upper: [file('l/.wh..wh..opq')],
    left: without('d/x', 'd/sub', 'd/sub/y'),
  },
  {
    name: 'W07 bookkeeping of AUFS',
    upper: [dir('.wh..wh.plnk'), file('.wh..wh.aufs'), file('.wh..wh.f')],
    left: all,
    warning: 'IGNORED_WHITEOUT',
  },
  { name: 'W08 through a symlink', upper: [file('l/.wh.x')], left: without('d/x') },
  {
    name: 'W08 through a symlink to the outside',
    upper: [file('out/.wh.file'), file('out/.wh..wh..opq')],
    left: all,
  },
  {
    name: 'W09 a directory in which the layer wrote',
    upper: [file('d/sub/new'), file('.wh.d')],
    left: ['d', 'd/sub', 'd/sub/new', 'empty', 'f', 'l', 'out'],
  },
  {
    name: 'W09 a directory in which the layer wrote through a symlink',
    upper: [file('l/sub/new'), file('.wh.d')],
    left: ['d', 'd/sub', 'd/sub/new', 'empty', 'f', 'l', 'out'],
  },
  {
    name: 'W10 the type of a whiteout is ignored, and its body',
    upper: [
      dir('.wh.f'),
      link('d/.wh.x', '/etc'),
      { name: 'd/.wh.sub', type: 'hardlink', linkname: 'none' },
      { name: '.wh.l', body: 'x'.repeat(5000) },
      { name: '.wh.out', type: 'char', devmajor: 1 },
    ],
    left: ['d', 'empty'],
  },
  {
    name: 'W11 of a whiteout',
    upper: [file('.wh..wh.f')],
    left: all,
    warning: 'IGNORED_WHITEOUT',
  },
  {
    name: 'a name that only begins like one',
    upper: [file('.wh'), file('.whf')],
    left: ['.wh', '.whf', ...all],
  },
]

await t.test('what whiteouts delete', async t => {
  for (const { name, upper, left, warning } of cases)
    await t.test(name, async t => {
      withSandbox(sandbox => {
        const [, result] = sandbox.apply([lower, upper], { rootless })
        t.strictSame(namesIn(sandbox.rootfs), left)
        t.notOk(sandbox.escaped())
        const codes = (result?.warnings ?? []).map(({ code }) => code)
        t.strictSame(codes.includes(warning ?? 'IGNORED_WHITEOUT'), warning !== undefined)
      })
    })
})

await t.test(
  'W05, W06: whiteouts that name nothing, the directory, or the one above',
  async t => {
    for (const parent of ['', 'd/', 'out/', 'l/'])
      for (const name of ['.wh.', '.wh..', '.wh...'])
        for (const layers of [
          [[...lower, file(`${parent}${name}`)]],
          [lower, [file(`${parent}${name}`)]],
          [lower, [file('d/new'), file(`${parent}${name}`)]],
          [[file(`${parent}${name}`)]],
        ])
          withSandbox(sandbox => {
            t.throws(
              () => sandbox.apply(layers, { rootless }),
              { code: 'ERR_KOCI_INVALID_WHITEOUT' },
              `${parent}${name}`,
            )
            t.notOk(sandbox.escaped())
            if (layers[0]?.includes(lower[0] as TarMember) === true)
              t.ok(
                all.every(name => namesIn(sandbox.rootfs).includes(name)),
                'nothing is gone',
              )
          })
  },
)

await t.test('W12: whiteouts in the base layer delete nothing', async t => {
  withSandbox(sandbox => {
    sandbox.apply([[...lower, file('.wh.f'), file('d/.wh..wh..opq'), file('.wh..wh..opq')]], {
      rootless,
    })
    t.strictSame(namesIn(sandbox.rootfs), all)
  })
})

await t.test('W16: names of bytes, up to the longest', async t => {
  const names = [Buffer.from([0xff, 0x0a]), Buffer.alloc(251, 'n')]
  withSandbox(sandbox => {
    const upper = names.map(name => file(Buffer.concat([Buffer.from('.wh.'), name])))
    sandbox.apply([names.map(name => file(name)), upper], { rootless })
    t.strictSame(namesIn(sandbox.rootfs), [])
  })
})

await t.test(
  'W15: a hundred thousand whiteouts, and an opaque directory again and again',
  async t => {
    const count = 100_000
    withSandbox(sandbox => {
      const numbers = Array.from({ length: count }, (_, index) => index)
      const kept = numbers.slice(0, 2000).map(index => file(`d/n${index}`))
      sandbox.apply([kept], { rootless })
      const start = performance.now()
      sandbox.apply(
        [
          [
            ...kept,
            ...numbers.map(index => file(`d/.wh.${index}`)),
            ...numbers.slice(0, 20_000).map(() => file('d/.wh..wh..opq')),
          ],
        ],
        { rootless },
      )
      t.equal(namesIn(sandbox.rootfs).length, 2001)
      const ms = performance.now() - start
      t.ok(ms < 30_000, `${ms} ms`)
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
