// The end of the chain of `config`: the image config becomes the runtime configuration, with users looked up
// inside the rootfs only.
import type { ConfigContext } from '../context.ts'
import { withTree } from '../fs/open-tree.ts'
import { hostResolvConf } from './rootless-config.ts'
import { toRuntimeConfig, type RuntimeConfig } from './runtime-config.ts'

/** @throws {NotFoundError} ERR_KOCI_USER_NOT_FOUND; {FormatError} ERR_KOCI_INVALID_CONFIG */
export function convertImageConfig(context: ConfigContext): Promise<RuntimeConfig> {
  const { imageConfig, rootfs, extraction } = context
  const { uidMap, gidMap, rootless } = extraction
  return withTree(rootfs, root =>
    toRuntimeConfig(imageConfig, {
      rootfs: root,
      uidMap,
      gidMap,
      rootless,
      hostResolvConf: rootless ? hostResolvConf() : undefined,
    }),
  )
}
