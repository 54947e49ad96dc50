// The runtime configuration for an image on its own, without a bundle. Whatever was in the file before stays there
// until the new configuration is complete.
import { randomBytes } from 'node:crypto'
import { lstat, open, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { wrapError } from '../errors.ts'
import { withTree } from '../fs/open-tree.ts'
import { Extraction, type Mapping } from '../layer/extraction.ts'
import { openImage, type ImageOptions } from '../layout/open-image.ts'
import type { ImageConfig } from '../oci/image-config.ts'
import { hostResolvConf } from './rootless-config.ts'
import { encodeRuntimeConfig, toRuntimeConfig, type RuntimeConfig } from './runtime-config.ts'

/** What a runtime configuration is made from. */
export interface RuntimeConfigOptions extends ImageOptions, Mapping {
  /** Where users and groups are looked up, and what the configuration names as its root. @default none */
  readonly rootfs?: string | undefined
  /** Told what had to be guessed. */
  readonly warn?: ((message: string) => void) | undefined
}

/**
 * Converts the config of an image and writes the result to a file, which is replaced if it exists. Something that isn't
 * a regular file, such as a terminal, is written to.
 * @throws {NotFoundError} ERR_KOCI_USER_NOT_FOUND; {FormatError} ERR_KOCI_INVALID_CONFIG; {UnsupportedError}
 * ERR_KOCI_UNSUPPORTED_PLATFORM; nothing was written then
 */
export async function writeRuntimeConfig(
  file: string,
  options: RuntimeConfigOptions,
): Promise<void> {
  const image = await openImage(options)
  try {
    const config = await convert(image.config, options)
    await replaceFile(file, encodeRuntimeConfig(config))
  } finally {
    await image.layout.close()
  }
}

async function convert(
  imageConfig: ImageConfig,
  options: RuntimeConfigOptions,
): Promise<RuntimeConfig> {
  const { rootfs, warn } = options
  const { uidMap, gidMap, rootless } = new Extraction(options)
  const resolvConf = rootless ? hostResolvConf() : undefined
  const shared = { uidMap, gidMap, rootless, hostResolvConf: resolvConf, warn }
  if (rootfs === undefined || rootfs === '') return toRuntimeConfig(imageConfig, shared)
  const directory = path.resolve(rootfs)
  const rootPath = path.basename(directory)
  return withTree(directory, root =>
    toRuntimeConfig(imageConfig, { ...shared, rootfs: root, rootPath }),
  )
}

async function replaceFile(file: string, content: string): Promise<void> {
  try {
    const found = await lstat(file).catch(() => undefined)
    // a link may lead to a terminal; what it leads to is what is meant
    if (found && !found.isFile()) return await writeFile(file, content)
    const { dir, base } = path.parse(path.resolve(file))
    const temporary = path.join(
      dir,
      `.koci-${base.slice(0, 64)}-${randomBytes(6).toString('hex')}`,
    )
    try {
      const handle = await open(temporary, 'wx', found ? found.mode & 0o777 : 0o644)
      try {
        await handle.writeFile(content)
        await handle.sync()
      } finally {
        await handle.close()
      }
      await rename(temporary, file)
    } catch (error) {
      await rm(temporary, { force: true })
      throw error
    }
  } catch (error) {
    throw wrapError(error, file)
  }
}
