import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import t from 'tap'
import { Bundle } from '../../../lib/bundle/bundle.ts'
import { digestOf } from '../../../lib/oci/digest.ts'

const walk = [
  {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: digestOf(Buffer.from('x')),
    size: 1,
  },
]
const state = {
  chain: [{ name: 'mtree', source: 'koci' }],
  layering: 'merged',
  dialect: 'plain',
} as const

await t.test('private names that are not of our making are left alone', async t => {
  const files = { '.koci-notes': 'mine', '.koci-dir': { file: 'mine' }, '.koci-x.json': 'mine' }
  await t.test('in a directory that becomes a bundle', async t => {
    const directory = t.testdir(files)
    const bundle = await Bundle.begin(directory)
    t.same(readdirSync(directory).sort(), [...Object.keys(files), 'koci.json'].sort())
    await bundle.rollback()
    bundle.release()
    t.same(readdirSync(directory).sort(), Object.keys(files).sort())
  })
  await t.test('in a directory that is refused', async t => {
    const directory = t.testdir({ ...files, rootfs: {} })
    await t.rejects(Bundle.begin(directory), { code: 'ERR_KOCI_CLOBBER' })
    t.same(readdirSync(directory).sort(), [...Object.keys(files), 'rootfs'].sort())
  })
  await t.test('beside what a killed run made', async t => {
    const directory = t.testdir({
      ...files,
      'koci.json': JSON.stringify({ version: 1, state: 'unpacking', created: ['own.json'] }),
      '.koci-own.json': 'half',
      '.koci-koci.json': 'half',
    })
    const bundle = await Bundle.begin(directory)
    await bundle.rollback()
    bundle.release()
    t.same(readdirSync(directory).sort(), Object.keys(files).sort())
  })
})

await t.test("a driver's file whose writing was killed can be written again", async t => {
  const directory = path.join(t.testdir(), 'bundle')
  const bundle = await Bundle.begin(directory)
  await bundle.commit({ walk, mapping: {} }, state)
  writeFileSync(path.join(directory, '.koci-own.json'), 'half')
  await bundle.write('own.json', '{}')
  bundle.release()
  t.equal(readFileSync(path.join(directory, 'own.json'), 'utf8'), '{}')
  t.notOk(existsSync(path.join(directory, '.koci-own.json')))
})

await t.test('a commit whose last write fails can still be rolled back', async t => {
  const directory = path.join(t.testdir(), 'bundle')
  const bundle = await Bundle.begin(directory)
  mkdirSync(await bundle.claim('rootfs'))
  await bundle.write('umoci.json', '{}')
  mkdirSync(path.join(directory, '.koci-koci.json'))
  await t.rejects(bundle.commit({ walk, mapping: {} }, state), { code: 'ERR_KOCI_IO' })
  t.equal(bundle.ready, undefined)
  t.equal(bundle.umoci, undefined)
  await bundle.rollback()
  bundle.release()
  t.same(readdirSync(directory), ['.koci-koci.json'], 'not of our making')
})

await t.test('only plain names can be claimed, written, read or discarded', async t => {
  const base = t.testdir({ precious: 'data' })
  const bundle = await Bundle.begin(path.join(base, 'bundle'))
  const absolute = path.join(base, 'precious')
  for (const name of ['../precious', 'a/b', '.', '..', '', absolute, 'a\nb'])
    for (const use of [
      () => bundle.claim(name),
      () => bundle.write(name, 'x'),
      async () => bundle.read(name),
      async () => bundle.discard(name),
    ])
      await t.rejects(
        Promise.resolve<unknown>(use()),
        { code: 'ERR_KOCI_INVALID_OPTION' },
        JSON.stringify(name),
      )
  await bundle.rollback()
  bundle.release()
  t.same(readdirSync(base), ['precious'])
})

await t.test(
  "a directory of somebody else's that anyone may write in is left as it was",
  { skip: process.geteuid?.() !== 0 && 'needs root: files of two users' },
  async t => {
    const directory = t.testdir({ 'notes.txt': 'mine' })
    chmodSync(directory, 0o777)
    for (let at = path.dirname(directory); at !== '/'; at = path.dirname(at))
      if ((statSync(at).mode & 0o005) !== 0o005)
        return void t.pass(`skipped: an ordinary user can't enter ${at}`)
    process.seteuid?.(65534)
    try {
      await t.rejects(Bundle.begin(directory), {
        code: 'ERR_KOCI_IO',
        cause: { code: 'EPERM', syscall: 'chmod' },
      })
    } finally {
      process.seteuid?.(0)
    }
    t.same(readdirSync(directory), ['notes.txt'])
  },
)

await t.test('where the directory vanishes meanwhile no file appears in its place', async t => {
  const directory = path.join(t.testdir(), 'bundle')
  const child = spawn('sh', ['-c', `while :; do rmdir "$0" 2>/dev/null; done`, directory])
  t.teardown(() => child.kill('SIGKILL'))
  await once(child, 'spawn')
  const deadline = performance.now() + 1500
  while (performance.now() < deadline) {
    const bundle = await Bundle.begin(directory).catch((error: NodeJS.ErrnoException) => {
      t.match(error.code, /^ERR_KOCI_/)
    })
    if (existsSync(directory) && !statSync(directory, { throwIfNoEntry: false })?.isFile()) {
      await bundle?.rollback()
      bundle?.release()
    } else bundle?.release()
    if (statSync(directory, { throwIfNoEntry: false })?.isFile())
      return void t.fail('a file in the place of the directory')
  }
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.pass('never a file')
})

const malformed = [
  {},
  { chain: 'mtree', layering: 'merged', dialect: 'plain' },
  ...[
    1,
    null,
    'mtree',
    {},
    { name: 1, source: 'koci' },
    { name: 'x', source: 'file' },
    { name: 'x', source: 'koci', package: 'koci-driver-x' },
    { name: 'x', source: 'package' },
    { name: 'x', source: 'package', package: './koci-driver-x' },
    { name: 'x', source: 'package', package: '../koci-driver-x' },
    { name: 'x', source: 'package', package: '/koci-driver-x' },
    { name: 'x', source: 'package', package: 'koci-driver-x/../../y' },
    { name: 'x', source: 'package', package: 'koci-driver-x/y' },
    { name: 'x', source: 'package', package: 'file:koci-driver-x' },
    { name: 'x', source: 'package', package: 'node:fs' },
    { name: 'x', source: 'package', package: 'yargs' },
    { name: 'x', source: 'koci', options: null },
    { name: 'x', source: 'koci', options: { y: 1 } },
  ].map(driver => ({ chain: [driver], layering: 'merged', dialect: 'plain' })),
  { chain: [], layering: 'heaped', dialect: 'plain' },
  { chain: [], layering: 'merged', dialect: {} },
  { chain: [], layering: 'merged', dialect: 'plain', chosenBy: { name: 'x' } },
  { chain: [], layering: 'stacked', dialect: 'plain' },
  { chain: [], layering: 'merged', dialect: 'plain', drivers: [] },
]
for (const json of malformed)
  await t.test(`koci.json that says ${JSON.stringify(json)}`, async t => {
    const directory = t.testdir({
      rootfs: {},
      'koci.json': JSON.stringify({ version: 1, state: 'ready', ...json }),
      'umoci.json': JSON.stringify({
        umoci_version: '2',
        from_descriptor_path: { descriptor_walk: walk },
      }),
    })
    await t.rejects(Bundle.open(directory), {
      code: 'ERR_KOCI_INVALID_BUNDLE',
      message: /koci\.json: not a usable bundle/,
    })
  })

await t.test('what drivers keep survives in a bundle that an empty chain made', async t => {
  const directory = path.join(t.testdir(), 'bundle')
  const made = await Bundle.begin(directory)
  await made.commit({ walk, mapping: {} }, { ...state, chain: [] })
  made.release()
  const bundle = await Bundle.open(directory)
  bundle.keep('own', { since: 1 })
  await bundle.rebase(walk, 'images')
  bundle.release()
  const again = await Bundle.open(directory)
  t.same(again.recall('own'), { since: 1 })
  again.release()
})

await t.test('a bundle of umoci is not one that koci completed', async t => {
  const directory = t.testdir({
    'umoci.json': JSON.stringify({
      umoci_version: '2',
      from_descriptor_path: { descriptor_walk: walk },
    }),
  })
  const bundle = await Bundle.open(directory)
  t.equal(bundle.ready, undefined)
  bundle.release()
})
