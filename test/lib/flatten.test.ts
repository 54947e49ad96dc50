// A flattened image is the image: made-up layers, all of them or some, give the same tree before and after. Then what of it
// can be seen by looking: which entries there are, the history, the same bytes twice.
import { chmodSync, mkdirSync, rmSync, utimesSync } from 'node:fs'
import path from 'node:path'
import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t, { type Test } from 'tap'
import { flattenImage, type FlattenOptions } from '../../lib/flatten.ts'
import { ImageLayout, type ResolvedImage } from '../../lib/layout/image-layout.ts'
import { appendHistory } from '../../lib/oci/image-draft.ts'
import type { LayerSelection } from '../../lib/layout/select-layers.ts'
import { layersOf } from '../../lib/unpack.ts'
import { differential } from '../support/differential.ts'
import { makeSandbox } from '../support/extract.ts'
import { makeImage } from '../support/image.ts'
import { anyImage, toMembers, type GeneratedImage } from '../support/image-arbitrary.ts'
import { dir, file, hard, link } from '../support/members.ts'
import { memoryParent } from '../support/memory-dir.ts'
import { entriesOf, isRoot, temporary } from '../support/peers.ts'
import { tarBytes, type TarMember } from '../support/tar-builder.ts'
import { describeTree } from '../support/tree.ts'

process.env['SOURCE_DATE_EPOCH'] = '1000'

async function tarsOf(images: string, refName: string): Promise<Buffer[]> {
  await using layout = await ImageLayout.open(images)
  const image = { layout, ...(await layout.resolve(refName)) }
  return Array.fromAsync(layersOf(image), async layer =>
    Buffer.concat(await Array.fromAsync(layer.open())),
  )
}

function treeOf(directory: string, tars: readonly Buffer[]): string[] {
  mkdirSync(directory)
  const sandbox = makeSandbox(directory)
  chmodSync(sandbox.rootfs, 0o755)
  utimesSync(sandbox.rootfs, 0, 0)
  for (const tar of tars) sandbox.applyBytes(tar, { rootless: !isRoot })
  return describeTree(sandbox.rootfs)
}

/** Flattens some layers, and compares the trees; a range beyond the last layer is all of them. */
async function compare(
  base: string,
  image: GeneratedImage,
  range: { first: number; last: number },
): Promise<void> {
  mkdirSync(base)
  try {
    const images = path.join(base, 'images')
    const layers = toMembers(image)
    await makeImage(images, 'a', { layers, compression: 'none' })
    const end = layers.length - 1
    const selected: LayerSelection =
      range.first > end ? {} : { ...range, last: Math.min(range.last, end) }
    const { first = 0, last = end } = selected
    const made = await flattenImage({ image: `${images}:a`, newRefName: 'b', layers: selected })
    assert.equal(made.layers.length, layers.length - (last - first))
    const wanted = treeOf(
      path.join(base, 'a'),
      layers.map(members => tarBytes(members)),
    )
    const tars = await tarsOf(images, 'b')
    assert.deepEqual(treeOf(path.join(base, 'b'), tars), wanted)
    // once more, and nothing happens
    const again = await flattenImage({
      image: `${images}:b`,
      newRefName: 'c',
      layers: { first, last: first },
    })
    assert.deepEqual(
      again.layers.map(layer => layer.diffID),
      made.layers.map(layer => layer.diffID),
    )
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
}

await t.test('made-up images: the same tree', async t => {
  const base = temporary(t, 'flatten', memoryParent())
  let index = 0
  const range = fc
    .tuple(fc.nat(4), fc.nat(4))
    .map(([first, more]) => ({ first, last: first + more }))
  await differential(
    fc.asyncProperty(anyImage({ privileged: isRoot }), range, (image, range) =>
      compare(path.join(base, String(index++)), image, range),
    ),
    80,
  )
})

async function flattened(
  t: Test,
  layers: readonly (readonly TarMember[])[],
  options: Omit<FlattenOptions, 'image'> = {},
): Promise<{ image: ResolvedImage; entries: string[]; images: string }> {
  const images = path.join(temporary(t), 'images')
  await makeImage(images, 'a', { layers })
  const image = await flattenImage({ image: `${images}:a`, newRefName: 'b', ...options })
  const first = options.layers?.first ?? 0
  return { image, entries: await entriesOf(images, 'b', first), images }
}

await t.test('what is in the one layer', async t => {
  for (const [what, layers, options, wanted] of [
    [
      'what was deleted leaves nothing',
      [
        [dir('a'), file('a/x', 'x'), file('b')],
        [file('a/.wh.x'), file('.wh.b')],
      ],
      {},
      ['directory a'],
    ],
    [
      'of what was replaced, the last',
      [[file('x', 'old')], [file('x', 'new')]],
      {},
      ['file x'],
    ],
    [
      'directories that no layer lists are listed',
      [[file('a/b/c')]],
      {},
      ['directory a', 'directory a/b', 'file a/b/c'],
    ],
    [
      'what goes through a link is where it leads',
      [[dir('usr'), link('lib', 'usr')], [file('lib/x', 'x')]],
      {},
      ['directory usr', 'symlink lib', 'file usr/x'],
    ],
    [
      'of some layers, whiteouts for what is below stay',
      [
        [file('a'), file('b')],
        [file('.wh.a'), file('c')],
        [file('.wh.c'), file('.wh.b')],
      ],
      { layers: { first: 1 } },
      ['file .wh.a', 'file .wh.b'],
    ],
    [
      'an opaque directory deletes by name',
      [
        [dir('d'), file('d/a'), file('d/b')],
        [dir('d'), file('d/.wh..wh..opq'), file('d/b')],
      ],
      { layers: { first: 1 } },
      ['directory d', 'file d/.wh.a', 'file d/b'],
    ],
    [
      'a link to what is below stays one',
      [[file('a', 'x')], [hard('b', 'a')]],
      { layers: { first: 1 } },
      ['hardlink b'],
    ],
    [
      'a link to what is deleted becomes the file',
      [[file('a', 'x')], [hard('b', 'a')], [file('.wh.a')]],
      { layers: { first: 1 } },
      ['file .wh.a', 'file b'],
    ],
    ['nothing that stays', [[file('a')], [file('.wh.a')]], {}, []],
  ] as const)
    await t.test(what, async t => {
      const { entries } = await flattened(t, layers, options)
      t.same(entries.sort(), [...wanted].sort())
    })
})

await t.test('the history stays, and numbers fit', async t => {
  const layers = [[file('a')], [file('b')], [file('c')]]
  const images = path.join(temporary(t), 'images')
  await makeImage(images, 'a', {
    layers,
    change: draft => appendHistory(draft, { created_by: 'ENV', empty_layer: true }),
  })
  const { config } = await flattenImage({
    image: `${images}:a`,
    layers: { last: 1 },
    history: { createdBy: 'koci flatten', created: '2026-01-02T00:00:00Z', comment: 'two' },
  })
  t.same(config.history, [
    { created_by: 'test', empty_layer: true },
    { created_by: 'test', empty_layer: true },
    { created: '2026-01-02T00:00:00Z', created_by: 'koci flatten', comment: 'two' },
    { created_by: 'test' },
    { created_by: 'ENV', empty_layer: true },
  ])
  const silent = await flattenImage({ image: `${images}:a`, history: false })
  const empty = silent.config.history?.map(entry => entry.empty_layer === true)
  t.same(empty, [true, true, true, false, true], 'the last of them stands for all')
})

await t.test('the descriptor has what was asked for', async t => {
  const { image } = await flattened(t, [[file('a', 'x'.repeat(10_000))]], {
    compress: 'zstd',
    annotations: { 'org.example': 'yes' },
  })
  t.match(image.manifest.layers, [
    {
      mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd',
      annotations: { 'org.example': 'yes', 'ci.umo.uncompressed_blob_size': /^\d+$/ },
    },
  ])
})

await t.test('layers that are not there', async t => {
  const images = path.join(temporary(t), 'images')
  const image = await makeImage(images, 'a', { layers: [[file('a')], [file('b')]] })
  const digest = (await flattenImage({ image, newRefName: 'b' })).layers[0]?.descriptor.digest
  for (const [layers, message] of [
    [{ first: 2 }, /layer 2: the image has layers 0 to 1, base first/],
    [{ first: 0, last: 2 }, /layers 0 to 2: the image has/],
    [{ first: 5, last: 5 }, /layer 5: the image has/],
    [{ from: 'sha256:abc' }, /give a digest, or its first 6 digits/],
    [{ from: digest }, /the image has no such layer/],
  ] as const)
    await t.rejects(flattenImage({ image, layers }), {
      code: 'ERR_KOCI_INVALID_OPTION',
      message,
    })
  const none = await makeImage(images, 'none', { layers: [] })
  await t.rejects(flattenImage({ image: none }), { message: /the image has no layers/ })
})

await t.test('a layer that is damaged changes nothing', async t => {
  const images = path.join(temporary(t), 'images')
  const image = await makeImage(images, 'a', {
    layers: [[file('a')], [hard('b', 'nowhere')]],
  })
  await t.rejects(flattenImage({ image }), { code: 'ERR_KOCI_INVALID_ENTRY' })
  await using layout = await ImageLayout.open(images)
  t.equal((await layout.resolve('a')).layers.length, 2)
})
