import {
  appendFileSync,
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { cstring } from '../../../lib/fs/libc.ts'
import { setxattr } from '../../../lib/fs/xattr-calls.ts'
import { verify } from '../../../middleware/cache/verify.ts'
import { readCompletion } from '../../../middleware/cache/completion.ts'
import { listLayers } from '../../../middleware/cache/list.ts'
import type { Store } from '../../../middleware/cache/store.ts'
import { amend, Workshop } from '../../support/store.ts'
import { makeMemoryDir } from '../../support/memory-dir.ts'

const isRoot = process.geteuid?.() === 0
const base = makeMemoryDir('koci-verify-')
t.teardown(() => rmSync(base, { recursive: true, force: true }))

const shop = await Workshop.open(base, [
  [
    { name: 'd/', type: 'directory', mode: 0o755 },
    { name: 'd/f', body: 'content', mtime: 1000 },
    { name: 'd/g', body: 'y'.repeat(5000), mtime: 1000 },
    { name: 'e', mtime: 1000 },
    { name: 'l', type: 'symlink', linkname: 'd/f', mtime: 1000 },
    { name: 'p', type: 'fifo', mtime: 1000 },
    { name: 'h1', body: 'h', mtime: 1000 },
    { name: 'h2', type: 'hardlink', linkname: 'h1' },
    { name: 'h3', body: 'h', mtime: 1000 },
    { name: 'h4', type: 'hardlink', linkname: 'h3' },
  ],
])
const verdicts = (repair = false) => Array.fromAsync(verify(shop.store, { repair }))

/** Puts back the times that a change moved: all that somebody can who hides it. */
function hidden(file: string, change: () => void): void {
  const { atime, mtime } = statSync(file)
  change()
  utimesSync(file, atime, mtime)
}

const damages: [
  name: string,
  problem: string,
  damage: (tree: string) => void,
  needs?: 'root',
][] = [
  [
    'a byte',
    'changed d/f',
    tree => hidden(`${tree}/d/f`, () => writeFileSync(`${tree}/d/f`, 'Content')),
  ],
  [
    'a longer file',
    'changed d/f',
    tree => hidden(`${tree}/d/f`, () => appendFileSync(`${tree}/d/f`, 'x')),
  ],
  [
    'a file that lost its content',
    'changed d/g',
    tree => hidden(`${tree}/d/g`, () => truncateSync(`${tree}/d/g`)),
  ],
  [
    'a file full of zeros',
    'changed d/g',
    tree => hidden(`${tree}/d/g`, () => writeFileSync(`${tree}/d/g`, Buffer.alloc(5000))),
  ],
  [
    'a mode',
    'changed d/f',
    tree => hidden(`${tree}/d/f`, () => chmodSync(`${tree}/d/f`, 0o600)),
  ],
  ['a mode of a directory', 'changed d', tree => chmodSync(`${tree}/d`, 0o700)],
  ['the mode of the root', 'changed', tree => chmodSync(tree, 0o700)],
  [
    'an owner',
    'changed d/f',
    tree => hidden(`${tree}/d/f`, () => chownSync(`${tree}/d/f`, 7, 7)),
    'root',
  ],
  [
    'an attribute',
    'changed d/f',
    tree => void setxattr(cstring(`${tree}/d/f`), cstring('user.x'), Buffer.from('1')),
  ],
  ['a time', 'changed e', tree => utimesSync(`${tree}/e`, 1000, 1000.000001)],
  ['a time of a directory', 'changed d', tree => utimesSync(`${tree}/d`, 1, 1)],
  [
    'a name more',
    'added d/x',
    tree => hidden(`${tree}/d`, () => writeFileSync(`${tree}/d/x`, '')),
  ],
  [
    'a directory more',
    'added d/x',
    tree => hidden(`${tree}/d`, () => mkdirSync(`${tree}/d/x`)),
  ],
  ['a name less', 'missing d/f', tree => hidden(`${tree}/d`, () => rmSync(`${tree}/d/f`))],
  [
    'a directory less',
    'missing d',
    tree => hidden(tree, () => rmSync(`${tree}/d`, { recursive: true })),
  ],
  [
    'another link target',
    'changed l',
    tree =>
      hidden(tree, () => {
        rmSync(`${tree}/l`)
        symlinkSync('d/g', `${tree}/l`)
      }),
  ],
  [
    'a fifo that is a file',
    'changed p',
    tree =>
      hidden(tree, () => {
        rmSync(`${tree}/p`)
        writeFileSync(`${tree}/p`, '')
      }),
  ],
  [
    'a hard link more',
    'added z',
    tree => hidden(tree, () => linkSync(`${tree}/e`, `${tree}/z`)),
  ],
  [
    'a name that became another one',
    'missing e',
    tree => hidden(tree, () => renameSync(`${tree}/e`, `${tree}/E`)),
  ],
  ['no tree', 'no tree', tree => rmSync(tree, { recursive: true })],
  ['no record', 'no record', tree => rmSync(path.join(tree, '../record'))],
  ['a damaged record', 'no record', tree => appendFileSync(path.join(tree, '../record'), 'x')],
  [
    'a record of another tree',
    'no record',
    tree => {
      const file = path.join(tree, '../record')
      const bytes = readFileSync(file)
      bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1
      writeFileSync(file, bytes)
    },
  ],
  [
    'names of other files that look the same',
    'changed h2',
    tree =>
      hidden(tree, () => {
        for (const name of ['h2', 'h4']) rmSync(`${tree}/${name}`)
        linkSync(`${tree}/h1`, `${tree}/h4`)
        linkSync(`${tree}/h3`, `${tree}/h2`)
      }),
  ],
  [
    'a file beside the tree',
    'added ../more',
    tree => writeFileSync(`${path.dirname(tree)}/more`, ''),
  ],
  [
    'a completion record under another name',
    'no record',
    tree => {
      const layer = path.dirname(tree)
      const other = path.join(path.dirname(layer), '0'.repeat(32))
      renameSync(layer, other)
      renameSync(`${layer}.json`, `${other}.json`)
    },
  ],
  [
    'a layer without a completion record',
    'no record',
    tree => rmSync(`${path.dirname(tree)}.json`),
  ],
  [
    'a damaged completion record',
    'no record',
    tree => writeFileSync(`${path.dirname(tree)}.json`, '{'),
  ],
]

for (const [name, problem, damage, needs] of damages)
  await t.test(
    `finds ${name}`,
    { skip: needs === 'root' && !isRoot && 'needs root' },
    async t => {
      const { layers, extracted } = await shop.unpack()
      t.same(extracted, [0], 'what was removed is extracted again')
      const tree = layers[0]?.placed?.dir ?? ''
      t.match(await verdicts(), [{ state: 'good', problems: [] }])
      damage(tree)
      const [found] = await verdicts()
      t.equal(found?.state, 'damaged')
      const lines = (found?.problems ?? []).map(({ kind, path }) => `${kind} ${path}`.trim())
      t.ok(lines.includes(problem), lines.join(', '))
      t.match(await verdicts(true), [{ state: 'damaged', repaired: true }])
      t.same(shop.names, [])
      t.same(shop.staging, [])
    },
  )

await t.test('no byte of a completion record can change', async t => {
  const { layers } = await shop.unpack()
  const file = shop.store.completion(shop.store.nameOf(layers[0]?.placed?.dir) ?? '')
  const bytes = readFileSync(file)
  t.ok(readCompletion(file))
  const unnoticed = [...bytes.keys()].filter(at => {
    writeFileSync(file, bytes.with(at, (bytes[at] as number) ^ 1))
    return readCompletion(file) !== undefined
  })
  t.same(unnoticed, [])
  writeFileSync(file, bytes.subarray(0, -1))
  t.equal(readCompletion(file), undefined, 'a shorter one')
  writeFileSync(file, bytes)
})

await t.test('is not fooled by reading, and leaves what is locked alone', async t => {
  const { layers } = await shop.unpack()
  const name = shop.store.nameOf(layers[0]?.placed?.dir) ?? ''
  readFileSync(`${shop.store.tree(name)}/d/f`)
  t.match(await verdicts(), [{ state: 'good' }])
  {
    using _ = shop.store.tryLock(name, { shared: false })
    t.match(await verdicts(true), [{ state: 'busy', repaired: false }])
  }
  writeFileSync(`${shop.store.tree(name)}/e`, 'x')
  {
    using _ = shop.store.tryLock(name, { shared: true })
    t.match(await verdicts(true), [{ state: 'damaged', repaired: false }])
  }
  t.same(shop.names, [name])
  amend(shop.store, name, { boot: 'x', durable: false })
  t.match(await verdicts(), [{ state: 'outdated' }])
})

/** Does something as soon as a lock of this kind is asked for, before it is given. */
function before(shared: boolean, act: () => void): Store {
  const { store } = shop
  const tryLock = store.tryLock.bind(store)
  let isDone = false
  store.tryLock = (name, options) => {
    if (options.shared === shared && !isDone) {
      isDone = true
      act()
    }
    return tryLock(name, options)
  }
  return store
}

await t.test('what is repaired and stored anew before the lock is had stays', async t => {
  const { layers } = await shop.unpack()
  const name = shop.store.nameOf(layers[0]?.placed?.dir) ?? ''
  const tree = shop.store.tree(name)
  const file = `${tree}/d/f`
  hidden(file, () => writeFileSync(file, 'Content'))
  const store = before(false, () => hidden(file, () => writeFileSync(file, 'content')))
  const found = await Array.fromAsync(verify(store, { repair: true }))
  t.match(found, [{ state: 'good', problems: [], repaired: false }])
  t.same(shop.names, [name])
})

await t.test('what is removed meanwhile is not damaged', async t => {
  await shop.unpack()
  const store = before(true, () => {
    for (const name of shop.names) {
      rmSync(shop.store.completion(name))
      rmSync(shop.store.layer(name), { recursive: true })
    }
  })
  t.same(await Array.fromAsync(verify(store)), [])
})

await t.test('a store that is just being made has no layers', async t => {
  await shop.unpack()
  const { store } = shop
  rmSync(path.join(shop.dir, 'v1/layers'), { recursive: true })
  t.same(store.names(), [])
  t.same(await listLayers(store), [])
  t.same(await verdicts(), [])
})
