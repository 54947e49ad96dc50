import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Bundle } from '../../../lib/bundle/bundle.ts'
import { digestOf } from '../../../lib/oci/digest.ts'

const isRoot = process.geteuid?.() === 0
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
  chosenBy: undefined,
} as const

function mode(file: string): number {
  return statSync(file).mode & 0o7777
}

await t.test(
  'a new bundle is made with its parents, 0700, and says that it is being unpacked',
  async t => {
    const directory = path.join(t.testdir(), 'deep/er/bundle')
    const bundle = await Bundle.begin(directory)
    t.equal(mode(directory), 0o700)
    t.match(JSON.parse(readFileSync(path.join(directory, 'koci.json'), 'utf8')), {
      state: 'unpacking',
      created: [],
    })
    t.equal(bundle.rootfs, path.join(directory, 'rootfs'))
    await bundle.rollback()
    bundle.release()
    t.notOk(
      existsSync(path.dirname(path.dirname(directory))),
      'the parents it made are gone, too',
    )
  },
)

await t.test('a complete bundle can be opened, and remembers what drivers kept', async t => {
  const directory = path.join(t.testdir(), 'bundle')
  const bundle = await Bundle.begin(directory)
  mkdirSync(await bundle.claim('rootfs'))
  bundle.keep('mtree', { some: ['data'] })
  await bundle.write('config.json', '{}\n')
  const mapping = { rootless: true, uidMap: [{ containerID: 0, hostID: 1000, size: 1 }] }
  await bundle.commit({ walk, mapping }, state)
  bundle.release()

  const again = await Bundle.open(directory)
  t.same(again.recall('mtree'), { some: ['data'] })
  t.match(again.umoci, { walk, mapping })
  t.match(again.ready, { chain: [{ name: 'mtree', source: 'koci' }], layering: 'merged' })
  t.same(readdirSync(directory).sort(), ['config.json', 'koci.json', 'rootfs', 'umoci.json'])
  t.match(JSON.parse(readFileSync(path.join(directory, 'umoci.json'), 'utf8')), {
    umoci_version: '2',
    from_descriptor_path: { descriptor_walk: walk },
    map_options: { uid_mappings: mapping.uidMap, gid_mappings: null, rootless: true },
  })
  again.release()
})

await t.test('a failed unpack leaves a directory that was there as it was', async t => {
  const directory = t.testdir({ 'notes.txt': 'mine' })
  chmodSync(directory, 0o755)
  const bundle = await Bundle.begin(directory)
  t.equal(mode(directory), 0o700)
  mkdirSync(await bundle.claim('rootfs'))
  writeFileSync(path.join(bundle.rootfs, 'file'), 'x')
  await bundle.write('config.json', '{}')
  await bundle.rollback()
  bundle.release()
  t.same(readdirSync(directory), ['notes.txt'])
  t.equal(mode(directory), 0o755)
})

for (const name of ['rootfs', 'config.json', 'umoci.json'])
  await t.test(`an existing ${name} is an error that touches nothing`, async t => {
    const directory = t.testdir({
      [name]: name === 'rootfs' ? { precious: 'data' } : 'precious',
    })
    chmodSync(directory, 0o755)
    const before = lstatSync(path.join(directory, name), { bigint: true })
    await t.rejects(Bundle.begin(directory), {
      code: 'ERR_KOCI_CLOBBER',
      message: new RegExp(`${name}: already exists`),
    })
    t.same(readdirSync(directory), [name])
    t.equal(lstatSync(path.join(directory, name), { bigint: true }).ctimeNs, before.ctimeNs)
    t.equal(mode(directory), 0o755)
  })

await t.test('what a killed run made is undone by the next, and nothing else', async t => {
  const directory = t.testdir({
    'koci.json': JSON.stringify({
      version: 1,
      state: 'unpacking',
      created: ['rootfs', 'config.json'],
      mode: 0o750,
    }),
    rootfs: { half: 'done', dir: { deeper: 'x' } },
    '.koci-umoci.json': 'half',
    'notes.txt': 'mine',
  })
  const bundle = await Bundle.begin(directory)
  t.same(readdirSync(directory).sort(), ['koci.json', 'notes.txt'])
  await bundle.rollback()
  bundle.release()
  t.same(readdirSync(directory), ['notes.txt'])
  t.equal(mode(directory), 0o750, 'the mode is the one before the killed run')
})

await t.test(
  'a killed run leaves names, never paths: a damaged list deletes nothing',
  async t => {
    for (const created of [
      ['../precious'],
      ['rootfs/../../precious'],
      ['.'],
      ['..'],
      ['/etc'],
      [''],
      [7],
      'rootfs',
    ]) {
      const base = t.testdir({
        precious: { file: 'data' },
        bundle: { 'koci.json': JSON.stringify({ version: 1, state: 'unpacking', created }) },
      })
      await t.rejects(Bundle.begin(path.join(base, 'bundle')), {
        code: 'ERR_KOCI_INVALID_BUNDLE',
      })
      t.equal(readFileSync(path.join(base, 'precious/file'), 'utf8'), 'data')
    }
  },
)

await t.test(
  'a link in the place of something the dead run made is removed, not followed',
  async t => {
    const base = t.testdir({
      precious: { file: 'data' },
      bundle: {
        'koci.json': JSON.stringify({ version: 1, state: 'unpacking', created: ['rootfs'] }),
        rootfs: t.fixture('symlink', '../precious'),
      },
    })
    const bundle = await Bundle.begin(path.join(base, 'bundle'))
    t.equal(readFileSync(path.join(base, 'precious/file'), 'utf8'), 'data')
    await bundle.rollback()
    bundle.release()
  },
)

await t.test('two at once: the second is told, and disturbs nothing', async t => {
  const directory = path.join(t.testdir(), 'bundle')
  const bundle = await Bundle.begin(directory)
  await t.rejects(Bundle.begin(directory), { code: 'ERR_KOCI_LOCKED' })
  await t.rejects(Bundle.open(directory), { code: 'ERR_KOCI_LOCKED' })
  mkdirSync(await bundle.claim('rootfs'))
  await bundle.commit({ walk, mapping: {} }, state)
  bundle.release()
  const opened = await Bundle.open(directory)
  await t.rejects(Bundle.open(directory), { code: 'ERR_KOCI_LOCKED' })
  opened.release()
})

await t.test('claiming what is there is refused', async t => {
  const directory = t.testdir({ 'notes.txt': 'mine' })
  const bundle = await Bundle.begin(directory)
  await t.rejects(bundle.claim('notes.txt'), { code: 'ERR_KOCI_CLOBBER' })
  await bundle.rollback()
  bundle.release()
  t.same(readdirSync(directory), ['notes.txt'])
})

await t.test('what cannot be a bundle directory says why', async t => {
  const base = t.testdir({ file: 'x', dangling: t.fixture('symlink', 'nowhere') })
  for (const [name, message] of [
    ['file', /file: not a usable bundle: there is something else/],
    ['dangling', /dangling: not a usable bundle: it is a symlink to nowhere/],
  ] as const)
    await t.rejects(Bundle.begin(path.join(base, name)), {
      code: 'ERR_KOCI_INVALID_BUNDLE',
      message,
    })
  await t.rejects(Bundle.begin(path.join(base, 'file/deeper')), { code: 'ERR_KOCI_IO' })
})

await t.test(
  'a bundle that cannot be written',
  { skip: isRoot && 'root may write everywhere' },
  async t => {
    const directory = t.testdir({})
    chmodSync(directory, 0o555)
    try {
      const cause = { code: 'EACCES' }
      await t.rejects(Bundle.begin(directory), { code: 'ERR_KOCI_IO', cause })
      t.same(readdirSync(directory), [])
    } finally {
      chmodSync(directory, 0o755)
    }
  },
)

const damaged: [what: string, files: Record<string, string>, code: string][] = [
  ['no umoci.json', {}, 'ERR_KOCI_INVALID_BUNDLE'],
  ['umoci.json that is no JSON', { 'umoci.json': '{' }, 'ERR_KOCI_INVALID_JSON'],
  [
    'umoci.json of another version',
    { 'umoci.json': '{"umoci_version":"9"}' },
    'ERR_KOCI_UNSUPPORTED_VERSION',
  ],
  [
    'umoci.json without an image',
    { 'umoci.json': '{"umoci_version":"2","from_descriptor_path":{"descriptor_walk":[]}}' },
    'ERR_KOCI_INVALID_BUNDLE',
  ],
  [
    'umoci.json with overlay whiteouts',
    { 'umoci.json': JSON.stringify({ umoci_version: '2', whiteout_mode: 1 }) },
    'ERR_KOCI_INVALID_BUNDLE',
  ],
  [
    'an unfinished unpack',
    { 'koci.json': '{"version":1,"state":"unpacking","created":[]}' },
    'ERR_KOCI_INVALID_BUNDLE',
  ],
  [
    'koci.json of another version',
    { 'koci.json': '{"version":2,"state":"ready"}' },
    'ERR_KOCI_UNSUPPORTED_VERSION',
  ],
  [
    'koci.json of an unknown state',
    { 'koci.json': '{"version":1,"state":"asleep"}' },
    'ERR_KOCI_INVALID_BUNDLE',
  ],
]
for (const [what, files, code] of damaged)
  await t.test(`opening a bundle with ${what}`, async t => {
    const directory = t.testdir({ rootfs: {}, ...files })
    await t.rejects(Bundle.open(directory), { code })
    await t.rejects(Bundle.open(directory), { code }, 'and the lock was given back')
  })

await t.test('opening what is not there, or no directory', async t => {
  const base = t.testdir({ file: 'x' })
  for (const name of ['nothing', 'file'])
    await t.rejects(Bundle.open(path.join(base, name)), { code: 'ERR_KOCI_INVALID_BUNDLE' })
})

await t.test(
  'a bundle of umoci is based on another image without getting a koci.json',
  async t => {
    const umoci = {
      umoci_version: '2',
      whiteout_mode: 0,
      from_descriptor_path: { descriptor_walk: walk },
      map_options: { uid_mappings: null, gid_mappings: null, rootless: false },
    }
    const directory = t.testdir({ rootfs: {}, 'umoci.json': JSON.stringify(umoci) })
    const bundle = await Bundle.open(directory)
    const moved = [{ ...walk[0], digest: digestOf(Buffer.from('y')) }] as typeof walk
    await bundle.rebase(moved, 'images')
    bundle.release()
    t.same(JSON.parse(readFileSync(path.join(directory, 'umoci.json'), 'utf8')), {
      ...umoci,
      from_descriptor_path: { descriptor_walk: moved },
    })
    t.same(readdirSync(directory).sort(), ['rootfs', 'umoci.json'])
  },
)

await t.test('metadata files that are links or fifos are not followed', async t => {
  const base = t.testdir({ secret: 'data', bundle: { rootfs: {} } })
  symlinkSync('../secret', path.join(base, 'bundle/umoci.json'))
  await t.rejects(Bundle.open(path.join(base, 'bundle')), { code: 'ERR_KOCI_IO' })
})

await t.test(
  'a place where nothing can be made is an error, not an endless loop',
  { timeout: 10_000 },
  async t => {
    for (const directory of ['/proc/koci-test', '/proc/koci-test/deeper'])
      await t.rejects(Bundle.begin(directory), {
        code: 'ERR_KOCI_IO',
        cause: { code: 'ENOENT' },
      })
  },
)

await t.test('eight at once into a place whose parents are missing: one gets it', async t => {
  const directory = path.join(t.testdir(), 'a/b/c/bundle')
  const outcomes = await Promise.allSettled(
    Array.from({ length: 8 }, () => Bundle.begin(directory)),
  )
  const [winner, ...more] = outcomes.filter(outcome => outcome.status === 'fulfilled')
  t.same(more, [])
  for (const outcome of outcomes)
    if (outcome.status === 'rejected') t.equal(outcome.reason.code, 'ERR_KOCI_LOCKED')
  await winner?.value.rollback()
  winner?.value.release()
})
