// What a command is told: a few words as arguments, and everything as one JSON document on its standard input. Whatever comes
// from an image is a value in the document; the words are paths that the user chose, digests, and a number.
import path from 'node:path'
import type { Context, RefreshContext } from '../../lib/context.ts'
import type { Layer } from '../../lib/layer/layer.ts'
import type { HookName } from './hook-names.ts'

/** The version of the document, and of the replies. */
export const protocolVersion = 1

/** The directory in a bundle that is the commands' own; it goes with a bundle that can't be made. */
export const stateName = 'hooks'

/** `HOOK BUNDLE ROOTFS`, and for hooks about a layer `DIGEST DIFFID CHAINID INDEX`. */
export function argumentsOf(hook: HookName, context: Context, layer?: Layer): string[] {
  const words = [hook, context.bundle.path, context.rootfs]
  if (layer) words.push(layer.digest, layer.diffID, layer.chainID, String(layer.index))
  return words
}

/** The document; `own` is what only this hook is told. */
export function documentOf(
  hook: HookName,
  context: Context,
  own: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  const { bundle, rootfs, image, manifest, imageConfig, layers, extraction } = context
  const { layering, dialect, rootless, keepDirlinks, uidMap, gidMap, variants } = extraction
  return {
    version: protocolVersion,
    hook,
    bundle: bundle.path,
    rootfs,
    state: path.join(bundle.path, stateName),
    extraction: { layering, dialect, rootless, keepDirlinks, uidMap, gidMap, variants },
    image: {
      layout: path.resolve(image.layout.path),
      refName: image.refName,
      descriptor: image.descriptor,
    },
    manifest,
    config: imageConfig,
    layers: layers.map(describeLayer),
    ...own,
  }
}

/** A layer, and where it is if it has been placed. */
export function describeLayer(layer: Layer): Record<string, unknown> {
  const { index, digest, diffID, chainID, size, descriptor, placed, needsBelow, target } = layer
  return {
    index,
    digest,
    diffID,
    chainID,
    size,
    mediaType: descriptor.mediaType,
    ...(needsBelow !== undefined && { needsBelow }),
    ...(target !== undefined && { target }),
    ...(placed && {
      placed: { by: placed.by, verified: placed.verified },
      ...(placed.dir !== undefined && { dir: placed.dir }),
      ...(placed.report && { report: placed.report }),
    }),
  }
}

/** What a refresh hook is told beside what all are; `list` is the path of a file that names what was packed. */
export function describeRefresh(
  { committed, packed }: RefreshContext,
  list: string,
): Record<string, unknown> {
  return {
    committed: {
      refName: committed.refName,
      descriptor: committed.descriptor,
      layers: committed.layers.map(({ descriptor, diffID, chainID }, index) => {
        const { digest, size, mediaType } = descriptor
        return { index, digest, diffID, chainID, size, mediaType }
      }),
    },
    packed: { list, count: packed.length },
  }
}
