import path from 'node:path'
import t, { type Test } from 'tap'
import { createError } from '../../../lib/errors.ts'
import {
  addLayer,
  configureImage,
  replaceLayers,
  type ChangeOptions,
} from '../../../lib/layout/change-image.ts'
import { createImage } from '../../../lib/layout/create-image.ts'
import { ImageLayout, type ResolvedImage } from '../../../lib/layout/image-layout.ts'
import { digestOf } from '../../../lib/oci/digest.ts'
import type { NewLayer } from '../../../lib/oci/image-draft.ts'

/** A layer that nobody reads. */
function layer(name: string): NewLayer {
  const digest = digestOf(Buffer.from(name))
  return { digest, size: name.length, compression: 'gzip', diffID: digest }
}

/** An image of these layers under the tag `app`. */
async function make(
  t: Test,
  ...names: string[]
): Promise<{ image: ChangeOptions; now: () => Promise<ResolvedImage> }> {
  const root = path.join(t.testdir(), 'images')
  const layout = await ImageLayout.create(root)
  t.teardown(() => layout.close())
  await createImage(layout, 'app')
  const image = { image: { path: root, refName: 'app' } }
  for (const name of names) await addLayer(image, async () => layer(name))
  return { image, now: () => layout.resolve('app') }
}

function layersOf({ layers }: ResolvedImage): string[] {
  return layers.map(({ diffID }) => diffID)
}

const diffIDs = (...names: string[]): string[] => names.map(name => layer(name).diffID)

await t.test(
  'changes of one tag at the same time follow one another, none is lost',
  async t => {
    const { image, now } = await make(t)
    const names = Array.from({ length: 8 }, (_, at) => `k${at}`)
    await Promise.all(names.map(name => configureImage(image, { labels: [`${name}=v`] })))
    const { config } = await now()
    t.strictSame(Object.keys(config.config?.Labels ?? {}).sort(), names)
    t.equal(config.history?.length, names.length)
  },
)

await t.test(
  'a layer goes on top of what somebody else made of the image meanwhile',
  async t => {
    const { image, now } = await make(t, 'base')
    let calls = 0
    const made = await addLayer(image, async () => {
      calls++
      await configureImage(image, { labels: ['k=v'] })
      await addLayer(image, async () => layer('theirs'))
      return layer('ours')
    })
    t.equal(calls, 1, 'it was written once')
    const found = await now()
    t.strictSame(layersOf(found), diffIDs('base', 'theirs', 'ours'))
    t.equal(found.descriptor.digest, made.descriptor.digest)
    t.strictSame(found.config.config?.Labels, { k: 'v' })
  },
)

await t.test('under another name it is a change of the image that it began with', async t => {
  const { image, now } = await make(t, 'base')
  const made = await addLayer({ ...image, newRefName: 'other' }, async () => {
    await addLayer(image, async () => layer('theirs'))
    return layer('ours')
  })
  t.strictSame(layersOf(made), diffIDs('base', 'ours'))
  t.strictSame(layersOf(await now()), diffIDs('base', 'theirs'))
})

await t.test('layers are replaced beneath one that somebody else added meanwhile', async t => {
  const { image, now } = await make(t, 'base', 'one', 'two')
  await replaceLayers(image, async () => {
    await addLayer(image, async () => layer('theirs'))
    return { range: { first: 1, last: 2 }, layer: layer('flat') }
  })
  t.strictSame(layersOf(await now()), diffIDs('base', 'flat', 'theirs'))
})

await t.test('layers that are not there any more are not replaced', async t => {
  const { image, now } = await make(t, 'base', 'one', 'two')
  const flatten = (first: number, last: number, name: string) => async () => ({
    range: { first, last },
    layer: layer(name),
  })
  await t.rejects(
    replaceLayers(image, async ({ layout }) => {
      const resolve = layout.resolve.bind(layout)
      let looks = 0
      layout.resolve = (...args) => {
        t.equal(++looks, 1, 'it gives up at once')
        return resolve(...args)
      }
      // what is above it has another effect now
      await replaceLayers(image, flatten(0, 0, 'other base'))
      return flatten(1, 2, 'flat')()
    }),
    { code: 'ERR_KOCI_REF_MOVED' },
  )
  t.strictSame(layersOf(await now()), diffIDs('other base', 'one', 'two'))
  await t.rejects(
    replaceLayers(image, async () => {
      await replaceLayers(image, flatten(0, 2, 'flat'))
      return flatten(0, 2, 'flat')()
    }),
    { code: 'ERR_KOCI_REF_MOVED' },
  )
  t.strictSame(layersOf(await now()), diffIDs('flat'))
})

await t.test('a tag that is removed meanwhile stays removed', async t => {
  const { image, now } = await make(t, 'base')
  await t.rejects(
    addLayer(image, async ({ layout }) => {
      await layout.removeRef('app')
      return layer('ours')
    }),
    { code: 'ERR_KOCI_REF_NOT_FOUND' },
  )
  await t.rejects(now(), { code: 'ERR_KOCI_REF_NOT_FOUND' })
})

await t.test('who never gets to move the tag gives up', async t => {
  const { image, now } = await make(t, 'base')
  let tries = 0
  await t.rejects(
    addLayer(image, async ({ layout }) => {
      layout.setRef = async () => {
        tries++
        throw createError('REF_MOVED', { subject: 'tag app' })
      }
      return layer('ours')
    }),
    { code: 'ERR_KOCI_REF_MOVED' },
  )
  t.equal(tries, 100)
  t.strictSame(layersOf(await now()), diffIDs('base'))
})
