// The reference implementation's validator finds nothing to object to in what koci packed.
// It takes only one reference in a layout for unique, so the packed image replaces the one it was made from.
import { appendFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { Koci, type RepackOptions } from '../../lib/index.ts'
import { mtree } from '../../middleware/mtree/index.ts'
import { makeImage } from '../support/image.ts'
import { peerImage } from '../support/peer-image.ts'
import { finish, isRoot, missing, temporary } from '../support/peers.ts'

const skip = missing('oci-image-tool')
const rootless = !isRoot
const history = {
  author: 'ä',
  comment: '<&>\u2028',
  createdBy: '"\\\n',
  created: '2026-01-01T00:00:00.5+01:00',
}

const cases: [what: string, edit: (rootfs: string) => void, options: Partial<RepackOptions>][] =
  [
    ['nothing changed', () => undefined, {}],
    ['something changed', change, { refresh: true }],
    ['no history', change, { history: false }],
    ['a history that needs quotes', change, { history }],
    ['not compressed', change, { compress: 'none' }],
  ]
for (const [what, edit, options] of cases)
  await t.test(`${what}: a valid image`, { skip }, async t => {
    const base = temporary(t, 'validate')
    const images = path.join(base, 'images')
    const bundle = path.join(base, 'bundle')
    const image = await makeImage(images, 'test', peerImage)
    const app = new Koci().use(mtree())
    const { rootfs } = await app.unpack({ image, bundle, rootless })
    edit(rootfs)
    const packed = await app.repack({ image, bundle, ...options })
    t.match(validate(images), { status: 0, stderr: '' })

    const { digest = '' } = packed.image.layers.at(-1)?.descriptor ?? {}
    appendFileSync(path.join(images, 'blobs/sha256', digest.replace('sha256:', '')), 'x')
    t.match(validate(images), { status: 1 }, 'it would notice')
  })

function change(rootfs: string): void {
  appendFileSync(`${rootfs}/etc/passwd`, 'more\n')
  rmSync(`${rootfs}/opaque`, { recursive: true })
}

function validate(images: string): unknown {
  return finish('oci-image-tool', ['validate', '--type', 'image', '--ref', 'name=test', images])
}
