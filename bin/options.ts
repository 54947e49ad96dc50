// Options that several commands have, and those that all have.
import type { Option, Options } from './command.ts'

export const image: Option = {
  type: 'text',
  description: 'the layout and the tag, which is "latest" if left out',
  value: 'layout[:tag]',
  required: true,
}

export const layout: Option = {
  type: 'text',
  description: 'the directory of the layout',
  value: 'path',
  required: true,
}

/** Of commands that look for the image of a bundle. */
export const bundleLayout: Option = {
  type: 'text',
  description: "where the bundle's image is; by default where it was at unpack",
  value: 'path',
}

/** Of commands that list changes. */
export const listing: Options = {
  'mask-path': {
    type: 'list',
    description: 'leave out this path and all beneath it; repeatable',
    value: 'path',
  },
  'no-mask-volumes': { type: 'switch', description: "pack the image's volumes, too" },
  'verify-content': {
    type: 'switch',
    description: 'compare the content of every file, whatever size and times say',
  },
  'delta-fallback': {
    type: 'switch',
    description: 'if a driver fails to list changes, ask the next one',
  },
}

export const platform: Option = {
  type: 'text',
  description: 'which image of an index; by default that of this machine',
  value: 'os/arch[/variant]',
}

const use: Option = {
  type: 'list',
  description: 'a driver for the chain, outermost first; repeatable; see koci drivers',
  value: 'name[:key=value,...]',
}

function chainOptions(use: Option): Options {
  return {
    use,
    config: {
      type: 'text',
      description: 'the chain of this module, instead of ~/.config/koci/koci.config.ts',
      value: 'file',
    },
    'no-config': { type: 'switch', description: 'leave ~/.config/koci/koci.config.ts alone' },
    hooks: {
      type: 'text',
      description: 'run the commands of this file instead of ~/.config/koci/hooks.toml',
      value: 'file',
    },
    'no-hooks': { type: 'switch', description: 'run no hooks' },
  }
}

/** The chain of a new bundle: who is in it, and what runs around them. */
export const chain: Options = chainOptions(use)

/** The same for a bundle that is there. */
export const bundleChain: Options = chainOptions({
  ...use,
  description: 'a driver, outermost first; repeatable; by default as at unpack',
})
export const json: Option = {
  type: 'switch',
  description: 'print the result, and errors, as JSON',
}

/** Owners inside and outside of containers. */
export const mapping: Options = {
  'uid-map': {
    type: 'list',
    description: 'owners inside and outside; repeatable',
    value: 'container:host[:size]',
  },
  'gid-map': {
    type: 'list',
    description: 'the same for groups',
    value: 'container:host[:size]',
  },
  rootless: { type: 'switch', description: 'as an ordinary user: owners are only noted' },
}

export const keepDirlinks: Option = {
  type: 'switch',
  description: 'a directory over a symlink to a directory keeps the symlink',
}

export const compat: Option = {
  type: 'text',
  description: 'names with too many ".." stop at the root, as in umoci: no error',
  value: 'clamp',
  choices: ['clamp'],
}

export const newTag: Option = {
  type: 'text',
  description: 'the tag for the new image; by default that of the old one, which moves',
  value: 'new-tag',
}

export const compress: Option = {
  type: 'text',
  description: 'auto, none, gzip or zstd; by default auto: as the newest layer of the image',
  value: 'how',
  choices: ['auto', 'none', 'gzip', 'zstd', ''],
}

export const layerAnnotation: Options = {
  'layer.annotation': {
    type: 'list',
    description: "an annotation of the new layer's descriptor; repeatable",
    value: 'name=value',
  },
}

/** Of commands that can say what they would do. */
export const dryRun: Option = {
  type: 'switch',
  description: 'change nothing, only say what would be done',
}

/** What every command takes, before its name and after it. */
export const globalOptions: Options = {
  log: {
    type: 'text',
    description: 'debug, info, warn, error or fatal; by default warn',
    value: 'level',
  },
  verbose: { type: 'switch', description: 'the same as --log=info' },
  quiet: {
    type: 'switch',
    short: 'q',
    description: 'errors only: no warnings, no progress (-q)',
  },
  'cpu-profile': {
    type: 'text',
    description: 'write a CPU profile of the main thread',
    value: 'file',
    hidden: true,
  },
  strict: { type: 'switch', description: 'take warnings for errors' },
  'no-progress': { type: 'switch', description: 'no progress line on terminals' },
  json,
  help: { type: 'switch', description: 'show this help (-h)' },
}
