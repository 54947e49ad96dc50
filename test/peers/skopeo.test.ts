// skopeo reads what koci packed, and koci unpacks what skopeo wrote, in every kind of archive.
import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci } from '../../lib/index.ts'
import { ImageLayout } from '../../lib/layout/image-layout.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { makeImage } from '../support/image.ts'
import { peerImage } from '../support/peer-image.ts'
import { isRoot, missing, run, temporary } from '../support/peers.ts'
import { describeTree } from '../support/tree.ts'

const skip = missing('skopeo')
const rootless = !isRoot

/** A layout with the tag `packed`, which koci packed; and the tree that was packed. */
async function pack(
  t: Parameters<typeof temporary>[0],
  compress: 'gzip' | 'zstd' | 'none',
): Promise<{ base: string; images: string; tree: string[]; diffIDs: string[] }> {
  const base = temporary(t, 'skopeo')
  const images = path.join(base, 'images')
  const bundle = path.join(base, 'bundle')
  const image = await makeImage(images, 'test', { ...peerImage, compression: compress })
  const app = new Koci().use(mtree())
  const { rootfs } = await app.unpack({ image, bundle, rootless })
  appendFileSync(`${rootfs}/etc/group-owned`, 'more\n'.repeat(100_000))
  rmSync(`${rootfs}/opaque`, { recursive: true })
  mkdirSync(`${rootfs}/tmp/new`)
  const packed = await app.repack({ image: `${images}:packed`, bundle, compress })
  const diffIDs = packed.image.layers.map(layer => layer.diffID)
  return { base, images, tree: describeTree(rootfs), diffIDs }
}

for (const compress of ['gzip', 'zstd', 'none'] as const)
  await t.test(
    `skopeo inspects and copies layers written as ${compress}`,
    { skip },
    async t => {
      const { base, images, tree, diffIDs } = await pack(t, compress)
      const inspected = JSON.parse(run('skopeo', ['inspect', `oci:${images}:packed`]))
      await using layout = await ImageLayout.open(images)
      const ours = await layout.resolve('packed')
      t.equal(inspected.Digest, ours.descriptor.digest)
      t.strictSame(
        inspected.Layers,
        ours.layers.map(layer => layer.descriptor.digest),
      )
      const config = JSON.parse(run('skopeo', ['inspect', '--config', `oci:${images}:packed`]))
      t.strictSame(config.rootfs.diff_ids, diffIDs)

      skopeoCopy(`oci:${images}:packed`, `dir:${base}/dir`)
      const copied = readdirSync(`${base}/dir`)
      for (const { descriptor } of ours.layers) {
        const name = descriptor.digest.replace('sha256:', '')
        t.ok(copied.includes(name))
        const blob = readFileSync(`${images}/blobs/sha256/${name}`)
        t.ok(blob.equals(readFileSync(`${base}/dir/${name}`)))
      }

      for (const [what, target, image] of [
        ['a layout', `oci:${base}/copy:again`, `${base}/copy:again`],
        ['an archived layout', `oci-archive:${base}/oci.tar:again`, `${base}/oci.tar:again`],
        [
          'an archive as docker save makes it',
          `docker-archive:${base}/docker.tar:example.org/name:again`,
          `${base}/docker.tar:again`,
        ],
      ] as const) {
        // it says itself that Docker's images have no zstd
        if (compress === 'zstd' && target.startsWith('docker')) continue
        skopeoCopy(`oci:${images}:packed`, target)
        const bundle = path.join(base, `bundle of ${what}`)
        const { rootfs, layers } = await new Koci().unpack({ image, bundle, rootless })
        t.strictSame(describeTree(rootfs), tree, what)
        t.strictSame(
          layers.map(layer => layer.diffID),
          diffIDs,
          what,
        )
      }
    },
  )

await t.test(
  'a layout that skopeo wrote is repacked, and read by skopeo',
  { skip },
  async t => {
    const { base, images } = await pack(t, 'gzip')
    skopeoCopy(`oci:${images}:packed`, `oci:${base}/copy:one`)
    const app = new Koci().use(mtree())
    const bundle = path.join(base, 'second')
    const { rootfs } = await app.unpack({ image: `${base}/copy:one`, bundle, rootless })
    appendFileSync(`${rootfs}/etc/passwd`, 'x')
    await app.repack({ image: `${base}/copy:two`, bundle })
    const one = JSON.parse(run('skopeo', ['inspect', `oci:${base}/copy:one`]))
    const two = JSON.parse(run('skopeo', ['inspect', `oci:${base}/copy:two`]))
    t.strictSame(two.Layers.slice(0, -1), one.Layers)
  },
)

function skopeoCopy(from: string, to: string): void {
  run('skopeo', ['--insecure-policy', 'copy', '--quiet', from, to])
}
