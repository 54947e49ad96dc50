// A small image for the examples, made from nothing: an empty image is unpacked, filled and packed, layer by layer.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createImage, ImageLayout, Koci, mtree } from '../middleware/index.ts' // 'koci' in your program

/** What an example works with; the directory is removed when the program ends. */
export interface Sample {
  readonly directory: string
  /** `layout:tag` of an image with two layers. */
  readonly image: string
  /** Whether to unpack without root's privileges. */
  readonly rootless: boolean
}

/** Makes the image. */
export async function sampleImage(): Promise<Sample> {
  const directory = mkdtempSync(path.join(tmpdir(), 'koci-example-'))
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }))
  const rootless = process.geteuid?.() !== 0
  const layout = await ImageLayout.create(path.join(directory, 'images'))
  await createImage(layout, 'sample')
  await layout.close()

  const image = `${directory}/images:sample`
  const bundle = path.join(directory, 'maker')
  const app = new Koci().use(mtree())
  const { rootfs } = await app.unpack({ image, bundle, rootless })
  for (const [folder, file] of [
    ['etc', 'motd'],
    ['var/log', 'boot.log'],
  ] as const) {
    mkdirSync(path.join(rootfs, folder), { recursive: true })
    writeFileSync(path.join(rootfs, folder, file), `this is ${file}\n`)
    await app.repack({ image, bundle, refresh: true })
  }
  return { directory, image, rootless }
}
