// What the two commands that unpack take.
import type { UnpackOptions } from '../lib/unpack.ts'
import type { Arguments } from './arguments.ts'
import type { Options } from './command.ts'
import { chain, compat, dryRun, image, keepDirlinks, mapping, platform } from './options.ts'
import { readCompat, readImage, readLayers, readMapping, readPlatform } from './read-options.ts'

export const unpackOptions: Options = {
  image,
  platform,
  ...mapping,
  'keep-dirlinks': keepDirlinks,
  layers: {
    type: 'text',
    description: 'these layers only, 0 being the base, as in 0..2, 2.. or 3',
    value: 'first..last',
  },
  from: {
    type: 'text',
    description: 'the layer of this digest or DiffID, and those on top of it',
    value: 'digest',
  },
  ...chain,
  compat,
  'dry-run': dryRun,
}

/** Reads all of them but those of the chain. */
export function readUnpack(args: Arguments): Omit<UnpackOptions, 'bundle'> {
  return {
    image: readImage(args),
    platform: readPlatform(args),
    compat: readCompat(args),
    layers: readLayers(args),
    ...readMapping(args),
    keepDirlinks: args.has('keep-dirlinks'),
  }
}
