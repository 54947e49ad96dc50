import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { copyImages, type CopyReport } from '../../../lib/layout/copy-images.ts'
import { ImageLayout } from '../../../lib/layout/image-layout.ts'
import { verifyLayout } from '../../../lib/layout/verify-layout.ts'
import type { Descriptor } from '../../../lib/oci/descriptor.ts'
import { ociTypes } from '../../../lib/oci/media-type.ts'
import { mountpoint, onFileSystem } from '../../support/btrfs.ts'
import { missing, run, temporary } from '../../support/peers.ts'
import { tarBytes } from '../../support/tar-builder.ts'
import {
  addBlob,
  addImage,
  blobJson,
  fileOf,
  makeLayout,
  readJson,
  snapshot,
  tagged,
  writeIndex,
} from './fixture.ts'

if (mountpoint !== undefined) {
  await onOneFileSystem(mountpoint)
} else {
  await everywhere()
  await onFileSystem(t, import.meta.filename)
}

function blobsOf(layout: string): string[] {
  return readdirSync(join(layout, 'blobs'), { recursive: true, encoding: 'utf8' })
    .filter(name => name.includes('/'))
    .sort()
}

function tagsOf(layout: string): unknown[] {
  const { manifests } = readJson(join(layout, 'index.json')) as { manifests: Descriptor[] }
  return manifests.map(({ annotations }) => annotations?.['org.opencontainers.image.ref.name'])
}

/** The same bytes under the same names, and nothing wrong with any of them. */
async function isWhole(t: Test, layout: string, from: string): Promise<void> {
  await using opened = await ImageLayout.open(layout)
  t.match(await verifyLayout(opened), { problems: { length: 0 }, unused: 0 })
  if (opened.readOnly) return
  for (const name of blobsOf(layout)) {
    const bytes = readFileSync(join(layout, 'blobs', name))
    t.ok(bytes.equals(readFileSync(join(from, 'blobs', name))), name)
  }
}

/** A layout with two images that share a layer, an index of two platforms, and what refers to one of them. */
function makeWorld(dir: string): { one: Descriptor; signature: Descriptor; note: Descriptor } {
  makeLayout(dir)
  const one = addImage(dir, { layers: ['shared', 'one'] })
  const two = addImage(dir, { layers: ['shared', 'two'], algorithm: 'sha512' })
  const platforms = ['amd64', 'arm64'].map(architecture => {
    const platform = { os: 'linux', architecture }
    return { ...addImage(dir, { layers: [architecture], platform }), platform }
  })
  const inner = addBlob(dir, ociTypes.index, { schemaVersion: 2, manifests: platforms })
  const index = addBlob(dir, ociTypes.index, { schemaVersion: 2, manifests: [inner] })
  const artifact = (name: string, more: object): Descriptor =>
    addBlob(dir, ociTypes.manifest, {
      schemaVersion: 2,
      mediaType: ociTypes.manifest,
      artifactType: 'application/x-signature',
      config: addBlob(dir, ociTypes.empty, '{}'),
      layers: [addBlob(dir, 'application/x-signature', name)],
      ...more,
    })
  const signature = artifact('signature', { subject: one })
  const note = artifact('about the signature', { subject: signature })
  const legacy = artifact('cosign', {})
  const other = artifact('of another', { subject: two })
  writeIndex(dir, [
    tagged(one, 'one'),
    tagged(two, 'two'),
    tagged(index, 'index'),
    note,
    tagged(signature, 'signature'),
    tagged(legacy, `${one.digest.replace(':', '-')}.sig`),
    other,
  ])
  return { one, signature, note }
}

function count({ blobs }: CopyReport): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { how } of blobs) counts[how] = (counts[how] ?? 0) + 1
  return counts
}

async function everywhere(): Promise<void> {
  await t.test('into a layout that is made, and one that is there', async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    const target = join(dir, 'new/target')
    makeWorld(source)
    const before = snapshot(source)
    const first = await copyImages({ source, refName: 'one', target })
    t.equal(first.blobs.length, 4)
    t.same(tagsOf(target), ['one'])
    const second = await copyImages({ source, refName: 'two', target, newRefName: 'other' })
    t.equal(second.blobs.length, 4)
    await copyImages({ source, refName: 'one', target, newRefName: 'again' })
    t.same(tagsOf(target), ['one', 'other', 'again'])
    t.equal(blobsOf(target).length, 8, 'one of them with SHA-512')
    await isWhole(t, target, source)
    t.same(
      snapshot(source).map(line => line.split(' ').slice(0, 3)),
      before.map(line => line.split(' ').slice(0, 3)),
    )
    t.same(readdirSync(join(dir, 'new')), ['target'])
    t.same(readdirSync(target).sort(), ['blobs', 'index.json', 'oci-layout'])
  })

  await t.test('several at once into a layout that is not there make it together', async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    const target = join(dir, 'new/target')
    makeWorld(source)
    const names = ['one', 'two', 'index', 'signature']
    await Promise.all(names.map(refName => copyImages({ source, refName, target })))
    t.same(tagsOf(target).map(String).sort(), names.sort())
    await isWhole(t, target, source)
    t.same(readdirSync(join(dir, 'new')), ['target'])
  })

  await t.test('a layout that somebody else makes meanwhile is added to', async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    const target = join(dir, 'target')
    const { one } = makeWorld(source)
    const theirs = addImage(makeLayout(join(dir, 'theirs')), { layers: ['shared'] })
    writeIndex(join(dir, 'theirs'), [tagged(theirs, 'theirs')])
    const turns: number[] = []
    const report = await copyImages({
      source,
      refName: 'one',
      target,
      onProgress: ({ blobs }) => {
        turns.push(blobs)
        if (blobs === 0) renameSync(join(dir, 'theirs'), target)
      },
    })
    t.same(turns, [0, 1, 2, 3], 'told once')
    t.equal(report.blobs.length, 4)
    t.equal(count(report)['present'], 1, 'the shared layer')
    t.same(tagsOf(target), ['theirs', 'one'])
    await using layout = await ImageLayout.open(target)
    t.equal((await layout.resolve('one')).descriptor.digest, one.digest)
    t.match(await verifyLayout(layout), { problems: { length: 0 }, unused: 0 })
    t.same(readdirSync(dir).sort(), ['source', 'target'])
    t.same(readdirSync(target).sort(), ['blobs', 'index.json', 'oci-layout'])
  })

  await t.test('what else is made there meanwhile stays as it is', async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    makeWorld(source)
    const makers = {
      ERR_KOCI_CLOBBER: (target: string) => writeFileSync(target, 'mine'),
      ERR_KOCI_INVALID_LAYOUT: (target: string) => mkdirSync(target),
    }
    for (const [code, make] of Object.entries(makers)) {
      const target = join(dir, code)
      const copying = copyImages({
        source,
        refName: 'one',
        target,
        onProgress: ({ blobs }) => blobs === 0 && make(target),
      })
      await t.rejects(copying, { code })
    }
    t.equal(readFileSync(join(dir, 'ERR_KOCI_CLOBBER'), 'utf8'), 'mine')
    t.same(readdirSync(join(dir, 'ERR_KOCI_INVALID_LAYOUT')), [])
    t.same(readdirSync(dir).sort(), ['ERR_KOCI_CLOBBER', 'ERR_KOCI_INVALID_LAYOUT', 'source'])
  })

  await t.test('what is there is not copied again, unless it is damaged', async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    const target = join(dir, 'target')
    const { one } = makeWorld(source)
    await copyImages({ source, refName: 'one', target })
    const { config } = blobJson(source, one) as { config: Descriptor }
    rmSync(fileOf(target, config))
    writeFileSync(fileOf(target, config), 'damaged')
    const again = await copyImages({ source, refName: 'one', target })
    t.match(count(again), { present: 3 })
    await isWhole(t, target, source)
  })

  await t.test('an index with all that is in it, or one of its images', async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    makeWorld(source)
    const all = await copyImages({ source, refName: 'index', target: join(dir, 'all') })
    t.equal(all.blobs.length, 8)
    await isWhole(t, join(dir, 'all'), source)
    const platform = { os: 'linux', architecture: 'arm64' }
    const target = join(dir, 'arm')
    const arm = await copyImages({ source, refName: 'index', target, platform })
    t.equal(arm.blobs.length, 3)
    t.match(arm.entries, [{ mediaType: ociTypes.manifest }])
    await using layout = await ImageLayout.open(target)
    t.equal((await layout.resolve('index', { platform })).config.architecture, 'arm64')
  })

  await t.test('what refers to an image, and what refers to that', async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    const { one, signature, note } = makeWorld(source)
    const target = join(dir, 'target')
    const { entries } = await copyImages({ source, refName: 'one', target, referrers: true })
    const digests = entries.map(({ digest }) => digest)
    t.equal(digests[0], one.digest, 'the image first')
    t.ok(digests.includes(signature.digest) && digests.includes(note.digest))
    const tag = `${one.digest.replace(':', '-')}.sig`
    t.same(new Set(tagsOf(target)), new Set(['one', 'signature', tag, undefined]))
    await isWhole(t, target, source)
    await copyImages({ source, refName: 'one', target, referrers: true })
    t.equal(tagsOf(target).length, 4, 'once more adds nothing')
    // the other way round: a signature isn't one without what it signs
    await copyImages({ source, refName: 'signature', target: join(dir, 'signed') })
    t.ok(existsSync(fileOf(join(dir, 'signed'), one)))
  })

  await t.test('everything, with its tags', async t => {
    const dir = temporary(t, 'copy')
    const [source, target, archive] = ['source', 'target', 'a.tar'].map(name => join(dir, name))
    if (!source || !target || !archive) return
    makeWorld(source)
    await copyImages({ source, target })
    t.same(tagsOf(target), tagsOf(source))
    t.same(blobsOf(target), blobsOf(source))
    await copyImages({ source, target: archive })
    await copyImages({ source: archive, target: join(dir, 'back') })
    t.same(blobsOf(join(dir, 'back')), blobsOf(source))
    await isWhole(t, join(dir, 'back'), source)
    await isWhole(t, archive, source)
  })

  await t.test('an archive: the same bytes twice, never over another', async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    makeWorld(source)
    const copyTo = (name: string): Promise<CopyReport> =>
      copyImages({ source, refName: 'one', target: join(dir, name), newRefName: 'v1' })
    await copyTo('a.tar')
    await copyTo('b.tar')
    t.ok(readFileSync(join(dir, 'a.tar')).equals(readFileSync(join(dir, 'b.tar'))))
    await t.rejects(copyTo('a.tar'), { code: 'ERR_KOCI_CLOBBER' })
    mkdirSync(join(dir, 'c.tar'))
    await t.rejects(copyTo('c.tar'), { code: 'ERR_KOCI_INVALID_LAYOUT' })
    const forced = join(dir, 'layout.tar')
    await copyImages({ source, refName: 'one', target: forced, format: 'layout' })
    t.ok(statSync(forced).isDirectory())
    await copyImages({ source, refName: 'one', target: join(dir, 'noname'), format: 'archive' })
    await isWhole(t, join(dir, 'noname'), source)
    t.notOk(readdirSync(dir).some(name => name.startsWith('.')))
  })

  await t.test('skopeo reads both', { skip: missing('skopeo') }, async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    makeWorld(source)
    const platform = { os: 'linux', architecture: 'amd64' }
    const { entries } = await copyImages({
      source,
      refName: 'one',
      target: `${dir}/l`,
      platform,
    })
    await copyImages({ source, refName: 'one', target: `${dir}/a.tar`, platform })
    for (const image of [`oci:${dir}/l:one`, `oci-archive:${dir}/a.tar:one`]) {
      t.equal(JSON.parse(run('skopeo', ['inspect', image])).Digest, entries[0]?.digest)
      run('skopeo', ['--insecure-policy', 'copy', '-q', image, `dir:${dir}/${image.length}`])
    }
  })

  await t.test('what docker save wrote, and data that only a descriptor has', async t => {
    const dir = temporary(t, 'copy')
    const tar = tarBytes([{ name: 'x', body: 'x' }])
    const config = JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      rootfs: { type: 'layers' },
    })
    writeFileSync(
      join(dir, 'saved.tar'),
      tarBytes([
        { name: 'c.json', body: config },
        { name: 'l/layer.tar', body: tar },
        {
          name: 'manifest.json',
          body: JSON.stringify([
            { Config: 'c.json', RepoTags: ['example/app:v1'], Layers: ['l/layer.tar'] },
          ]),
        },
      ]),
    )
    const target = join(dir, 'target')
    const { entries } = await copyImages({
      source: join(dir, 'saved.tar'),
      refName: 'v1',
      target,
    })
    t.equal(entries[0]?.['data'], undefined)
    t.equal(blobsOf(target).length, 3)
  })

  await t.test('inodes are shared where nobody else can write to them', async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    process.umask(0o022)
    const { one } = makeWorld(source)
    const { config } = blobJson(source, one) as { config: Descriptor }
    const inodes = (target: string): boolean =>
      statSync(fileOf(source, config)).ino === statSync(fileOf(target, config)).ino
    const copyTo = async (name: string): Promise<string | undefined> => {
      const target = join(dir, name)
      const { blobs } = await copyImages({ source, refName: 'one', target })
      const how = blobs.find(({ digest }) => digest === config.digest)?.how
      t.equal(inodes(target), how === 'hardlink', name)
      await isWhole(t, target, source)
      return how
    }
    const usual = await copyTo('usual')
    t.ok(usual === 'hardlink' || usual === 'reflink', String(usual))
    chmodSync(fileOf(source, config), 0o664)
    t.not(await copyTo('others can write'), 'hardlink')
    chmodSync(fileOf(source, config), 0o600)
    t.not(await copyTo('another mode'), 'hardlink')
    chmodSync(fileOf(source, config), 0o644)
    const elsewhere = join(dir, 'elsewhere')
    renameSync(fileOf(source, config), elsewhere)
    symlinkSync(elsewhere, fileOf(source, config))
    t.not(await copyTo('a symlink'), 'hardlink')
    t.ok(statSync(fileOf(join(dir, 'a symlink'), config)).isFile())
  })

  await t.test('with a dry run nothing is written', async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    const target = join(dir, 'target')
    makeWorld(source)
    await copyImages({ source, refName: 'one', target })
    const before = snapshot(dir)
    const options = { source, refName: 'two', dryRun: true }
    t.same(count(await copyImages({ ...options, target })), { copy: 4 })
    t.same(count(await copyImages({ ...options, refName: 'one', target })), { present: 4 })
    t.same(count(await copyImages({ ...options, target: join(dir, 'new') })), { copy: 4 })
    t.same(count(await copyImages({ ...options, target: join(dir, 'new.tar') })), { copy: 4 })
    t.same(snapshot(dir), before)
  })

  await t.test('what can not be copied leaves nothing', async t => {
    for (const [what, spoil, code] of [
      [
        'a damaged layer',
        (path: string) => writeFileSync(path, Buffer.alloc(statSync(path).size)),
        'ERR_KOCI_DIGEST_MISMATCH',
      ],
      ['one that is missing', (path: string) => rmSync(path), 'ERR_KOCI_BLOB_NOT_FOUND'],
      ['one cut short', (path: string) => writeFileSync(path, ''), 'ERR_KOCI_SIZE_MISMATCH'],
    ] as const)
      await t.test(what, async t => {
        const dir = temporary(t, 'copy')
        const source = join(dir, 'source')
        const there = join(dir, 'there')
        const { one } = makeWorld(source)
        await copyImages({ source, refName: 'two', target: there })
        const { layers } = blobJson(source, one) as { layers: Descriptor[] }
        spoil(fileOf(source, layers[1] as Descriptor))
        const before = [readdirSync(dir), tagsOf(there)]
        for (const target of ['there', 'new', 'new.tar'])
          await t.rejects(copyImages({ source, refName: 'one', target: join(dir, target) }), {
            code,
          })
        t.same([readdirSync(dir), tagsOf(there)], before)
        t.same(readdirSync(there).sort(), ['blobs', 'index.json', 'oci-layout'])
      })
  })

  await t.test('an abort leaves nothing', async t => {
    const dir = temporary(t, 'copy')
    const source = join(dir, 'source')
    makeWorld(source)
    const signal = AbortSignal.abort()
    for (const target of ['new', 'new.tar'])
      await t.rejects(copyImages({ source, target: join(dir, target), signal }), {
        code: 'ERR_KOCI_ABORTED',
      })
    t.same(readdirSync(dir), ['source'])
  })
}

async function onOneFileSystem(directory: string): Promise<void> {
  await t.test('blocks are shared where the file system can', async t => {
    const source = join(directory, 'source')
    const target = join(directory, 'target')
    makeWorld(source)
    const { blobs } = await copyImages({ source, refName: 'one', target })
    t.ok(
      blobs.every(({ how }) => how === 'reflink'),
      JSON.stringify(blobs),
    )
    await isWhole(t, target, source)
  })
}
