// Many at once: repacks into one layout, from many processes and from one.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { makeImage } from '../support/image.ts'
import { peerImage } from '../support/peer-image.ts'
import { isRoot, kociArguments, missing, run, temporary } from '../support/peers.ts'
import { describeTree } from '../support/tree.ts'

const rootless = !isRoot
const tags = ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight']

interface Setup {
  readonly base: string
  readonly images: string
  readonly app: Koci
  readonly bundleOf: (tag: string) => string
}

/** A changed bundle for every tag, all of one image, unpacked at once. */
async function setUp(t: Parameters<typeof temporary>[0], tags: string[]): Promise<Setup> {
  const base = temporary(t, 'concurrency')
  const images = path.join(base, 'images')
  const image = await makeImage(images, 'test', peerImage)
  const app = new Koci().use(mtree())
  const bundleOf = (tag: string): string => path.join(base, tag)
  const unpacked = tags.map(tag => app.unpack({ image, bundle: bundleOf(tag), rootless }))
  for (const [index, { rootfs }] of (await Promise.all(unpacked)).entries()) {
    appendFileSync(`${rootfs}/etc/passwd`, 'the same in all of them')
    writeFileSync(`${rootfs}/etc/own`, `${index} `.repeat(500_000))
    rmSync(`${rootfs}/dir/two`)
  }
  return { base, images, app, bundleOf }
}

/** Runs koci in a process of its own; rejects with what it said if it failed, or took too long. */
async function repackElsewhere(image: string, bundle: string): Promise<void> {
  const child = spawn(process.execPath, kociArguments([['repack', { image, bundle }]]), {
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: 90_000,
    killSignal: 'SIGKILL',
  })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', text => (said += text))
  const [status] = await once(child, 'close')
  if (status !== 0) throw new Error(`${image}: ${status}: ${said}`)
}

for (const [where, repack] of [
  [
    'eight processes',
    (_: Koci, image: string, bundle: string) => repackElsewhere(image, bundle),
  ],
  ['one process', (app: Koci, image: string, bundle: string) => app.repack({ image, bundle })],
] as const)
  await t.test(`eight repacks from ${where} into one layout: none gets lost`, async t => {
    const { base, images, app, bundleOf } = await setUp(t, tags)
    const results = await Promise.allSettled(
      tags.map(tag => repack(app, `${images}:${tag}`, bundleOf(tag))),
    )
    for (const [index, result] of results.entries())
      t.equal(
        result.status,
        'fulfilled',
        `${tags[index]} ${'reason' in result ? result.reason : ''}`,
      )

    await using layout = await ImageLayout.open(images)
    t.strictSame(await namesIn(layout), ['test', ...tags].sort())
    t.strictSame(
      readdirSync(images).filter(name => !['blobs', 'index.json', 'oci-layout'].includes(name)),
      [],
      'nothing is left lying about',
    )
    for (const tag of tags) {
      const bundle = path.join(base, `again-${tag}`)
      const { rootfs } = await app.unpack({ image: `${images}:${tag}`, bundle, rootless })
      t.strictSame(describeTree(rootfs), describeTree(path.join(bundleOf(tag), 'rootfs')), tag)
    }
    if (missing('umoci') === false)
      t.strictSame(
        run('umoci', ['ls', '--layout', images]).trim().split('\n').sort(),
        await namesIn(layout),
      )
  })

await t.test('four repacks as the same tag: it is one of them, whole', async t => {
  const four = tags.slice(0, 4)
  const { base, images, app, bundleOf } = await setUp(t, four)
  await Promise.all(four.map(tag => repackElsewhere(`${images}:same`, bundleOf(tag))))
  await using layout = await ImageLayout.open(images)
  t.strictSame(await namesIn(layout), ['same', 'test'])
  const bundle = path.join(base, 'again')
  const { rootfs } = await app.unpack({ image: `${images}:same`, bundle, rootless })
  const tree = describeTree(rootfs).join('\n')
  t.ok(four.some(tag => describeTree(path.join(bundleOf(tag), 'rootfs')).join('\n') === tree))
})

async function namesIn(layout: ImageLayout): Promise<string[]> {
  return (await layout.refs()).map(({ refName }) => refName).sort()
}
