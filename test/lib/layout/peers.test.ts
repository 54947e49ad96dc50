// What other tools make of our layouts, and we of theirs.
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { ImageLayout, type ResolvedImage } from '../../../lib/layout/image-layout.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import { appendLayer, encodeDraft, newImage } from '../../../lib/oci/image-draft.ts'
import { layerTar } from './fixture.ts'

function missing(...tools: string[]): false | string {
  for (const tool of tools)
    try {
      execFileSync('sh', ['-c', 'command -v "$0"', tool], { stdio: 'ignore' })
    } catch {
      return `needs ${tool}`
    }
  return false
}

function run(tool: string, ...args: string[]): string {
  return execFileSync(tool, args, {
    encoding: 'utf8',
    timeout: 60_000,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/** A layout written by us, with one image of one layer under some tags. */
async function makeOurs(path: string, ...names: string[]): Promise<void> {
  await using layout = await ImageLayout.create(path)
  const tar = layerTar('ours')
  const blob = await layout.createBlob()
  await blob.write(gzipSync(tar))
  const { digest, size } = await blob.commit('x')
  const created = '2020-01-01T00:00:00Z'
  const draft = newImage({ platform: { os: 'linux', architecture: 'amd64' }, created })
  const { config, manifest } = encodeDraft(
    appendLayer(
      draft,
      {
        digest,
        size,
        compression: 'gzip',
        diffID: digestOf(tar),
        uncompressedSize: tar.length,
      },
      { created, created_by: 'koci test' },
    ),
  )
  await layout.putBlob(config.bytes, config.descriptor.mediaType)
  await layout.putBlob(manifest.bytes, manifest.descriptor.mediaType)
  for (const name of names) await layout.setRef(name, manifest.descriptor)
}

/** Resolves a tag and verifies every layer. */
async function read(path: string, name: string): Promise<ResolvedImage> {
  await using layout = await ImageLayout.open(path)
  const image = await layout.resolve(name)
  for (const { descriptor } of image.layers) await layout.readBlob(descriptor)
  return image
}

await t.test(
  'umoci lists, shows, tags, unpacks and cleans what we wrote',
  { skip: missing('umoci') },
  async t => {
    const path = join(t.testdir(), 'images')
    await makeOurs(path, 'a', 'b')
    t.equal(run('umoci', 'ls', '--layout', path), 'a\nb\n')
    t.match(run('umoci', 'stat', '--image', `${path}:a`), /koci test/)
    run('umoci', 'tag', '--image', `${path}:a`, 'c')
    await using writer = await ImageLayout.open(path)
    await writer.putBlob(Buffer.from('garbage'), 'a/b')
    run('umoci', 'gc', '--layout', path)
    await writer.setRef('d', (await writer.resolve('c')).descriptor)
    t.equal(run('umoci', 'ls', '--layout', path), 'a\nb\nc\nd\n')
    t.equal((await read(path, 'd')).layers.length, 1)
  },
)

await t.test('We read, tag and remove what umoci made', { skip: missing('umoci') }, async t => {
  const dir = t.testdir()
  const path = join(dir, 'images')
  run('umoci', 'init', '--layout', path)
  run('umoci', 'new', '--image', `${path}:empty`)
  t.same((await read(path, 'empty')).layers, [])
  writeFileSync(join(dir, 'layer.tar'), layerTar('theirs'))
  run(
    'umoci',
    'raw',
    'add-layer',
    '--image',
    `${path}:empty`,
    '--tag',
    'full',
    join(dir, 'layer.tar'),
  )
  const image = await read(path, 'full')
  t.same(
    image.layers.map(({ diffID, compression }) => [diffID, compression]),
    [[digestOf(layerTar('theirs')), 'gzip']],
  )
  await using layout = await ImageLayout.open(path)
  await layout.setRef('more', image.descriptor)
  t.equal(await layout.removeRef('empty'), 1)
  t.equal(run('umoci', 'ls', '--layout', path), 'full\nmore\n')
})

await t.test(
  'oci-image-tool finds nothing to object to',
  { skip: missing('oci-image-tool') },
  async t => {
    const path = join(t.testdir(), 'images')
    await makeOurs(path, 'only')
    t.doesNotThrow(() =>
      run('oci-image-tool', 'validate', '--type', 'image', '--ref', 'name=only', path),
    )
  },
)

await t.test(
  'skopeo copies what we wrote into every kind, and we read them all',
  { skip: missing('skopeo') },
  async t => {
    const dir = t.testdir()
    await makeOurs(join(dir, 'images'), 'a')
    const image = await read(join(dir, 'images'), 'a')
    const diffIDs = (of: ResolvedImage): string[] => of.layers.map(({ diffID }) => diffID)
    for (const [target, path, name, compression] of [
      ['oci:', 'other', 'b', 'gzip'],
      ['oci-archive:', 'oci.tar', 'c', 'gzip'],
      ['docker-archive:', 'docker.tar', 'example.org/x:d', 'none'],
    ] as const) {
      run(
        'skopeo',
        'copy',
        `oci:${join(dir, 'images')}:a`,
        `${target}${join(dir, path)}:${name}`,
      )
      const copy = await read(join(dir, path), name)
      t.same(diffIDs(copy), diffIDs(image))
      t.same(
        copy.layers.map(layer => layer.compression),
        [compression],
      )
      if (compression === 'gzip') t.equal(copy.descriptor.digest, image.descriptor.digest)
    }
    t.same(
      diffIDs(await read(join(dir, 'docker.tar'), 'd')),
      diffIDs(image),
      'by the tag alone',
    )
  },
)

await t.test(
  "skopeo's Docker manifests in a layout are read",
  { skip: missing('skopeo') },
  async t => {
    const dir = t.testdir()
    await makeOurs(join(dir, 'images'), 'a')
    const from = `oci:${join(dir, 'images')}:a`
    run('skopeo', 'copy', '--format', 'v2s2', from, `dir:${join(dir, 'plain')}`)
    run('skopeo', 'copy', `dir:${join(dir, 'plain')}`, `oci-archive:${join(dir, 'x.tar')}:x`)
    t.equal((await read(join(dir, 'x.tar'), 'x')).layers[0]?.compression, 'gzip')
  },
)
