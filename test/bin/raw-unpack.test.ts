import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci, type Driver } from '../../lib/index.ts'
import { digestOf } from '../../lib/oci/digest.ts'
import { unpackRootfs } from '../../lib/unpack-rootfs.ts'
import { makeImage } from '../support/image.ts'
import { createError } from '../../lib/errors.ts'
import { around } from '../support/around.ts'
import { koci } from './run-koci.ts'

const rootless = process.geteuid?.() === 0 ? [] : ['--rootless']
const silent = { code: 0, stdout: '', stderr: '' }

async function prepare(cwd: string): Promise<void> {
  const layers = [
    [
      { name: 'etc/', type: 'directory' as const },
      { name: 'etc/x', body: 'x' },
    ],
  ]
  await makeImage(path.join(cwd, 'images'), 'good', { layers })
  await makeImage(path.join(cwd, 'images'), 'bad', {
    layers: [...layers, [{ name: 'y', body: 'y' }]],
    change: draft => {
      const [first] = draft.config.rootfs.diff_ids
      const wrong = digestOf(Buffer.from('another'))
      const rootfs = { type: 'layers' as const, diff_ids: first ? [first, wrong] : [] }
      return { ...draft, config: { ...draft.config, rootfs } }
    },
  })
}

function unpack(cwd: string, tag: string, target: string, ...more: string[]) {
  const args = ['raw', 'unpack', ...rootless, ...more, '--image', `images:${tag}`, target]
  return koci(args, { cwd })
}

await t.test('a tree and nothing else, in a new directory or one that is there', async t => {
  const cwd = t.testdir({ there: { mine: 'mine' } })
  await prepare(cwd)
  symlinkSync('there', path.join(cwd, 'link'))
  t.same(await unpack(cwd, 'good', 'deep/new'), silent)
  t.same(readdirSync(path.join(cwd, 'deep')), ['new'])
  t.same(readdirSync(path.join(cwd, 'deep/new')), ['etc'])
  t.same(await unpack(cwd, 'good', 'link'), silent)
  t.equal(readFileSync(path.join(cwd, 'there/mine'), 'utf8'), 'mine')
  t.equal(readFileSync(path.join(cwd, 'there/etc/x'), 'utf8'), 'x')
  const { stdout } = await unpack(cwd, 'good', 'json', '--json')
  t.match(JSON.parse(stdout), { rootfs: path.join(cwd, 'json'), layers: [{ index: 0 }] })
  t.same(readdirSync(cwd).sort(), ['deep', 'images', 'json', 'link', 'there'])
})

await t.test('what fails leaves what was there', async t => {
  const cwd = t.testdir({ empty: {}, full: { mine: 'mine' }, file: '' })
  await prepare(cwd)
  utimesSync(path.join(cwd, 'empty'), 5, 5)
  const { mode } = statSync(path.join(cwd, 'empty'))
  const wrong = /diffID mismatch.*\[ERR_KOCI_DIFF_ID_MISMATCH\]/
  t.match(await unpack(cwd, 'bad', 'deep/new'), { code: 1, stderr: wrong })
  t.match(await unpack(cwd, 'bad', 'empty'), { code: 1, stderr: wrong })
  t.match(await unpack(cwd, 'bad', 'file'), { code: 1, stderr: /file: already exists/ })
  t.same(readdirSync(cwd).sort(), ['empty', 'file', 'full', 'images'])
  t.same(readdirSync(path.join(cwd, 'empty')), [])
  t.equal(statSync(path.join(cwd, 'empty')).mtimeMs, 5000)
  t.equal(statSync(path.join(cwd, 'empty')).mode, mode)
  const partly = await unpack(cwd, 'bad', 'full')
  t.match(partly, { code: 1, stderr: wrong })
  t.match(partly.stderr, /full: it was not empty.*\[PARTLY_UNPACKED\]/)
  t.equal(readFileSync(path.join(cwd, 'full/mine'), 'utf8'), 'mine')
  t.notOk(readdirSync(cwd).some(name => name.startsWith('.koci')))
})

await t.test('drivers take part; one that stacks layers is refused', async t => {
  const cwd = t.testdir()
  await prepare(cwd)
  const image = path.join(cwd, 'images:good')
  const options = { image, rootless: rootless.length > 0 }
  const seen: string[] = []
  const app = new Koci().use(async (ctx, next) => {
    await next()
    seen.push(ctx.rootfs)
  })
  const rootfs = path.join(cwd, 'tree')
  const { layers } = await unpackRootfs(app, { ...options, rootfs })
  t.same(seen, [rootfs])
  t.match(layers, [{ placed: { by: 'koci', verified: true } }])

  const stacker: Driver = {
    name: 'stacker',
    async unpack(ctx, next) {
      ctx.extraction.choose('stacker', 'stacked', 'overlay-user')
      await next()
    },
  }
  const other = path.join(cwd, 'other')
  await t.rejects(unpackRootfs(new Koci().use(stacker), { ...options, rootfs: other }), {
    code: 'ERR_KOCI_LAYERING_CONFLICT',
  })
  const silentDriver: Driver = { name: 'silent', async unpack() {} }
  await t.rejects(unpackRootfs(new Koci().use(silentDriver), { ...options, rootfs: other }), {
    code: 'ERR_KOCI_NOT_UNPACKED',
  })
  t.notOk(existsSync(other))
  mkdirSync(other)
  writeFileSync(path.join(other, 'x'), '')
  const controller = new AbortController()
  controller.abort()
  const { signal } = controller
  await t.rejects(unpackRootfs(new Koci(), { ...options, rootfs: other, signal }), {
    code: 'ERR_KOCI_ABORTED',
  })
})

/** Unpacks with a driver that does something in the midst of it, and fails then. */
function fail(cwd: string, rootfs: string, meanwhile: () => unknown, told: string[] = []) {
  const failing: Driver = {
    name: 'failing',
    async unpack(_ctx, next) {
      await next()
      await meanwhile()
      throw createError('ABORTED', { subject: 'the test' })
    },
  }
  const app = new Koci().use(failing)
  app.on('warning', ({ data }) => void told.push(data.code))
  const image = path.join(cwd, 'images:good')
  return unpackRootfs(app, { image, rootfs, rootless: rootless.length > 0 })
}

await t.test('what fails removes nothing that others made beside it meanwhile', async t => {
  const cwd = t.testdir()
  await prepare(cwd)
  const mine = path.join(cwd, 'new', 'mine')
  const rootfs = path.join(cwd, 'new/deep/tree')
  await t.rejects(
    fail(cwd, rootfs, () => writeFileSync(mine, '')),
    { code: 'ERR_KOCI_ABORTED' },
  )
  t.strictSame(readdirSync(path.join(cwd, 'new')), ['mine'])
})

await t.test('a directory is unpacked into by one koci at a time', async t => {
  const cwd = t.testdir({ empty: {} })
  await prepare(cwd)
  for (const name of ['empty', 'new']) {
    const other = async () => {
      const second = await unpack(cwd, 'good', name)
      t.match(second, { code: 1, stderr: /in use by another koci.*\[ERR_KOCI_LOCKED\]/ })
      t.ok(existsSync(path.join(cwd, name, 'etc/x')), 'which left it alone')
    }
    await t.rejects(fail(cwd, path.join(cwd, name), other), { code: 'ERR_KOCI_ABORTED' })
    t.same(await unpack(cwd, 'good', name), silent, 'the lock was given back')
  }
})

await t.test('what another koci was quicker to unpack stays', async t => {
  const cwd = t.testdir()
  await prepare(cwd)
  const rootfs = path.join(cwd, 'tree')
  around(t, 'mkdir', async (file, call) => {
    await call()
    if (file === rootfs) writeFileSync(path.join(rootfs, 'theirs'), '')
  })
  const told: string[] = []
  await t.rejects(
    fail(cwd, rootfs, () => {}, told),
    { code: 'ERR_KOCI_ABORTED' },
  )
  t.ok(existsSync(path.join(rootfs, 'theirs')))
  t.strictSame(told, ['PARTLY_UNPACKED'])
})

await t.test('what was put in the place of the directory meanwhile is not emptied', async t => {
  const cwd = t.testdir({ empty: {} })
  await prepare(cwd)
  const rootfs = path.join(cwd, 'empty')
  const swap = () => {
    renameSync(rootfs, path.join(cwd, 'moved'))
    mkdirSync(path.join(rootfs, 'theirs'), { recursive: true })
  }
  await t.rejects(fail(cwd, rootfs, swap), { code: 'ERR_KOCI_ABORTED' })
  t.strictSame(readdirSync(rootfs), ['theirs'])
  t.strictSame(readdirSync(path.join(cwd, 'moved')), [])
})

await t.test(
  'one that was empty is empty again even where the image lets nobody write in it',
  { skip: rootless.length === 0 && 'needs an ordinary user: root may write anywhere' },
  async t => {
    const cwd = t.testdir({ empty: {} })
    const root = { name: './', type: 'directory' as const, mode: 0o555 }
    await makeImage(path.join(cwd, 'images'), 'good', {
      layers: [[root, { name: 'x', body: 'x' }]],
    })
    const rootfs = path.join(cwd, 'empty')
    const { mode } = statSync(rootfs)
    await t.rejects(
      fail(cwd, rootfs, () => {}),
      { code: 'ERR_KOCI_ABORTED' },
    )
    t.strictSame(readdirSync(rootfs), [])
    t.equal(statSync(rootfs).mode, mode)
  },
)
