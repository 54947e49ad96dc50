// The same images and bundles by umoci and by koci: the same trees, and each packs what the other unpacked.
import {
  appendFileSync,
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { parseIdMap } from '../../lib/oci/idmap.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { makeImage } from '../support/image.ts'
import { dir, peerImage, peerLayers as layers } from '../support/peer-image.ts'
import {
  countLayers,
  entriesOf,
  giveToOrdinary,
  isRoot,
  ordinaryMissing,
  run,
  runKoci,
  temporary,
  umociMissing,
} from '../support/peers.ts'
import { describeTree } from '../support/tree.ts'

const rootless = !isRoot
const withoutUmoci = umociMissing(rootless)
const flags = rootless ? ['--rootless'] : []

interface Setup {
  readonly base: string
  readonly images: string
  readonly image: string
  readonly app: Koci
  readonly warnings: string[]
  /** A fresh bundle by either of them; returns its path. */
  readonly unpack: (by: 'koci' | 'umoci', refName?: string) => Promise<string>
  /** Repacks as `refName` and tells what the layers hold that the image didn't have before. */
  readonly repack: (
    by: 'koci' | 'umoci',
    bundle: string,
    options?: { refresh?: boolean; above?: number; as?: string },
  ) => Promise<string[]>
}

async function setUp(t: Parameters<typeof temporary>[0]): Promise<Setup> {
  const base = temporary(t, 'umoci')
  const images = path.join(base, 'images')
  const image = await makeImage(images, 'test', peerImage)
  const app = new Koci().use(mtree())
  const warnings: string[] = []
  app.on('warning', ({ data }) => void warnings.push(data.code))
  let count = 0
  return {
    base,
    images,
    image,
    app,
    warnings,
    unpack: async (by, refName = 'test') => {
      count += 1
      const bundle = path.join(base, `bundle-${count}`)
      const image = `${images}:${refName}`
      if (by === 'koci') await app.unpack({ image, bundle, rootless })
      else run('umoci', ['unpack', ...flags, '--image', image, bundle])
      return bundle
    },
    repack: async (by, bundle, options = {}) => {
      const { refresh = false, above = layers.length, as = 'next' } = options
      const image = `${images}:${as}`
      if (by === 'koci') await app.repack({ image, bundle, refresh })
      else
        run('umoci', [
          'repack',
          ...(refresh ? ['--refresh-bundle'] : []),
          '--image',
          image,
          bundle,
        ])
      return entriesOf(images, as, above)
    },
  }
}

const rootfsOf = (bundle: string): string => path.join(bundle, 'rootfs')

/** An edited, an added, a deleted and a chmodded file. */
function change(rootfs: string): void {
  appendFileSync(`${rootfs}/dir/two`, 'more\n')
  writeFileSync(`${rootfs}/tmp/new file`, 'new')
  rmSync(`${rootfs}/opaque/kept/new`)
  chmodSync(`${rootfs}/to-dir/x`, 0o700)
}

// the hard links of what was edited are entries, too, and directories in which names came or went
const fourChanges = [
  'file dir/three',
  'hardlink dir/two',
  'hardlink etc/second',
  'directory opaque/kept',
  'file opaque/kept/.wh.new',
  'directory tmp',
  'file tmp/new file',
  'file to-dir/x',
]

await t.test('the same image gives the same tree', { skip: withoutUmoci }, async t => {
  const { unpack, warnings } = await setUp(t)
  const koci = describeTree(rootfsOf(await unpack('koci')))
  const umoci = describeTree(rootfsOf(await unpack('umoci')))
  t.ok(koci.length > 20)
  t.strictSame(koci, umoci)
  if (isRoot) t.strictSame(warnings, [])
})

await t.test(
  'the same with id maps',
  { skip: withoutUmoci || (!isRoot && 'needs root: owners') },
  async t => {
    const base = temporary(t, 'umoci')
    // umoci has device nodes and these ids, too, but no map holds the biggest ones
    const mapped = layers.map(members => members.filter(({ name }) => name !== 'etc/big-ids'))
    const image = await makeImage(path.join(base, 'images'), 'test', { layers: mapped })
    const maps = ['0:5000:70000', '70000:100000:10'] as const
    const uidMap = maps.map(parseIdMap)
    const ours = path.join(base, 'ours')
    const theirs = path.join(base, 'theirs')
    const app = new Koci().use(mtree())
    await app.unpack({ image, bundle: ours, uidMap, gidMap: uidMap })
    const options = maps.flatMap(map => ['--uid-map', map, '--gid-map', map])
    run('umoci', ['unpack', ...options, '--image', image, theirs])
    const koci = describeTree(rootfsOf(ours))
    t.strictSame(koci, describeTree(rootfsOf(theirs)))
    t.match(koci.join('\n'), /etc\/suid file 6755 6000:6000 /)

    for (const [by, bundle] of [
      ['koci', theirs],
      ['umoci', ours],
    ] as const) {
      appendFileSync(`${rootfsOf(bundle)}/etc/suid`, 'x')
      chmodSync(`${rootfsOf(bundle)}/etc/suid`, 0o6755)
      const image = `${base}/images:${by}`
      if (by === 'koci') await app.repack({ image, bundle })
      else run('umoci', ['repack', '--image', image, bundle])
      t.strictSame(await entriesOf(`${base}/images`, by, layers.length), ['file etc/suid'])
      const again = path.join(base, `again-${by}`)
      const { rootfs } = await app.unpack({ image, bundle: again })
      t.match(describeTree(rootfs).join('\n'), /etc\/suid file 6755 1000:1000 /, by)
    }
  },
)

for (const [unpacker, packer] of [
  ['koci', 'umoci'],
  ['umoci', 'koci'],
  ['umoci', 'umoci'],
  ['koci', 'koci'],
] as const)
  await t.test(
    `a bundle by ${unpacker} repacked by ${packer}`,
    { skip: withoutUmoci },
    async t => {
      await t.test('unchanged: no layer', async t => {
        const { unpack, repack, images } = await setUp(t)
        const bundle = await unpack(unpacker)
        t.strictSame(await repack(packer, bundle), [])
        t.equal(await countLayers(images, 'next'), layers.length)
      })

      await t.test(
        'four changes: their entries, and the same tree again from both',
        async t => {
          const { unpack, repack } = await setUp(t)
          const bundle = await unpack(unpacker)
          change(rootfsOf(bundle))
          t.strictSame(await repack(packer, bundle), fourChanges)
          const koci = describeTree(rootfsOf(await unpack('koci', 'next')))
          t.strictSame(koci, describeTree(rootfsOf(await unpack('umoci', 'next'))))
          // umoci packs whole seconds
          const times = packer === 'koci'
          t.strictSame(
            describeTree(rootfsOf(bundle), { times }),
            times ? koci : describeTree(rootfsOf(await unpack('koci', 'next')), { times }),
          )
        },
      )

      await t.test(
        'refreshed: then neither finds a change, and both find the next',
        async t => {
          const { unpack, repack, base } = await setUp(t)
          const bundle = await unpack(unpacker)
          change(rootfsOf(bundle))
          t.strictSame(await repack(packer, bundle, { refresh: true }), fourChanges)
          t.equal(readdirSync(bundle).filter(name => name.endsWith('.mtree')).length, 1)
          const above = layers.length + 1
          for (const by of ['umoci', 'koci'] as const)
            t.strictSame(await repack(by, bundle, { above, as: `same-${by}` }), [], by)
          symlinkSync('x', `${rootfsOf(bundle)}/tmp/link`)
          // umoci compares whole seconds
          utimesSync(`${rootfsOf(bundle)}/tmp`, 1, 1)
          for (const by of ['umoci', 'koci'] as const)
            t.strictSame(
              await repack(by, bundle, { above, as: `more-${by}` }),
              ['directory tmp', 'symlink tmp/link'],
              by,
            )
          t.notOk(existsSync(path.join(base, 'images/.koci')))
        },
      )
    },
  )

await t.test(
  'every kind of change: umoci unpacks it to what was packed',
  { skip: withoutUmoci },
  async t => {
    const { unpack, repack } = await setUp(t)
    const bundle = await unpack('koci')
    const rootfs = rootfsOf(bundle)
    renameSync(`${rootfs}/to-dir/x`, `${rootfs}/moved`)
    rmSync(`${rootfs}/opaque`, { recursive: true })
    writeFileSync(`${rootfs}/opaque`, 'now a file')
    rmSync(`${rootfs}/link`)
    mkdirSync(`${rootfs}/link/a/b/c`, { recursive: true })
    linkSync(`${rootfs}/etc/suid`, `${rootfs}/link/a/suid`)
    symlinkSync('a/suid', `${rootfs}/link/s`)
    writeFileSync(Buffer.from(`${rootfs}/\xff\xfe`, 'latin1'), 'bytes')
    writeFileSync(`${rootfs}/${'l'.repeat(200)}`, 'long')
    chmodSync(`${rootfs}/etc/empty`, 0o4711)
    if (isRoot) {
      run('mknod', [`${rootfs}/zero`, 'c', '1', '5'])
      run('mknod', [`${rootfs}/pipe`, 'p'])
      run('chown', ['70000:3000000', `${rootfs}/etc/passwd`])
    }
    await repack('koci', bundle)
    const packed = describeTree(rootfs)
    t.strictSame(describeTree(rootfsOf(await unpack('umoci', 'next'))), packed)
    t.strictSame(describeTree(rootfsOf(await unpack('koci', 'next'))), packed)
  },
)

await t.test(
  'umoci shows, lists, tags and cleans a layout that koci wrote to',
  { skip: withoutUmoci },
  async t => {
    const { unpack, repack, images } = await setUp(t)
    const bundle = await unpack('koci')
    change(rootfsOf(bundle))
    await repack('koci', bundle)
    t.equal(run('umoci', ['ls', '--layout', images]), 'test\nnext\n')
    t.match(run('umoci', ['stat', '--image', `${images}:next`]), /koci repack/)
    const stat = JSON.parse(run('umoci', ['stat', '--json', '--image', `${images}:next`]))
    t.equal(stat.history.length, layers.length + 1)
    run('umoci', ['tag', '--image', `${images}:next`, 'other'])
    run('umoci', ['rm', '--image', `${images}:next`])
    appendFileSync(`${rootfsOf(bundle)}/dir/two`, 'again')
    await repack('koci', bundle, { as: 'unused' })
    run('umoci', ['rm', '--image', `${images}:unused`])
    const blobs = (): number => readdirSync(`${images}/blobs/sha256`).length
    const before = blobs()
    run('umoci', ['gc', '--layout', images])
    t.ok(blobs() < before)
    t.equal(run('umoci', ['ls', '--layout', images]), 'test\nother\n')
    const again = rootfsOf(await unpack('umoci', 'other'))
    t.strictSame(describeTree(again), describeTree(rootfsOf(await unpack('koci', 'other'))))
  },
)

await t.test(
  'without privileges: the same tree, owners in attributes, and each packs what the other unpacked',
  { skip: umociMissing(true) || ordinaryMissing() },
  async t => {
    const base = temporary(t, 'umoci')
    const images = path.join(base, 'images')
    // umoci doesn't note the owner of what has mode 0
    const noted = layers.map(members =>
      members.map(member => (member.mode === 0 ? { ...member, uid: 0, gid: 0 } : member)),
    )
    const image = await makeImage(images, 'test', { layers: noted })
    giveToOrdinary(base)
    const bundles = { koci: path.join(base, 'koci'), umoci: path.join(base, 'umoci') }
    const user = { ordinary: true }
    runKoci([['unpack', { image, bundle: bundles.koci, rootless: true }]], user)
    run('umoci', ['unpack', '--rootless', '--image', image, bundles.umoci], user)
    const koci = describeTree(rootfsOf(bundles.koci))
    t.strictSame(koci, describeTree(rootfsOf(bundles.umoci)))
    t.match(koci.join('\n'), /etc\/suid file 6755 \S+ .* user\.rootlesscontainers=08e80710e807/)
    t.same(withoutProduct(bundles.koci), withoutProduct(bundles.umoci))

    const pack = (by: 'koci' | 'umoci', bundle: string, tag: string): void => {
      const image = `${images}:${tag}`
      if (by === 'koci') runKoci([['repack', { image, bundle }]], user)
      else run('umoci', ['repack', '--image', image, bundle], user)
    }
    for (const [by, unpacker] of [
      ['umoci', 'koci'],
      ['koci', 'umoci'],
      ['koci', 'koci'],
    ] as const) {
      const tag = `${unpacker}-${by}`
      pack(by, bundles[unpacker], `${tag}-same`)
      t.strictSame(await entriesOf(images, `${tag}-same`, layers.length), [], `${tag}: same`)
    }
    for (const [by, unpacker] of [
      ['umoci', 'koci'],
      ['koci', 'umoci'],
    ] as const) {
      const tag = `${unpacker}-${by}`
      const rootfs = rootfsOf(bundles[unpacker])
      run('sh', ['-c', 'echo x >> "$0/etc/group-owned"; mkdir "$0/dir/new"', rootfs], user)
      pack(by, bundles[unpacker], tag)
      const expected = ['directory dir', 'directory dir/new', 'file etc/group-owned']
      t.strictSame(await entriesOf(images, tag, layers.length), expected, tag)
      const bundle = path.join(base, `again-${tag}`)
      runKoci([['unpack', { image: `${images}:${tag}`, bundle, rootless: true }]], user)
      // umoci packs whole seconds
      const times = by === 'koci'
      t.strictSame(
        describeTree(rootfsOf(bundle), { times }),
        describeTree(rootfs, { times }),
        `${tag}: the tree that was packed`,
      )
      if (!isRoot) continue
      const { rootfs: real } = await new Koci().unpack({
        image: `${images}:${tag}`,
        bundle: path.join(base, `real-${tag}`),
      })
      t.match(
        describeTree(real).join('\n'),
        /etc\/group-owned file 640 0:42 /,
        'real owners again',
      )
    }
  },
)

await t.test(
  'without privileges: the owner of what nobody may read survives',
  { skip: ordinaryMissing() || (!isRoot && 'needs root: to see the owners') },
  async t => {
    const base = temporary(t, 'umoci')
    const images = path.join(base, 'images')
    const closed = [dir('./', { mode: 0o555 })]
    const image = await makeImage(images, 'test', { layers: [...layers, closed] })
    giveToOrdinary(base)
    const bundle = path.join(base, 'bundle')
    const user = { ordinary: true }
    runKoci([['unpack', { image, bundle, rootless: true }]], user)
    utimesSync(`${rootfsOf(bundle)}/etc/shadow`, 5, 5)
    utimesSync(`${rootfsOf(bundle)}/private`, 5, 5)
    utimesSync(rootfsOf(bundle), 5, 5)
    const [answer] = runKoci([['repack', { image: `${images}:next`, bundle }]], user)
    t.strictSame(answer?.changes, ['M ', 'M etc/shadow', 'M private'])
    const real = path.join(base, 'real')
    const { rootfs } = await new Koci().unpack({ image: `${images}:next`, bundle: real })
    const tree = describeTree(rootfs).join('\n')
    t.match(tree, /etc\/shadow file 0 0:42 11 \S+ @5000000000$/m)
    t.match(tree, /private dir 0 9:0 @5000000000$/m)
    t.match(tree, /^\. dir 555 0:0 @5000000000$/m)
  },
)

/** The runtime configuration, without what names the program or its version of the specification. */
function withoutProduct(bundle: string): unknown {
  const { root, process } = JSON.parse(readFileSync(path.join(bundle, 'config.json'), 'utf8'))
  return { root, args: process.args, cwd: process.cwd, user: process.user }
}
