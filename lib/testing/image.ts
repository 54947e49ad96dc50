// Test images in code: entries become layers, layers an image in a layout. Only well-formed ones can be made.
import { gzipSync } from 'node:zlib'
import { writeLayer, type LayerEntry } from '../layer/layer-writer.ts'
import { ImageLayout } from '../layout/image-layout.ts'
import { digestOf } from '../oci/digest.ts'
import type { ExecutionConfig } from '../oci/image-config.ts'
import { appendLayer, encodeDraft, newImage } from '../oci/image-draft.ts'
import { layerMediaType } from '../oci/media-type.ts'
import { hostPlatform } from '../oci/platform.ts'

/** What may be said of an entry; everything has a default. */
export interface EntryOptions {
  /** @default 0o644, of directories 0o755 */
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  /** Seconds since the epoch. @default 1 */
  readonly mtime?: number
  readonly xattrs?: Readonly<Record<string, string | Buffer>>
}

/** A file. Names here are relative to the root, without slashes at either end; bytes where text doesn't do. */
export function file(
  name: string | Buffer,
  content: string | Buffer = '',
  options?: EntryOptions,
): LayerEntry {
  const body = Buffer.from(content)
  return { ...entry('file', name, options), size: body.length, body: () => [body] }
}

/** A directory; the empty name is the root of the image. */
export function dir(name: string | Buffer, options?: EntryOptions): LayerEntry {
  return entry('directory', name, { mode: 0o755, ...options })
}

/** A symbolic link; the target is kept as it is. */
export function symlink(
  name: string | Buffer,
  target: string | Buffer,
  options?: EntryOptions,
): LayerEntry {
  return {
    ...entry('symlink', name, { mode: 0o777, ...options }),
    rawLinkname: Buffer.from(target),
  }
}

/** Another name of a file of this layer, or of one below it. */
export function hardlink(name: string | Buffer, target: string | Buffer): LayerEntry {
  return { ...entry('hardlink', name), rawLinkname: Buffer.from(target) }
}

/** Deletes what the layers below have under this name. */
export function whiteout(name: string | Buffer): LayerEntry {
  return entry('whiteout', name)
}

/** Hides everything that the layers below have in a directory. */
export function opaque(directory: string | Buffer): LayerEntry {
  return entry('opaqueWhiteout', directory)
}

/** An image in the making; every method gives a new one. */
export class ImageBuilder {
  readonly #layers: readonly (readonly LayerEntry[])[]
  readonly #config: ExecutionConfig

  constructor(layers: readonly (readonly LayerEntry[])[] = [], config: ExecutionConfig = {}) {
    this.#layers = layers
    this.#config = config
  }

  /** With one layer more on top. */
  layer(...entries: readonly LayerEntry[]): ImageBuilder {
    return new ImageBuilder([...this.#layers, entries], this.#config)
  }

  /** With these fields of the image config's `config`. */
  config(config: ExecutionConfig): ImageBuilder {
    return new ImageBuilder(this.#layers, { ...this.#config, ...config })
  }

  /** Puts it into a layout, which is made if it isn't there. Returns `layout:tag`. */
  async save(layoutPath: string, refName: string = 'latest'): Promise<string> {
    const layout = await ImageLayout.open(layoutPath).catch(() =>
      ImageLayout.create(layoutPath),
    )
    try {
      let draft = newImage({ platform: hostPlatform(), created: '2026-01-01T00:00:00Z' })
      draft = { ...draft, config: { ...draft.config, config: this.#config } }
      for (const entries of this.#layers) {
        const tar = await tarOf(entries)
        const mediaType = layerMediaType('gzip')
        const { digest, size } = await layout.putBlob(gzipSync(tar), mediaType)
        const layer = { digest, size, compression: 'gzip' as const, diffID: digestOf(tar) }
        draft = appendLayer(draft, layer, { created_by: 'koci/testing' })
      }
      const { config, manifest } = encodeDraft(draft)
      for (const { bytes, descriptor } of [config, manifest])
        await layout.putBlob(bytes, descriptor.mediaType)
      await layout.setRef(refName, manifest.descriptor)
      return `${layoutPath}:${refName}`
    } finally {
      await layout.close()
    }
  }
}

/**
 * Begins an image without layers.
 * @example
 * const reference = await image()
 *   .layer(dir('etc'), file('etc/motd', 'hello'))
 *   .layer(whiteout('etc/motd'))
 *   .save('images', 'test')
 */
export function image(): ImageBuilder {
  return new ImageBuilder()
}

function entry(
  type: LayerEntry['type'],
  name: string | Buffer,
  options: EntryOptions = {},
): LayerEntry {
  const { mode = 0o644, uid = 0, gid = 0, mtime = 1, xattrs = {} } = options
  return {
    rawPath: Buffer.from(name),
    type,
    mode,
    uid,
    gid,
    size: 0,
    mtime: BigInt(Math.round(mtime * 1e3)) * 1_000_000n,
    xattrs: Object.entries(xattrs).map(
      ([key, value]) => [Buffer.from(key), Buffer.from(value)] as const,
    ),
  }
}

async function tarOf(entries: readonly LayerEntry[]): Promise<Buffer> {
  const chunks: Buffer[] = []
  await writeLayer(entries, chunk => {
    chunks.push(Buffer.from(chunk))
  })
  return Buffer.concat(chunks)
}
