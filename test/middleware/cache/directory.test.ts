import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { findStore, makeStore } from '../../../middleware/cache/directory.ts'
import { defaultStoreDirectory } from '../../../lib/fs/store-directory.ts'
import { checkOptions } from '../../../middleware/cache/options.ts'

const isRoot = process.geteuid?.() === 0

await t.test('a store is made private, with its parents, and tagged', async t => {
  const dir = path.join(t.testdir(), 'deep', 'store')
  t.equal(findStore(dir), undefined)
  t.notOk(existsSync(dir), 'looking makes nothing')
  const own = makeStore(dir)
  t.equal(own, path.join(dir, 'v1'))
  t.equal(statSync(own).mode & 0o7777, 0o700)
  t.match(readFileSync(path.join(dir, 'CACHEDIR.TAG'), 'latin1'), /^Signature: 8a477f597d28d1/)
  t.equal(makeStore(dir), own)
  t.equal(findStore(dir), own)
  mkdirSync(path.join(dir, 'v2'))
  mkdirSync(path.join(dir, 'node'))
  rmSync(path.join(own, 'leases'), { recursive: true })
  t.equal(makeStore(dir), own, 'beside other versions, and whole again')
  t.ok(existsSync(path.join(own, 'leases')))
})

await t.test('a link of the user may lead to it', async t => {
  const base = t.testdir({ real: {} })
  chmodSync(path.join(base, 'real'), 0o755)
  symlinkSync('real', path.join(base, 'link'))
  t.equal(makeStore(path.join(base, 'link')), path.join(base, 'real/v1'))
})

interface Case {
  readonly name: string
  readonly code: string
  readonly reason: RegExp
  readonly spoil: (dir: string) => void
  readonly needsRoot?: boolean
}

const untrusted = 'ERR_KOCI_UNTRUSTED'
const invalid = 'ERR_KOCI_INVALID_STORE'
const cases: Case[] = [
  {
    name: 'others can write to',
    code: untrusted,
    reason: /others can write/,
    spoil: dir => chmodSync(dir, 0o777),
  },
  {
    name: 'a group can write to',
    code: untrusted,
    reason: /mode is 775/,
    spoil: dir => chmodSync(dir, 0o775),
  },
  {
    name: 'somebody else owns',
    code: untrusted,
    reason: /belongs to user 4321/,
    spoil: dir => chownSync(dir, 4321, 0),
    needsRoot: true,
  },
  {
    name: 'everybody can replace',
    code: untrusted,
    reason: /others can write to/,
    spoil: dir => chmodSync(path.dirname(dir), 0o777),
  },
  {
    name: 'is a file',
    code: invalid,
    reason: /no directory/,
    spoil: dir => {
      rmSync(dir, { recursive: true })
      writeFileSync(dir, '')
    },
  },
  {
    name: 'has something else in it',
    code: invalid,
    reason: /something else in it, such as mine/,
    spoil: dir => writeFileSync(path.join(dir, 'mine'), ''),
  },
  {
    name: 'has a file where the store should be',
    code: invalid,
    reason: /no directory/,
    spoil: dir => writeFileSync(path.join(dir, 'v1'), ''),
  },
  {
    name: 'others can look into',
    code: untrusted,
    reason: /mode is 755.*chmod it to 700/,
    spoil: dir => {
      mkdirSync(path.join(dir, 'v1'))
      chmodSync(path.join(dir, 'v1'), 0o755)
    },
  },
  {
    name: "somebody else's store is in",
    code: untrusted,
    reason: /belongs to user 4321/,
    spoil: dir => {
      mkdirSync(path.join(dir, 'v1'), 0o700)
      chownSync(path.join(dir, 'v1'), 4321, 0)
    },
    needsRoot: true,
  },
]

for (const { name, code, reason, spoil, needsRoot } of cases)
  await t.test(
    `a directory is refused that ${name}`,
    { skip: needsRoot === true && !isRoot && 'needs root' },
    async t => {
      const dir = path.join(t.testdir({ parent: { store: {} } }), 'parent/store')
      chmodSync(dir, 0o755)
      spoil(dir)
      t.throws(() => makeStore(dir), { code, message: reason })
      t.notOk(existsSync(path.join(dir, 'CACHEDIR.TAG')), 'nothing was made')
    },
  )

await t.test(
  'a link of somebody else is not followed',
  { skip: !isRoot && 'needs root' },
  async t => {
    const base = t.testdir({ real: {} })
    const link = path.join(base, 'link')
    symlinkSync('real', link)
    const { lchownSync } = await import('node:fs')
    lchownSync(link, 4321, 0)
    t.throws(() => makeStore(link), { code: untrusted })
  },
)

await t.test('where it is by default', async t => {
  const home = { HOME: '/home/me' }
  const inUser = process.geteuid?.() !== 0
  const wanted = inUser ? '/home/me/.cache/koci' : '/var/lib/koci'
  t.equal(defaultStoreDirectory('option dir', home), wanted)
  if (!inUser) return
  t.equal(defaultStoreDirectory('option dir', { ...home, XDG_CACHE_HOME: '/x' }), '/x/koci')
  t.equal(
    defaultStoreDirectory('option dir', { ...home, XDG_CACHE_HOME: 'x' }),
    wanted,
    'as the specification has it',
  )
  t.throws(() => defaultStoreDirectory('option dir', {}), { code: 'ERR_KOCI_INVALID_OPTION' })
  t.equal(checkOptions({ dir: 'x' }).dir, path.resolve('x'))
})
