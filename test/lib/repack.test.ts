import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { once } from 'node:events'
import path from 'node:path'
import t from 'tap'
import { setXattr } from '../../lib/fs/xattr.ts'
import {
  filter,
  Koci,
  listDelta,
  type LayerEntry,
  type RepackOptions,
} from '../../lib/index.ts'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { makeImage } from '../support/image.ts'
import type { TarMember } from '../support/tar-builder.ts'
import { describeTree } from '../support/tree.ts'

const rootless = process.geteuid?.() !== 0
const file = (name: string, body = `${name}\n`): TarMember => ({
  name,
  body,
  mtime: 1_700_000_000,
})

const layers: TarMember[][] = [
  [
    { name: 'etc/', type: 'directory', mtime: 1_600_000_000 },
    file('etc/motd'),
    file('etc/issue'),
    { name: 'usr/lib/', type: 'directory', mtime: 1_600_000_000 },
    file('usr/lib/a'),
    { name: 'usr/lib/b', type: 'hardlink', linkname: 'usr/lib/a' },
    { name: 'lib', type: 'symlink', linkname: 'usr/lib' },
  ],
  [file('var/log/x'), file('srv/data')],
]

interface Setup {
  readonly base: string
  readonly bundle: string
  readonly rootfs: string
  readonly app: Koci
  readonly warnings: string[]
  /** Repacks under the tag `next` and tells the changes and the new layer's entries. */
  readonly repack: (
    options?: Partial<RepackOptions>,
  ) => Promise<{ changes: string[]; entries: string[] }>
  /** Unpacks `next` into a fresh bundle. */
  readonly again: () => Promise<string>
}

async function setUp(t: { testdir(): string }, config = {}): Promise<Setup> {
  const base = t.testdir()
  const images = path.join(base, 'images')
  const bundle = path.join(base, 'bundle')
  const image = await makeImage(images, 'test', { layers, config })
  const app = new Koci().use(mtree())
  const warnings: string[] = []
  app.on('warning', ({ data }) => void warnings.push(data.code))
  const { rootfs } = await app.unpack({ image, bundle, rootless })
  let count = 0
  const again = async (): Promise<string> => {
    count += 1
    const target = path.join(base, `again-${count}`)
    return (await new Koci().unpack({ image: `${images}:next`, bundle: target, rootless }))
      .rootfs
  }
  return {
    base,
    bundle,
    rootfs,
    app,
    warnings,
    again,
    repack: async (options = {}) => {
      const before = await countLayers(images, 'test')
      const { changes } = await app.repack({ image: `${images}:next`, bundle, ...options })
      const entries: string[] = []
      const reader = new Koci().use(async (ctx, next) => {
        if (ctx.layer.index >= before)
          for await (const { header } of ctx.layer.entries())
            entries.push(
              `${header.type} ${String(header.rawPath)}${header.type === 'hardlink' ? ` -> ${String(header.rawLinkname)}` : ''}`,
            )
        await next()
      })
      count += 1
      await reader.unpack({
        image: `${images}:next`,
        bundle: path.join(base, `read-${count}`),
        rootless,
      })
      return { changes: changes.map(({ kind, path }) => `${kind} ${path}`), entries }
    },
  }
}

async function countLayers(images: string, refName: string): Promise<number> {
  const layout = await ImageLayout.open(images)
  try {
    return (await layout.resolve(refName)).layers.length
  } finally {
    await layout.close()
  }
}

await t.test(
  'an unchanged rootfs makes no layer, but moves the tag and notes it in the history',
  async t => {
    const { base, repack } = await setUp(t)
    t.same(await repack(), { changes: [], entries: [] })
    const layout = await ImageLayout.open(path.join(base, 'images'))
    const { manifest, config } = await layout.resolve('next')
    await layout.close()
    t.equal(manifest.layers.length, 2)
    t.match(config.history?.at(-1), { empty_layer: true, created_by: 'koci repack' })
  },
)

type Edit = (rootfs: string) => void
const edits: [what: string, edit: Edit, changes: string[], entries: string[]][] = [
  [
    'a changed file',
    rootfs => appendFileSync(`${rootfs}/etc/motd`, 'more\n'),
    ['M etc/motd'],
    ['file etc/motd'],
  ],
  [
    'a file changed in place, same size, same time',
    rootfs => {
      const { atime, mtime } = statSync(`${rootfs}/etc/motd`)
      writeFileSync(`${rootfs}/etc/motd`, 'ETC/MOTD\n')
      utimesSync(`${rootfs}/etc/motd`, atime, mtime)
    },
    ['M etc/motd'],
    ['file etc/motd'],
  ],
  [
    'a new file',
    rootfs => writeFileSync(`${rootfs}/etc/new`, ''),
    ['M etc', 'A etc/new'],
    ['directory etc/', 'file etc/new'],
  ],
  [
    'a new directory',
    rootfs => mkdirSync(`${rootfs}/opt/x`, { recursive: true }),
    ['M ', 'A opt', 'A opt/x'],
    ['directory ./', 'directory opt/', 'directory opt/x/'],
  ],
  [
    'a deleted file',
    rootfs => rmSync(`${rootfs}/etc/motd`),
    ['M etc', 'D etc/motd'],
    ['directory etc/', 'file etc/.wh.motd'],
  ],
  [
    'a deleted directory',
    rootfs => rmSync(`${rootfs}/usr/lib`, { recursive: true }),
    ['M usr', 'D usr/lib'],
    ['directory usr/', 'file usr/.wh.lib'],
  ],
  [
    'a changed mode',
    rootfs => chmodSync(`${rootfs}/etc/motd`, 0o600),
    ['M etc/motd'],
    ['file etc/motd'],
  ],
  ['mode 0', rootfs => chmodSync(`${rootfs}/etc/motd`, 0), ['M etc/motd'], ['file etc/motd']],
  [
    'a changed time',
    rootfs => utimesSync(`${rootfs}/etc/motd`, 1, 1),
    ['M etc/motd'],
    ['file etc/motd'],
  ],
  [
    'a directory that became a file',
    rootfs => {
      rmSync(`${rootfs}/usr/lib`, { recursive: true })
      writeFileSync(`${rootfs}/usr/lib`, 'x')
    },
    ['M usr', 'M usr/lib'],
    ['directory usr/', 'file usr/lib'],
  ],
  [
    'a link that became a directory',
    rootfs => {
      rmSync(`${rootfs}/lib`)
      mkdirSync(`${rootfs}/lib`)
      writeFileSync(`${rootfs}/lib/x`, 'x')
    },
    ['M ', 'M lib', 'A lib/x'],
    ['directory ./', 'directory lib/', 'file lib/x'],
  ],
  [
    'a link that points elsewhere',
    rootfs => {
      rmSync(`${rootfs}/lib`)
      symlinkSync('etc', `${rootfs}/lib`)
    },
    ['M ', 'M lib'],
    ['directory ./', 'symlink lib'],
  ],
  [
    'a new hard link',
    rootfs => linkSync(`${rootfs}/etc/motd`, `${rootfs}/srv/motd`),
    ['M etc/motd', 'M srv', 'A srv/motd'],
    ['file etc/motd', 'directory srv/', 'hardlink srv/motd -> etc/motd'],
  ],
  [
    'a renamed file',
    rootfs => renameSync(`${rootfs}/etc/motd`, `${rootfs}/etc/news`),
    ['M etc', 'D etc/motd', 'A etc/news'],
    ['directory etc/', 'file etc/.wh.motd', 'file etc/news'],
  ],
  [
    'a renamed hard link: the names that did not change are one file with it',
    rootfs => renameSync(`${rootfs}/usr/lib/b`, `${rootfs}/srv/c`),
    ['M srv', 'A srv/c', 'M usr/lib', 'M usr/lib/a', 'D usr/lib/b'],
    [
      'directory srv/',
      'file srv/c',
      'directory usr/lib/',
      'hardlink usr/lib/a -> srv/c',
      'file usr/lib/.wh.b',
    ],
  ],
]
for (const [what, edit, changes, entries] of edits)
  await t.test(
    `${what}: just that becomes the layer, and it unpacks to the same tree`,
    async t => {
      const { rootfs, repack, again } = await setUp(t)
      edit(rootfs)
      t.same(await repack(), { changes, entries })
      const target = await again()
      if (what === 'mode 0')
        for (const tree of [rootfs, target]) {
          t.equal(statSync(`${tree}/etc/motd`).mode & 0o7777, 0)
          chmodSync(`${tree}/etc/motd`, 0o600) // so that an ordinary user can compare the content
        }
      t.same(describeTree(target), describeTree(rootfs))
    },
  )

await t.test('refreshed, the next repack packs only what changed since', async t => {
  const { rootfs, repack, bundle, again } = await setUp(t)
  writeFileSync(`${rootfs}/etc/one`, '1')
  rmSync(`${rootfs}/srv/data`)
  await repack({ refresh: true })
  t.same((await repack()).changes, [])
  writeFileSync(`${rootfs}/etc/two`, '2')
  const { changes } = await repack()
  t.same(changes, ['M etc', 'A etc/two'])
  t.same(describeTree(await again()), describeTree(rootfs))
  const records = readdirSync(bundle).filter(name => name.endsWith('.mtree'))
  t.equal(records.length, 1, 'the old record is gone')
  const { from_descriptor_path: from } = JSON.parse(
    readFileSync(path.join(bundle, 'umoci.json'), 'utf8'),
  )
  t.equal(records[0], `${from.descriptor_walk.at(-1).digest.replace(':', '_')}.mtree`)
})

await t.test('what is changed after it was packed is listed after a refresh', async t => {
  const { rootfs, bundle, app } = await setUp(t)
  const dir = `${rootfs}/srv`
  const make = (): void => {
    for (const name of ['chmod', 'chown', 'dir', 'gone', 'link0', 'mtime', 'xattr'])
      writeFileSync(`${dir}/${name}`, name)
    linkSync(`${dir}/link0`, `${dir}/link1`)
    for (const name of ['bare', 'barred', 'kept', 'mode', 'swap0', 'swap1', 'tree'])
      mkdirSync(`${dir}/${name}`)
    for (const name of ['barred/x', 'swap0/x', 'swap1/x', 'tree/x', 'mute', 'last'])
      writeFileSync(`${dir}/${name}`, name)
    writeFileSync(`${dir}/swap0/x`, 'other')
    // made in two different seconds, they would be changes, too
    for (const name of ['swap0', 'swap1']) utimesSync(`${dir}/${name}`, 1, 1)
    symlinkSync('one', `${dir}/symlink`)
    // an ordinary user has to widen these to read them
    for (const name of ['bare', 'barred', 'mute']) chmodSync(`${dir}/${name}`, 0)
  }
  const change = (): void => {
    chmodSync(`${dir}/chmod`, 0o4755)
    if (!rootless) chownSync(`${dir}/chown`, 1, 1)
    rmSync(`${dir}/dir`)
    mkdirSync(`${dir}/dir`)
    rmSync(`${dir}/gone`)
    chmodSync(`${dir}/link0`, 0o600)
    chmodSync(`${dir}/mode`, 0o711)
    utimesSync(`${dir}/mtime`, 1, 1)
    renameSync(`${dir}/swap0`, `${dir}/swap`)
    renameSync(`${dir}/swap1`, `${dir}/swap0`)
    renameSync(`${dir}/swap`, `${dir}/swap1`)
    rmSync(`${dir}/symlink`)
    symlinkSync('two', `${dir}/symlink`)
    rmSync(`${dir}/tree`, { recursive: true })
    writeFileSync(`${dir}/tree`, '')
    const fd = openSync(`${dir}/xattr`, 'r')
    setXattr(fd, Buffer.from('user.test'), Buffer.from('1'))
    closeSync(fd)
  }
  const meanwhile = new Koci().use(mtree()).use({
    name: 'meanwhile',
    pack: async (ctx, next) => {
      await next()
      const { entries } = ctx
      ctx.entries = (async function* () {
        let last: LayerEntry | undefined
        for await (const entry of entries ?? []) {
          yield entry
          last = entry
        }
        t.equal(last?.rawPath.toString(), 'usr/lib')
        change()
      })()
    },
  })
  make()
  // the last entry: all others are packed when it is
  utimesSync(`${rootfs}/usr/lib`, 1, 1)
  const image = `${path.dirname(bundle)}/images:next`
  await meanwhile.repack({ image, bundle, refresh: true })
  const expected = [
    'M srv',
    'M srv/chmod',
    ...(rootless ? [] : ['M srv/chown']),
    'M srv/dir',
    'D srv/gone',
    'M srv/link0',
    'M srv/link1',
    'M srv/mode',
    'M srv/mtime',
    'M srv/swap0/x',
    'M srv/swap1/x',
    'M srv/symlink',
    'M srv/tree',
    'M srv/xattr',
  ]
  const list = async (): Promise<string[]> =>
    (await listDelta(app, { bundle })).map(({ kind, path }) => `${kind} ${path}`)
  t.same(await list(), expected)
  await app.repack({ image, bundle, refresh: true })
  t.same(await list(), [], 'listed once')
  for (const name of ['bare', 'barred']) chmodSync(`${dir}/${name}`, 0o700)
})

await t.test('what middleware leaves out of the layer is listed after a refresh', async t => {
  const { rootfs, bundle, app } = await setUp(t)
  const dir = `${rootfs}/srv`
  const left = ['empty', 'full', 'dir', 'link', 'z']
  const filtering = new Koci().use(mtree()).use({
    name: 'filtering',
    pack: async (ctx, next) => {
      await next()
      const isLeft = ({ rawPath }: LayerEntry): boolean =>
        left.includes(rawPath.toString().replace('srv/', '')) ||
        rawPath.equals(Buffer.from('etc/old'))
      if (ctx.entries) ctx.entries = filter(ctx.entries, entry => !isLeft(entry))
    },
  })
  const image = `${path.dirname(bundle)}/images:next`
  writeFileSync(`${rootfs}/etc/old`, 'old')
  await app.repack({ image, bundle, refresh: true })
  rmSync(`${rootfs}/etc/old`)
  for (const name of ['empty', 'kept', 'more', 'z']) writeFileSync(`${dir}/${name}`, '')
  writeFileSync(`${dir}/full`, 'content')
  mkdirSync(`${dir}/dir`)
  mkdirSync(`${dir}/other`)
  symlinkSync('to', `${dir}/link`)
  await filtering.repack({ image, bundle, refresh: true })
  const list = async (): Promise<string[]> =>
    (await listDelta(app, { bundle })).map(({ kind, path }) => `${kind} ${path}`)
  const expected = ['D etc/old', ...left.toSorted().map(name => `A srv/${name}`)]
  t.same(await list(), expected)
  await app.repack({ image, bundle, refresh: true })
  t.same(await list(), [])
})

await t.test('without refresh the bundle stays on its base', async t => {
  const { rootfs, repack } = await setUp(t)
  writeFileSync(`${rootfs}/etc/one`, '1')
  const first = await repack()
  t.same(await repack(), first)
})

await t.test('a refresh whose image is the one it came from', async t => {
  const { repack } = await setUp(t)
  t.same(await repack({ refresh: true, history: false }), { changes: [], entries: [] })
  t.same(await repack({ refresh: true, history: false }), { changes: [], entries: [] })
})

await t.test('masked paths and volumes are left out, unless asked for', async t => {
  const { rootfs, repack } = await setUp(t, { Volumes: { '/srv': {} } })
  writeFileSync(`${rootfs}/srv/new`, '')
  writeFileSync(`${rootfs}/var/log/new`, '')
  writeFileSync(`${rootfs}/etc/new`, '')
  t.same((await repack({ maskPaths: ['/var/log'] })).changes, ['M etc', 'A etc/new'])
  t.same((await repack({ maskVolumes: false })).changes, [
    'M etc',
    'A etc/new',
    'M srv',
    'A srv/new',
    'M var/log',
    'A var/log/new',
  ])
})

await t.test('an unchanged name is packed only for a name that is', async t => {
  const { rootfs, repack } = await setUp(t)
  const { atime, mtime } = statSync(`${rootfs}/usr/lib`)
  renameSync(`${rootfs}/usr/lib/b`, `${rootfs}/srv/c`)
  utimesSync(`${rootfs}/usr/lib`, atime, mtime)
  t.same((await repack({ maskPaths: ['/srv'] })).changes, ['D usr/lib/b'])
  t.same(await repack({ maskPaths: ['/usr/lib/a'] }), {
    changes: ['M srv', 'A srv/c', 'D usr/lib/b'],
    entries: ['directory srv/', 'file srv/c', 'file usr/lib/.wh.b'],
  })
})

await t.test('a renamed hard link, refreshed: nothing is left to pack', async t => {
  const { rootfs, repack, again } = await setUp(t)
  renameSync(`${rootfs}/usr/lib/b`, `${rootfs}/usr/lib/0`)
  t.same((await repack({ refresh: true })).changes, [
    'M usr/lib',
    'A usr/lib/0',
    'M usr/lib/a',
    'D usr/lib/b',
  ])
  t.same((await repack()).changes, [])
  t.same(describeTree(await again()), describeTree(rootfs))
})

await t.test('the same tree gives the same bytes', async t => {
  const { base, rootfs, app, bundle } = await setUp(t)
  for (const name of ['zz', 'aa', 'mm'])
    writeFileSync(`${rootfs}/etc/${name}`, name.repeat(100_000))
  const digests = []
  for (const tag of ['one', 'two']) {
    const { image } = await app.repack({ image: `${base}/images:${tag}`, bundle })
    digests.push(image.layers.at(-1)?.descriptor.digest)
  }
  t.equal(digests[0], digests[1])
})

for (const compress of ['gzip', 'zstd', 'none', 'auto'] as const)
  await t.test(`compressed as ${compress}`, async t => {
    const { base, rootfs, app, bundle, again } = await setUp(t)
    writeFileSync(`${rootfs}/etc/new`, 'x'.repeat(3_000_000))
    const { image } = await app.repack({ image: `${base}/images:next`, bundle, compress })
    t.equal(image.layers.at(-1)?.compression, compress === 'auto' ? 'gzip' : compress)
    t.same(describeTree(await again()), describeTree(rootfs))
  })

await t.test('a socket is left out with a warning', async t => {
  const { rootfs, repack, warnings } = await setUp(t)
  const name = path.join(rootfs, 's')
  if (name.length > 100) process.chdir(rootfs)
  const server = createServer().listen(name.length > 100 ? 's' : name)
  await once(server, 'listening')
  const { entries } = await repack()
  t.same(entries, ['directory ./'])
  t.ok(warnings.includes('SOCKET_SKIPPED'))
  server.close()
  await once(server, 'close')
})

await t.test('a name that would be a whiteout cannot be packed', async t => {
  const { base, rootfs, repack } = await setUp(t)
  writeFileSync(`${rootfs}/etc/.wh.x`, '')
  await t.rejects(repack(), { code: 'ERR_KOCI_INVALID_WHITEOUT', message: /etc\/\.wh\.x/ })
  t.notMatch(readFileSync(`${base}/images/index.json`, 'utf8'), /next/)
  t.notOk(
    readdirSync(`${base}/images`).some(name => name.startsWith('.koci')),
    'no half blob',
  )
})

await t.test(
  'a file that changes while it is packed is an error, not a broken layer',
  async t => {
    const { base, rootfs, bundle } = await setUp(t)
    writeFileSync(`${rootfs}/etc/big`, Buffer.alloc(3_000_000))
    const app = new Koci()
      .use({
        name: 'grows',
        pack: async (ctx, next) => {
          await next()
          const { entries } = ctx
          ctx.entries = (async function* () {
            for await (const entry of entries ?? []) {
              if (String(entry.rawPath) === 'etc/big') appendFileSync(`${rootfs}/etc/big`, 'x')
              yield entry
            }
          })()
        },
      })
      .use(mtree())
    await t.rejects(app.repack({ image: `${base}/images:next`, bundle }), {
      code: 'ERR_KOCI_FILE_CHANGED',
      message: /^etc\/big/,
    })
    t.notMatch(readFileSync(`${base}/images/index.json`, 'utf8'), /next/)
  },
)

await t.test('the history says what it was told', async t => {
  const { base, rootfs, app, bundle } = await setUp(t)
  writeFileSync(`${rootfs}/etc/new`, '')
  const image = `${base}/images:next`
  const history = {
    author: 'me',
    comment: 'why',
    created: '2026-02-03T04:05:06Z',
    createdBy: 'hand',
  }
  const told = await app.repack({ image, bundle, history })
  t.same(told.image.config.history?.at(-1), {
    created: history.created,
    created_by: 'hand',
    author: 'me',
    comment: 'why',
  })
  const none = await app.repack({ image, bundle, history: false })
  t.equal(none.image.config.history?.length, 2)
  await t.rejects(app.repack({ image, bundle, history: { created: 'yesterday' } }), {
    code: 'ERR_KOCI_INVALID_OPTION',
  })
})

await t.test('SOURCE_DATE_EPOCH: times after it become it, and the history has it', async t => {
  const { base, rootfs, app, bundle } = await setUp(t)
  process.env['SOURCE_DATE_EPOCH'] = '1700000000'
  t.teardown(() => delete process.env['SOURCE_DATE_EPOCH'])
  writeFileSync(`${rootfs}/etc/new`, '')
  utimesSync(`${rootfs}/etc/motd`, 5, 5)
  const { image } = await app.repack({ image: `${base}/images:next`, bundle })
  t.equal(image.config.history?.at(-1)?.created, '2023-11-14T22:13:20Z')
  const { rootfs: second } = await new Koci().unpack({
    image: `${base}/images:next`,
    bundle: `${base}/second`,
    rootless,
  })
  t.equal(statSync(`${second}/etc/new`).mtimeMs, 1_700_000_000_000)
  t.equal(statSync(`${second}/etc/motd`).mtimeMs, 5000)
})

await t.test('unknown fields of the image survive', async t => {
  const base = t.testdir()
  const image = await makeImage(`${base}/images`, 'test', {
    layers,
    change: draft => ({
      ...draft,
      config: {
        ...draft.config,
        'x-vendor': { a: 1 },
        variant: 'v8',
        config: { Healthcheck: { Test: ['CMD'] } },
      },
      manifest: { ...draft.manifest, annotations: { keep: 'me' }, 'x-more': [1] },
    }),
  })
  const app = new Koci().use(mtree())
  const { rootfs } = await app.unpack({ image, bundle: `${base}/bundle`, rootless })
  writeFileSync(`${rootfs}/etc/new`, '')
  const result = await app.repack({ image: `${base}/images:next`, bundle: `${base}/bundle` })
  t.match(result.image.config, {
    'x-vendor': { a: 1 },
    variant: 'v8',
    config: { Healthcheck: { Test: ['CMD'] } },
  })
  t.match(result.image.manifest, { annotations: { keep: 'me' }, 'x-more': [1] })
})

await t.test('an archive cannot be repacked into', async t => {
  const { base, bundle, app } = await setUp(t)
  const { spawnSync } = await import('node:child_process')
  spawnSync('tar', ['-C', `${base}/images`, '-cf', `${base}/images.tar`, '.'])
  await t.rejects(app.repack({ image: `${base}/images.tar:next`, bundle }), {
    code: 'ERR_KOCI_READ_ONLY',
  })
})

await t.test('a rootfs that is gone is an error, not an image without files', async t => {
  const { base, bundle, rootfs, app } = await setUp(t)
  rmSync(rootfs, { recursive: true })
  await t.rejects(app.repack({ image: `${base}/images:next`, bundle }), {
    code: 'ERR_KOCI_IO',
    message: /rootfs/,
  })
  t.notOk(existsSync(rootfs))
})

await t.test('a bundle without a record falls to the next lister', async t => {
  const { base, bundle, app } = await setUp(t)
  for (const name of readdirSync(bundle))
    if (/mtree|stat/.test(name)) rmSync(path.join(bundle, name))
  await t.rejects(app.repack({ image: `${base}/images:next`, bundle }), {
    code: 'ERR_KOCI_NO_DELTA_LISTER',
  })
})
