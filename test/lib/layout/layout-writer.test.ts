import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { tryLock } from '../../../lib/fs/lock.ts'
import { ImageLayout } from '../../../lib/layout/image-layout.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import { openFiles } from '../../support/descriptors.ts'
import {
  addBlob,
  addImage,
  fileOf,
  makeImage,
  makeLayout,
  readJson,
  refName,
  snapshot,
  tagged,
  writeIndex,
} from './fixture.ts'

const isRoot = process.getuid?.() === 0
const library = JSON.stringify(new URL('../../../lib/layout/image-layout.ts', import.meta.url))

const modeOf = (path: string): string => (statSync(path).mode & 0o7777).toString(8)

/** Starts a script with `layout` open; its output is piped. */
function start(dir: string, body: string): ReturnType<typeof spawn> {
  const script = `
    import { ImageLayout } from ${library}
    const layout = await ImageLayout.open(${JSON.stringify(dir)})
    ${body}
    await layout.close()`
  return spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 60_000,
  })
}

/** Looks at every turn of the event loop, until it has seen enough or the promise ends. */
async function lookUntil(promise: Promise<unknown>, look: () => boolean): Promise<void> {
  const ended = Promise.allSettled([promise]).then(() => true)
  const turn = (): Promise<boolean> => new Promise(done => setImmediate(done, false))
  while (!look()) if (await Promise.race([ended, turn()])) return
}

await t.test('A new layout is complete, empty, and clobbers nothing', async t => {
  const dir = t.testdir({ file: '', empty: {} })
  const path = join(dir, 'a/b/images')
  const layout = await ImageLayout.create(path)
  t.same(await layout.refs(), [])
  await layout.close()
  t.same(readdirSync(path).sort(), ['blobs', 'index.json', 'oci-layout'])
  t.same(readdirSync(join(path, 'blobs')), ['sha256'])
  t.same(readdirSync(join(dir, 'a/b')), ['images'])
  t.same(readJson(join(path, 'oci-layout')), { imageLayoutVersion: '1.0.0' })
  symlinkSync('nowhere', join(dir, 'dangling'))
  const before = snapshot(dir)
  for (const name of ['a/b/images', 'file', 'empty', 'dangling'])
    await t.rejects(ImageLayout.create(join(dir, name)), { code: 'ERR_KOCI_CLOBBER' }, name)
  await t.rejects(ImageLayout.create(join(dir, 'file/images')), { code: 'ERR_KOCI_IO' })
  t.same(snapshot(dir), before)
})

await t.test('A new layout is there complete or not at all', async t => {
  const dir = t.testdir()
  const path = join(dir, 'images')
  const making = ImageLayout.create(path)
  const seen = new Set<string>()
  await lookUntil(making, () => {
    if (existsSync(path)) seen.add(readdirSync(path).sort().join())
    return false
  })
  await (await making).close()
  for (const names of seen) t.equal(names, 'blobs,index.json,oci-layout')
  t.same(readdirSync(dir), ['images'])
})

await t.test('What is made in the place of a new layout meanwhile stays as it is', async t => {
  const dir = t.testdir()
  for (const name of ['empty', 'full', 'file']) {
    const path = join(dir, name)
    const making = ImageLayout.create(path)
    const refused = t.rejects(making, { code: 'ERR_KOCI_CLOBBER' }, name)
    await lookUntil(making, () =>
      readdirSync(dir).some(entry => entry.startsWith(`.${name}.koci-`)),
    )
    if (name === 'file') writeFileSync(path, 'mine')
    else mkdirSync(path)
    if (name === 'full') writeFileSync(join(path, 'mine'), 'mine')
    await refused
  }
  t.same(readdirSync(dir, { recursive: true, encoding: 'utf8' }).sort(), [
    'empty',
    'file',
    'full',
    'full/mine',
  ])
})

await t.test('Blobs are stored under their digests, whatever was written when', async t => {
  const dir = makeLayout(t.testdir())
  const layout = await ImageLayout.open(dir)
  const bytes = Buffer.from('some bytes')
  t.same(await layout.putBlob(bytes, 'a/b'), {
    mediaType: 'a/b',
    digest: digestOf(bytes),
    size: bytes.length,
  })
  const long = await layout.createBlob({ algorithm: 'sha512' })
  const chunks = [Buffer.alloc(100_000, 'a'), Buffer.alloc(0), Buffer.alloc(3, 'b')]
  await Promise.all(chunks.map(chunk => long.write(chunk)))
  const descriptor = await long.commit('c/d')
  t.equal(descriptor.digest, digestOf(Buffer.concat(chunks), 'sha512'))
  t.same(await layout.readBlob(descriptor), Buffer.concat(chunks))
  await t.rejects(long.write(bytes), { code: 'ERR_KOCI_CONSUMED' })
  await t.rejects(long.commit('c/d'), { code: 'ERR_KOCI_CONSUMED' })
  await long.abort()
  t.same(
    await layout.readBlob(descriptor),
    Buffer.concat(chunks),
    'abort after commit is nothing',
  )

  const aborted = await layout.createBlob()
  await aborted.write(bytes)
  await aborted.abort()
  await aborted.abort()
  const forgotten = await layout.createBlob()
  await forgotten.write(bytes)
  t.same(readdirSync(join(dir, 'blobs/sha256')), [digestOf(bytes).slice(7)])
  await layout.close()
  await layout.close()
  await t.rejects(forgotten.write(bytes), { code: 'ERR_KOCI_CONSUMED' })
  t.same(
    openFiles().filter(file => file.startsWith(dir)),
    [],
    'nothing of it is open',
  )
  t.same(readdirSync(dir).sort(), ['blobs', 'index.json', 'oci-layout'])
})

await t.test(
  'A writer that is asked for while the layout closes is refused, or aborted',
  async t => {
    const dir = makeLayout(t.testdir())
    const outcomes = new Set<string>()
    for (let turns = 0; turns < 40; turns++) {
      const layout = await ImageLayout.open(dir)
      const told = layout
        .createBlob()
        .then(blob => blob.write(Buffer.from('x')))
        .then(
          () => 'written',
          (error: unknown) => (error as { code: string }).code,
        )
      for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate)
      await layout.close()
      outcomes.add(await told)
      await layout.close()
    }
    for (const outcome of outcomes)
      t.match(outcome, /^(written|ERR_KOCI_(ABORTED|CONSUMED|IO))$/, [...outcomes].join())
    t.same(
      openFiles().filter(file => file.startsWith(dir)),
      [],
      'nothing of it is open',
    )
    t.same(readdirSync(dir).sort(), ['blobs', 'index.json', 'oci-layout'])
  },
)

await t.test(
  'Closing waits for tags that are being set, and blobs that are taken over',
  async t => {
    const dir = makeLayout(join(t.testdir(), 'images'))
    const image = addImage(dir)
    const names: string[] = []
    for (let turns = 0; turns < 40; turns++) {
      const layout = await ImageLayout.open(dir, { lockTimeoutMs: 20_000 })
      const bytes = Buffer.from(`blob ${turns}`)
      const digest = digestOf(bytes)
      const path = join(dir, '..', 'blob')
      writeFileSync(path, bytes)
      const changes = Promise.all([
        layout.setRef(`t${turns}`, image),
        layout.adoptBlob(
          { path, offset: 0, size: bytes.length },
          { mediaType: 'a/b', digest, size: bytes.length },
        ),
      ])
      for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate)
      await layout.close()
      await changes
      t.same(readFileSync(fileOf(dir, { digest })), bytes)
      names.push(`t${turns}`)
    }
    await using layout = await ImageLayout.open(dir)
    t.same(
      (await layout.refs()).map(({ refName }) => refName),
      names,
    )
    t.same(
      openFiles().filter(file => file.startsWith(dir)),
      [],
      'nothing of it is open',
    )
    t.same(readdirSync(dir).sort(), ['blobs', 'index.json', 'oci-layout'])
  },
)

await t.test('Storing a blob that is there succeeds, and mends a damaged one', async t => {
  const dir = makeLayout(t.testdir())
  await using layout = await ImageLayout.open(dir)
  const bytes = Buffer.from('some bytes')
  const all = await Promise.all(Array.from({ length: 20 }, () => layout.putBlob(bytes, 'a/b')))
  const [descriptor] = all
  if (!descriptor) return
  t.same(new Set(all.map(({ digest }) => digest)).size, 1)
  for (const damage of ['', 'other bytes', 'some bytez']) {
    writeFileSync(fileOf(dir, descriptor), damage)
    await layout.putBlob(bytes, 'a/b')
    t.same(await layout.readBlob(descriptor), bytes)
  }
})

await t.test('A directory in the place of a blob is an error, and stays', async t => {
  const dir = makeLayout(t.testdir())
  await using layout = await ImageLayout.open(dir)
  const path = fileOf(dir, { digest: digestOf(Buffer.from('x')) })
  mkdirSync(path)
  await t.rejects(layout.putBlob(Buffer.from('x'), 'a/b'), { code: 'ERR_KOCI_IO' })
  t.ok(statSync(path).isDirectory())
})

await t.test('A failed write keeps the blob from being committed', async t => {
  const dir = makeLayout(t.testdir())
  const child = start(
    dir,
    `const blob = await layout.createBlob()
    process.on('SIGXFSZ', () => {})
    const codes = []
    for (const step of [() => blob.write(Buffer.alloc(200_000)), () => blob.write(Buffer.alloc(1)), () => blob.commit('a/b')])
      await step().then(() => codes.push('ok'), error => codes.push(error.code, error.cause?.code))
    await blob.abort()
    console.log(codes.join())`,
  )
  execFileSync('prlimit', [`--pid=${child.pid}`, '--fsize=100000'])
  let output = ''
  child.stdout?.on('data', chunk => (output += String(chunk)))
  await once(child, 'close')
  t.equal(output.trim(), 'ERR_KOCI_IO,EFBIG,ERR_KOCI_CONSUMED,,ERR_KOCI_CONSUMED,')
  t.same(readdirSync(join(dir, 'blobs/sha256')), [])
  t.same(readdirSync(dir).sort(), ['blobs', 'index.json', 'oci-layout'])
})

await t.test('Setting a tag takes it from every other entry, and comes last', async t => {
  const dir = makeLayout(t.testdir())
  const [one, two, three] = ['1', '2', '3'].map(layer => addImage(dir, { layers: [layer] }))
  if (!one || !two || !three) return
  writeIndex(dir, [tagged(one, 'a'), tagged(one, 'b'), two, tagged(two, 'a')])
  await using layout = await ImageLayout.open(dir)
  const annotated = { ...three, annotations: { x: 'y', [refName]: 'old' } }
  await layout.setRef('a', annotated)
  t.same((readJson(join(dir, 'index.json')) as { manifests: unknown }).manifests, [
    tagged(one, 'b'),
    two,
    { ...three, annotations: { x: 'y', [refName]: 'a' } },
  ])
  t.equal(await layout.removeRef('a'), 1)
  t.equal(await layout.removeRef('a'), 0)
  t.equal((await layout.refs()).length, 1)
})

await t.test('Unknown fields of index.json survive every edit', async t => {
  const dir = makeLayout(t.testdir())
  const image = addImage(dir)
  const index = `{"schemaVersion":2,"x-first":{"deep":[1e400,9007199254740993]},"manifests":[{"mediaType":"x/unknown","digest":"${image.digest}","size":1,"x-more":null,"annotations":{"org.opencontainers.image.ref.name":"other","k":"v"}}],"annotations":{"a":"b"},"__proto__":1}`
  writeFileSync(join(dir, 'index.json'), index)
  await using layout = await ImageLayout.open(dir)
  await layout.setRef('new', image)
  await layout.removeRef('new')
  const text = readFileSync(join(dir, 'index.json'), 'utf8')
  t.equal(
    text,
    `${index.slice(0, -1)},"mediaType":"application/vnd.oci.image.index.v1+json"}\n`,
  )
})

await t.test('Setting a tag checks what is set', async t => {
  const dir = makeLayout(t.testdir())
  const image = addImage(dir)
  const before = snapshot(dir)
  await using layout = await ImageLayout.open(dir)
  await t.rejects(layout.setRef('..', image), { code: 'ERR_KOCI_INVALID_REFERENCE' })
  await t.rejects(layout.setRef('a', { ...image, size: -1 }), {
    code: 'ERR_KOCI_INVALID_DESCRIPTOR',
  })
  t.same(snapshot(dir), before)
  writeFileSync(join(dir, 'index.json'), '{"schemaVersion":2,"manifests":[],"layers":[]}')
  await t.rejects(layout.setRef('a', image), { code: 'ERR_KOCI_INVALID_INDEX' })
  t.equal(
    readFileSync(join(dir, 'index.json'), 'utf8'),
    '{"schemaVersion":2,"manifests":[],"layers":[]}',
    'what could not be read is not replaced',
  )
})

await t.test('Eight processes that set tags at once lose none', async t => {
  const dir = makeLayout(t.testdir())
  const image = addImage(dir)
  const children = Array.from({ length: 8 }, (_, at) =>
    start(
      dir,
      `for (let n = 0; n < 6; n++) {
        const { digest } = await layout.putBlob(Buffer.from('blob ' + (n + ${at}) % 5), 'a/b')
        await layout.setRef('p${at}-' + n, ${JSON.stringify(image)})
      }
      await layout.removeRef('p${at}-0')`,
    ),
  )
  const codes = await Promise.all(children.map(child => once(child, 'close')))
  t.same(
    codes.map(([code]) => code as number),
    Array.from({ length: 8 }, () => 0),
  )
  await using layout = await ImageLayout.open(dir)
  const found = (await layout.refs()).map(ref => ref.refName).sort()
  t.same(
    found,
    Array.from({ length: 8 }, (_, at) => [1, 2, 3, 4, 5].map(n => `p${at}-${n}`)).flat(),
  )
  t.same(readdirSync(dir).sort(), ['blobs', 'index.json', 'oci-layout'])
})

await t.test(
  'Two layouts of one process, and many calls at once, lose nothing either',
  async t => {
    const dir = makeLayout(t.testdir())
    const image = addImage(dir)
    await using one = await ImageLayout.open(dir)
    await using two = await ImageLayout.open(dir)
    const names = Array.from({ length: 30 }, (_, at) => `t${at}`)
    await Promise.all(names.map((name, at) => (at % 2 ? one : two).setRef(name, image)))
    t.same((await one.refs()).map(ref => ref.refName).sort(), names.sort())
  },
)

await t.test('A change waits for the lock without blocking the event loop', async t => {
  const dir = makeLayout(t.testdir())
  const image = addImage(dir)
  const lock = tryLock(join(dir, 'oci-layout'), { create: false })
  t.ok(lock)
  await using layout = await ImageLayout.open(dir)
  let isDone = false
  const setting = layout.setRef('a', image).then(() => (isDone = true))
  await new Promise(done => setTimeout(done, 200))
  t.notOk(isDone)
  lock?.release()
  await setting
  t.equal((await layout.refs()).length, 1)
})

await t.test('A change gives up when others keep the lock for too long', async t => {
  const dir = makeLayout(t.testdir())
  const image = addImage(dir)
  using lock = tryLock(join(dir, 'oci-layout'), { create: false })
  t.ok(lock)
  const before = snapshot(dir)
  await using layout = await ImageLayout.open(dir, { lockTimeoutMs: 50 })
  for (const change of [
    () => layout.setRef('a', image),
    async () => void (await layout.removeRef('a')),
    async () => void (await layout.putBlob(Buffer.from('x'), 'a/b')),
  ])
    await t.rejects(change(), { code: 'ERR_KOCI_LOCKED' })
  t.same(snapshot(dir), before)
})

await t.test('A change that is aborted stops waiting for others', async t => {
  const dir = makeLayout(t.testdir())
  const image = addImage(dir)
  using lock = tryLock(join(dir, 'oci-layout'), { create: false })
  t.ok(lock)
  const before = snapshot(dir)
  const abort = new AbortController()
  await using layout = await ImageLayout.open(dir, { signal: abort.signal })
  const refused = t.rejects(layout.setRef('a', image), { code: 'ERR_KOCI_ABORTED' })
  setTimeout(() => abort.abort(), 100)
  await refused
  t.same(snapshot(dir), before)
})

await t.test('An index.json that could not be read again is not written', async t => {
  const dir = makeLayout(t.testdir())
  const image = addImage(dir)
  writeIndex(dir, [], { 'x-large': 'x'.repeat(16 * 1024 * 1024 - 200) })
  const before = readFileSync(join(dir, 'index.json'), 'utf8')
  await using layout = await ImageLayout.open(dir)
  await t.rejects(layout.setRef('a', image), { code: 'ERR_KOCI_LIMIT_EXCEEDED' })
  t.equal(readFileSync(join(dir, 'index.json'), 'utf8'), before)
})

await t.test('A writer that is killed leaves only what nobody reads', async t => {
  const dir = t.testdir()
  makeImage(dir)
  const before = readFileSync(join(dir, 'index.json'), 'utf8')
  const child = start(
    dir,
    `const blob = await layout.createBlob()
    await blob.write(Buffer.from('half'))
    console.log('ready')
    await new Promise(done => setTimeout(done, 30_000))`,
  )
  if (child.stdout) await once(child.stdout, 'data')
  child.kill('SIGKILL')
  await once(child, 'close')
  t.equal(readdirSync(dir).filter(name => name.startsWith('.koci-')).length, 1)
  t.equal(readdirSync(join(dir, 'blobs/sha256')).length, 3)
  t.equal(readFileSync(join(dir, 'index.json'), 'utf8'), before)
  await using layout = await ImageLayout.open(dir)
  const { descriptor } = await layout.resolve('latest')
  await layout.setRef('more', descriptor)
  t.equal((await layout.refs()).length, 2)
})

for (const [layoutMode, fileMode, directoryMode] of [
  [0o755, '644', '755'],
  [0o700, '600', '700'],
  [0o2775, '664', '2775'],
  [0o750, '640', '750'],
  [0o1777, '644', '1777'],
] as const)
  await t.test(
    `In a layout of mode ${layoutMode.toString(8)} files get ${fileMode}`,
    async t => {
      const dir = makeLayout(join(t.testdir(), 'image'))
      chmodSync(dir, layoutMode)
      const mask = process.umask(0o077)
      t.teardown(() => process.umask(mask))
      await using layout = await ImageLayout.open(dir)
      const blob = await layout.createBlob({ algorithm: 'sha512' })
      const descriptor = await blob.commit('a/b')
      await layout.setRef('a', descriptor)
      t.equal(modeOf(fileOf(dir, descriptor)), fileMode)
      t.equal(modeOf(join(dir, 'index.json')), fileMode)
      t.equal(modeOf(join(dir, 'blobs/sha512')), directoryMode)
      t.equal(modeOf(dir), layoutMode.toString(8))
    },
  )

await t.test('New layouts follow the umask', async t => {
  const dir = t.testdir()
  const mask = process.umask(0o027)
  t.teardown(() => process.umask(mask))
  await (await ImageLayout.create(join(dir, 'image'))).close()
  t.equal(modeOf(join(dir, 'image')), '750')
  t.equal(modeOf(join(dir, 'image/blobs/sha256')), '750')
  for (const name of ['index.json', 'oci-layout'])
    t.equal(modeOf(join(dir, 'image', name)), '640')
})

await t.test(
  "As root, what is written belongs to the directory's owner",
  { skip: !isRoot && 'needs root: chown' },
  async t => {
    const dir = makeLayout(t.testdir())
    chownSync(dir, 1234, 5678)
    const layout = await ImageLayout.open(dir)
    const blob = await layout.createBlob({ algorithm: 'sha512' })
    const descriptor = await blob.commit('a/b')
    await layout.setRef('a', descriptor)
    await layout.close()
    for (const path of [
      fileOf(dir, descriptor),
      join(dir, 'index.json'),
      join(dir, 'blobs/sha512'),
    ]) {
      const { uid, gid } = statSync(path)
      t.same([uid, gid], [1234, 5678], path)
    }
  },
)

await t.test(
  "In a sticky layout somebody else's intact blob will do",
  { skip: !isRoot && 'needs root: chown' },
  async t => {
    // where any user may go
    const dir = makeLayout(mkdtempSync(join(tmpdir(), 'koci-test-')))
    t.teardown(() => rmSync(dir, { recursive: true }))
    const { digest } = addBlob(dir, 'a/b', 'x')
    for (const path of [dir, join(dir, 'blobs'), join(dir, 'blobs/sha256')])
      chmodSync(path, 0o1777)
    for (const path of [dir, join(dir, 'blobs/sha256'), fileOf(dir, { digest })])
      chownSync(path, 1234, 1234)
    const run = (content: string): string =>
      execFileSync(
        process.execPath,
        [
          '--input-type=module-typescript',
          '-e',
          `import { ImageLayout } from ${library}
          process.setgroups([]); process.setgid(4321); process.setuid(4321)
        const layout = await ImageLayout.open(${JSON.stringify(dir)})
        await layout.putBlob(Buffer.from(${JSON.stringify(content)}), 'a/b').then(() => console.log('ok'), error => console.log(error.cause.code))
        await layout.close()`,
        ],
        { encoding: 'utf8', timeout: 30_000 },
      ).trim()
    t.equal(run('x'), 'ok')
    writeFileSync(fileOf(dir, { digest }), 'y')
    t.equal(run('x'), 'EPERM', 'a damaged one will not')
    t.equal(run('z'), 'ok')
  },
)

await t.test('An embedded file or a read leaves no private directory', async t => {
  const dir = t.testdir()
  makeImage(dir)
  await using layout = await ImageLayout.open(dir)
  await layout.resolve('latest')
  t.notOk(existsSync(join(dir, '.koci')))
  t.same(readdirSync(dir).sort(), ['blobs', 'index.json', 'oci-layout'])
})
